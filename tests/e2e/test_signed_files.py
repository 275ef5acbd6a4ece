"""Signed addresses of files in sandboxes, through the real API, node and supervisor."""

import socket
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from agent_runner import Client, Sandbox
from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing, eventually

PAGE = b"<script>alert(document.cookie)</script>"


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of a tenant of this module's own."""
    return shared.client("signed")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox with a page in it."""
    with api.sandboxes.create(size="nano", timeout_s=None) as made:
        made.files.write("out/seite ä&b.html", PAGE)
        yield made


@pytest.fixture
def stranger() -> Iterator[httpx.Client]:
    """Return a connection without a key."""
    with httpx.Client(timeout=30) as client:
        yield client


def test_whoever_has_an_address_reads_the_file(sandbox: Sandbox, stranger: httpx.Client) -> None:
    """Without a key, as a whole and by range; a browser neither displays nor runs it."""
    signed = sandbox.files.signed_url("out/seite ä&b.html", expires_s=600)
    answer = stranger.get(signed.url)
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    part = stranger.get(signed.url, headers={"Range": "bytes=1-6"})
    assert (part.status_code, part.content) == (206, b"script")
    assert signed.url not in repr(signed)


def test_whoever_has_an_address_writes_the_file(
    sandbox: Sandbox, stranger: httpx.Client, shared: Deployment
) -> None:
    """In chunks, too; each time the file is replaced."""
    signed = sandbox.files.signed_url("in/new/data.bin", "write")
    for content in (b"first", b"second " * 2**17):
        answer = stranger.put(signed.url, content=iter([content]))
        assert answer.status_code == 200, answer.text
        assert answer.json()["size"] == len(content)
        assert sandbox.files.read("in/new/data.bin") == content


def test_an_address_is_good_for_what_was_signed_alone(
    sandbox: Sandbox, api: Client, shared: Deployment, stranger: httpx.Client
) -> None:
    """Every other use has one answer, which says nothing of what is wrong."""
    read = sandbox.files.signed_url("out/seite ä&b.html").url
    write = sandbox.files.signed_url("other.txt", "write").url
    with api.sandboxes.create(size="nano") as other:
        elsewhere = read.replace(sandbox.id, other.id)
        key = {"Authorization": f"Bearer {shared.key('signed')}"}
        token = httpx.URL(read).params["token"]
        attempts = [
            stranger.put(read, content=b"x"),
            stranger.get(write),
            stranger.delete(read),
            stranger.get(elsewhere),
            stranger.get(read.replace(".html", ".htm")),
            stranger.get(read.replace("token=fa_", "token=fa_A")),
            # A key counts for nothing here, and an address for nothing elsewhere.
            stranger.get(read.partition("&token")[0], headers=key),
            stranger.get(
                f"{shared.url}/v1/sandboxes/{sandbox.id}/files/signed/content",
                params={"path": "/etc/passwd", "token": token},
            ),
        ]
        details = {each.json()["detail"] for each in attempts}
        assert {each.status_code for each in attempts} == {HTTPStatus.UNAUTHORIZED}
        assert len(details) == 1
        listed = stranger.get(f"{shared.url}/v1/sandboxes/{sandbox.id}/files?token={token}")
        assert listed.status_code == HTTPStatus.UNAUTHORIZED
    assert stranger.get(read).status_code == HTTPStatus.OK, "the control"
    assert stranger.get(read, headers={"Authorization": "Bearer rk_wrong"}).status_code == 200
    refused = sandbox.files.signed_url
    with pytest.raises(Exception, match="expires_s"):
        refused("a", expires_s=8 * 86_400)


def test_an_address_expires_and_ends_with_its_key(
    sandbox: Sandbox, shared: Deployment, stranger: httpx.Client
) -> None:
    """Whichever is first; a revoked key ends it at once, and other keys' addresses stay."""
    owner = shared.http("signed")
    asked = {"name": "lent", "role": "developer"}
    lent = owner.post("/v1/keys", json=asked).json()
    with bearing(shared.url, lent["token"]) as client:
        path = f"/v1/sandboxes/{sandbox.id}/files/signed"
        body = {"path": "out/seite ä&b.html", "operation": "read"}
        url = shared.url + client.post(path, json=body).json()["url"]
        short = client.post(path, json={**body, "expires_s": 1})
        assert short.status_code == HTTPStatus.CREATED, short.text
        over = shared.url + short.json()["url"]
    eventually(lambda: stranger.get(over).status_code == HTTPStatus.UNAUTHORIZED)
    assert stranger.get(url).status_code == HTTPStatus.OK
    own = sandbox.files.signed_url("out/seite ä&b.html").url
    assert owner.delete(f"/v1/keys/{lent['key']['id']}").is_success
    assert stranger.get(url).status_code == HTTPStatus.UNAUTHORIZED
    assert stranger.get(own).status_code == HTTPStatus.OK, "the control"


