"""Names of files as a hostile client sends them: raw, as no client library would."""

import asyncio
import contextlib
import os
import re
import socket
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, unquote_to_bytes

import httpx
import pytest
import uvicorn
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from runner.base.settings import Settings
from runner.store.objects import ObjectStore
from runner.words.errors import StoreUnavailable
from tests.support.deployment import Deployment, bearing, eventually
from tests.support.hostile_names import HOSTILE, ODD, PLAIN

CANARY = b"canary: a neighbour's bytes"
METHODS = ("GET", "HEAD", "PUT", "DELETE")
# The ways to put one name into a request's target, without unquoted bytes that HTTP forbids.
SPELLINGS: dict[str, Callable[[str], str]] = {
    "quoted": lambda name: quote(name, safe=""),
    "quoted but for slashes": lambda name: quote(name, safe="/"),
    "quoted but for dots, slashes and percents": lambda name: quote(name, safe="/.%\\~:"),
    "dots quoted, too": lambda name: quote(name, safe="/").replace(".", "%2e"),
    "everything quoted": lambda name: "".join(f"%{byte:02X}" for byte in name.encode()),
}


def send(url: str, method: str, target: str, key: str, body: bytes = b"") -> tuple[int, bytes]:
    """Send one request exactly as it is spelled; return the status and all that comes back."""
    at = httpx.URL(url)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {at.host}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((at.host, at.port or 80), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ", 2)[1]), answer


def attacks(theirs: str) -> Iterator[tuple[str, str, str]]:
    """Yield label, method and target of every attack."""
    for label, name in {**HOSTILE, **ODD}.items():
        named = name.replace("{theirs}", theirs)
        for spelling, spell in SPELLINGS.items():
            for method in METHODS:
                yield f"{method} {label}, {spelling}", method, f"/v1/files/{spell(named)}"
    # Targets that no text decodes from: bytes that are not UTF-8, such as overlong dots.
    for raw in (
        "%c0%ae%c0%ae/",
        "%c0%af",
        "%e0%80%ae%e0%80%ae/",
        "%f0%80%80%ae/",
        "%ff",
        "%ed%a0%80",
    ):
        for method in METHODS:
            yield f"{method} bytes {raw}", method, f"/v1/files/{raw}{theirs}"


def leads_elsewhere(target: str) -> bool:
    """Return whether a target, once decoded, has a name that must be refused."""
    try:
        name = unquote_to_bytes(target.removeprefix("/v1/files/")).decode()
    except UnicodeDecodeError:
        return True
    parts = name.split("/")
    return (
        not {"", ".", ".."}.isdisjoint(parts)
        or "Cc" in map(unicodedata.category, name)
        or len(name.encode()) > 1024
        or len(parts) > 33
        or any(len(part.encode()) > 255 for part in parts)
    )


@pytest.fixture(scope="module")
def neighbours(shared: Deployment) -> tuple[str, str]:
    """Return the path of a planted file of another tenant, and that tenant's key."""
    key = shared.key("hn-theirs")
    with bearing(shared.url, key) as client:
        assert client.put("/v1/files/planted", content=CANARY).status_code == 201
    row = shared.sql(
        "SELECT object_key FROM files JOIN tenants USING (tenant_id) WHERE name = 'hn-theirs'"
    )
    return row[0]["object_key"].removeprefix("tenants/"), key


def test_no_name_reaches_a_neighbours_file(shared: Deployment, neighbours: tuple[str, str]) -> None:
    """Every name, in every spelling, by every method, is refused or names the caller's own."""
    theirs, their_key = neighbours
    ours = shared.key("hn-ours")
    refused = kept = 0
    for label, method, target in attacks(theirs):
        body = b"overwritten" if method == "PUT" else b""
        status, answer = send(shared.url, method, target, ours, body)
        assert CANARY not in answer, label
        if not leads_elsewhere(target):
            assert status == {"GET": 404, "HEAD": 404, "PUT": 201, "DELETE": 204}[method], label
            kept += 1
            continue
        # Control characters and bytes that are not UTF-8 are refused before any routing.
        odd = re.search(r"[\x00-\x1f\x7f\ufffd]", unquote(target)) is not None
        assert status == (400 if odd else 422), (label, status, answer)
        assert method == "HEAD" or odd or b'"path.path"' in answer, label
        refused += 1
    assert refused >= 500
    assert kept >= 500
    with bearing(shared.url, their_key) as client:
        assert client.get("/v1/files/planted").content == CANARY
        assert [each["path"] for each in client.get("/v1/files").json()["items"]] == ["planted"]
    with bearing(shared.url, ours) as client:
        assert client.get("/v1/files").json()["items"] == []
    objects = shared.stack.settings.objects_dir
    assert (objects / "tenants" / theirs).read_bytes() == CANARY


def test_prefixes_and_cursors_list_nothing_of_a_neighbour(
    shared: Deployment, neighbours: tuple[str, str]
) -> None:
    """A hostile prefix is refused or matches nothing."""
    theirs, _ = neighbours
    client = shared.http("hn-ours")
    for name in (
        *HOSTILE.values(),
        *ODD.values(),
        "planted",
        "%",
        "_",
        "plant",
        f"tenants/{theirs}",
    ):
        for parameter in ("prefix", "cursor"):
            named = name.replace("{theirs}", theirs)
            answer = client.get("/v1/files", params={parameter: named})
            assert answer.status_code == 422 or answer.json()["items"] == [], named
            assert b"canary" not in answer.content


def test_bodies_name_no_neighbours_file(shared: Deployment, neighbours: tuple[str, str]) -> None:
    """An execution cannot take a neighbour's file by its key, or put artifacts beside it."""
    theirs, _ = neighbours
    client = shared.http("hn-ours")
    for label, name in HOSTILE.items():
        named = name.replace("{theirs}", theirs)
        for body in ({"files": {"in": {"key": named}}}, {"artifacts_to": named}):
            if body == {"artifacts_to": "a/"}:
                continue
            answer = client.post("/v1/executions", json={"command": ["true"], **body})
            assert answer.status_code == 422, (label, answer.text)
    for name in ODD.values():
        body = {"files": {"in": {"key": name.replace("{theirs}", theirs)}}}
        answer = client.post("/v1/executions", json={"command": ["true"], **body})
        assert answer.json()["errors"][0]["field"] == "body.files.in.key"
    answer = client.post(
        "/v1/executions", json={"command": ["true"], "files": {"in": {"key": "planted"}}}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.files.in.key"


def test_what_is_stored_is_what_was_named(shared: Deployment) -> None:
    """Names in every language and of every look come back unchanged."""
    client = shared.http("hn-plain")
    names = (*PLAIN, *ODD.values())
    for name in names:
        url = f"/v1/files/{quote(name, safe='/')}"
        assert client.put(url, content=name.encode()).status_code == 201, name
        answer = client.get(url)
        assert answer.content == name.encode()
        told = answer.headers["Content-Disposition"].removeprefix("attachment; filename*=UTF-8''")
        assert told.isascii()
        assert unquote(told, errors="strict") == name.rpartition("/")[2]
    listed = [each["path"] for each in client.get("/v1/files").json()["items"]]
    assert listed == sorted(names, key=str.encode)


def test_the_probe_reaches_a_neighbour_once_keys_are_not_checked(tmp_path: Path) -> None:
    """The control: a server that joins the name to the tenant's folder gives the file away."""
    planted = tmp_path / "tenants" / "theirs" / "files" / "planted"
    planted.parent.mkdir(parents=True)
    (tmp_path / "tenants" / "ours" / "files").mkdir(parents=True)
    reached = set()
    with careless(tmp_path, tmp_path / "tenants" / "ours" / "files") as url:
        for label, method, target in attacks("theirs/files/planted"):
            planted.write_bytes(CANARY)
            _, answer = send(url, method, target, "", b"overwritten")
            if not planted.exists() or planted.read_bytes() != CANARY or CANARY in answer:
                reached.add(re.sub(r"^\w+ |,.*$", "", label))
    assert {"parent", "percent-encoded dots", "percent-encoded slash", "double-encoded"} <= reached


@contextmanager
def careless(root: Path, folder: Path) -> Iterator[str]:
    """Serve a folder in a careless way: decode the name once more, join it, follow it.

    A request that leads out of `root`, the test's own folder, is answered without looking at it.
    """
    app = FastAPI()

    @app.api_route("/v1/files/{path:path}", methods=list(METHODS))
    async def serve(request: Request, path: str) -> Response:
        at = Path(os.path.normpath(folder / unquote(path)))  # noqa: ASYNC240 - touches nothing
        if not at.is_relative_to(root):
            # However careless this server acts, it must not touch the machine that runs the test.
            return PlainTextResponse("no", 404)
        try:
            if request.method == "PUT":
                await asyncio.to_thread(at.write_bytes, await request.body())
            elif request.method == "DELETE":
                await asyncio.to_thread(at.unlink)
            else:
                return Response(await asyncio.to_thread(at.read_bytes))
        except (OSError, ValueError):
            return PlainTextResponse("no", 404)
        return PlainTextResponse("done")

    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    with start_blocking_portal() as portal:
        running = portal.start_task_soon(server.serve)
        eventually(lambda: server.started)
        address = server.servers[0].sockets[0].getsockname()
        yield f"http://127.0.0.1:{address[1]}"
        server.should_exit = True
        running.result(timeout=20)


async def test_the_store_itself_leads_nowhere_else(tmp_path: Path) -> None:
    """There is a second protection: obstore refuses parent folders, or takes them literally."""
    store = ObjectStore.open(Settings(state_dir=tmp_path))
    outside = tmp_path / "planted"
    outside.write_bytes(CANARY)

    async def body() -> AsyncIterator[bytes]:
        yield b"overwritten"

    for name in (*HOSTILE.values(), *ODD.values()):
        with contextlib.suppress(StoreUnavailable, ValueError):
            await store.write(f"tenants/x/{name.replace('{theirs}', 'planted')}", body())
    assert outside.read_bytes() == CANARY
    assert sorted(os.listdir(tmp_path)) == ["objects", "planted"]  # noqa: PTH208
