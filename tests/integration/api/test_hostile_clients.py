"""Hostile clients on the wire: strangers, ended keys, harmful heads and files."""

import socket
from urllib.parse import quote, urlsplit

import httpx
import psutil
import pytest

from tests.support.deployment import Deployment

HEAD_BOUND = 4 * 2**20
FLOOD = 64 * 2**20


def test_a_stranger_has_nothing_parsed(shared: Deployment) -> None:
    """It gets 401 before its body is read, for any body and whether the route exists or not."""
    url = f"{shared.url}/v1/executions"
    json = {"Content-Type": "application/json"}
    for content, headers in ((b"{", json), (b"{}", json), (b"x", {}), (b"", {})):
        assert httpx.post(url, content=content, headers=headers).status_code == 401
    declared = {**json, "Content-Length": str(2**40), "Connection": "close"}
    assert answered(shared.url, "POST", "/v1/executions", declared).startswith(b"HTTP/1.1 401 ")
    assert httpx.get(f"{shared.url}/v1/none").status_code == 401
    assert httpx.put(url).status_code == 401


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE api_keys SET revoked_at = now() WHERE prefix = %s",
        "UPDATE api_keys SET expires_at = now() WHERE prefix = %s",
    ],
    ids=["revoked", "expired"],
)
def test_a_key_that_is_over_is_as_unknown_as_any(end: str, shared: Deployment) -> None:
    """It is refused from the next request on, with the usual words."""
    key = shared.key("ended")
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{shared.url}/v1/executions"
    assert httpx.get(url, headers=headers).status_code == 200
    shared.sql(end, key.split("_")[1])
    refused = httpx.get(url, headers=headers)
    missing = httpx.get(url)
    assert refused.status_code == missing.status_code == 401
    assert refused.json()["detail"] == missing.json()["detail"]


@pytest.mark.parametrize(
    "piece", [b"a" * 2**16, b"a\r\nX-Another: " * 4096], ids=["one header", "many headers"]
)
def test_a_head_without_an_end_takes_no_memory(piece: bytes, shared: Deployment) -> None:
    """The connection is closed at a limit, long before it hurts."""
    api = psutil.Process(shared.stack.api.pid)
    before = api.memory_info().rss
    sent = flood(shared.url, piece)
    assert sent < FLOOD
    assert api.memory_info().rss - before < HEAD_BOUND
    assert httpx.get(f"{shared.url}/healthz").status_code == 200


def test_a_downloaded_file_is_saved_and_never_shown(shared: Deployment) -> None:
    """This holds for any type and any name that it claims."""
    client = shared.client("downloads")
    names = ["page.html", 'a"; filename="b.html', "\u00fc;x.svg"]
    ended = client.run(
        code=f"for name in {names!r}:\n    open(name, 'w').write('<script>')", language="python"
    )
    assert {each.path for each in ended.artifacts} == set(names)
    headers = {"Authorization": f"Bearer {shared.key('downloads')}"}
    for each in ended.artifacts:
        answer = httpx.get(
            f"{shared.url}/v1/executions/{ended.id}/artifacts/{quote(each.path)}", headers=headers
        )
        assert answer.content == b"<script>"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-length"] == "8"
        assert answer.headers["etag"] == f'"{each.sha256}"'
        name = quote(each.path, safe="")
        assert answer.headers["content-disposition"] == f"attachment; filename*=UTF-8''{name}"


def flood(url: str, piece: bytes) -> int:
    """Send a head of repeated `piece`s; return how many bytes went before it was cut."""
    sent = 0
    with connected(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-First: ")
        while sent < FLOOD:
            try:
                connection.sendall(piece)
            except ConnectionError:
                break
            sent += len(piece)
    return sent


def connected(url: str) -> socket.socket:
    """Return a connection to the API's port."""
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port or 80), timeout=10)
    connection.settimeout(10)
    return connection


def answered(url: str, method: str, path: str, headers: dict[str, str]) -> bytes:
    """Return the beginning of the answer to a head without a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in headers.items())]
    with connected(url) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection.recv(4096)