@pytest.fixture
def slow() -> Iterator[httpx.Client]:
    """Return a connection whose kernel takes in little of an answer that nobody reads.

    Linux may let a receive buffer grow beyond the whole answer (tcp(7), `tcp_rmem`).
    """
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)]
    with httpx.Client(transport=httpx.HTTPTransport(socket_options=small), timeout=30) as client:
        yield client


def slowly(pieces: Iterator[bytes]) -> Iterator[int]:
    """Yield how long each piece is, and give the server time to look whether the right stands."""
    for piece in pieces:
        yield len(piece)
        time.sleep(0.03)


def test_a_download_under_way_ends_with_the_key(
    sandbox: Sandbox, shared: Deployment, stranger: httpx.Client, slow: httpx.Client
) -> None:
    """A right that is taken back in the middle cuts the answer off, visibly incomplete."""
    sandbox.run("head -c 24M /dev/zero > large")
    owner = shared.http("signed")
    lent = owner.post("/v1/keys", json={"name": "cut", "role": "developer"}).json()
    with bearing(shared.url, lent["token"]) as client:
        path = f"/v1/sandboxes/{sandbox.id}/files/signed"
        body = {"path": "large", "operation": "read"}
        url = shared.url + client.post(path, json=body).json()["url"]
    received: list[int] = []
    with slow.stream("GET", url) as answer:
        pieces = answer.iter_raw(2**16)
        received.append(len(next(pieces)))
        assert owner.delete(f"/v1/keys/{lent['key']['id']}").is_success
        eventually(lambda: stranger.get(url).status_code == HTTPStatus.UNAUTHORIZED)
        with pytest.raises(httpx.RemoteProtocolError):
            received.extend(slowly(pieces))
    assert sum(received) < 24 * 2**20


def test_an_ended_sandbox_says_so(api: Client, stranger: httpx.Client) -> None:
    """The address is right, but there is nothing left: 410 with the reason."""
    with api.sandboxes.create(size="nano") as made:
        made.files.write("a", b"a")
        url = made.files.signed_url("a").url
        assert stranger.get(url).status_code == HTTPStatus.OK
        missing = stranger.get(made.files.signed_url("missing").url)
        assert missing.status_code == HTTPStatus.NOT_FOUND
    answer = stranger.get(url)
    assert (answer.status_code, answer.json()["reason"]) == (HTTPStatus.GONE, "killed")


def test_both_ends_are_on_record_and_no_token_is_kept(
    sandbox: Sandbox, api: Client, shared: Deployment, stranger: httpx.Client
) -> None:
    """Signer, user and address are on record; neither log files nor the audit log hold a token."""
    url = sandbox.files.signed_url("out/seite ä&b.html").url
    stranger.get(url, headers={"User-Agent": "borrower"})
    token = httpx.URL(url).params["token"]
    (made, *_) = records(api, "sandbox:address_sign")
    assert made["metadata"]["path"] == "out/seite ä&b.html"
    used = [e for e in records(api, "sandbox:address_use") if e["user_agent"] == "borrower"]
    assert [each["outcome"] for each in used] == ["success"]
    assert used[0]["actor"] == made["actor"]
    logs = b"".join(
        each.read_bytes() for each in (shared.stack.settings.state_dir / "log").rglob("*.log")
    )
    assert b"files/signed/content" in logs, "the control: requests are in it"
    for kept in (logs.decode(), str(shared.sql("SELECT body FROM audit_events"))):
        assert token not in kept
        assert token[20:60] not in kept


def records(api: Client, action: str) -> list[dict[str, Any]]:
    """Return the records of an action, newest first."""
    return [each["record"] for each in reversed(api.audit(limit=500, action=action)["items"])]


def test_a_viewer_signs_nothing(sandbox: Sandbox, shared: Deployment) -> None:
    """They may not read files in sandboxes, so they have no such right to lend."""
    viewer = shared.http("signed", Role.VIEWER)
    body = {"path": "out/seite ä&b.html", "operation": "read"}
    answer = viewer.post(f"/v1/sandboxes/{sandbox.id}/files/signed", json=body)
    assert answer.status_code == HTTPStatus.FORBIDDEN
