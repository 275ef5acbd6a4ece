"""E2B's daemon and those who may not: no token, another sandbox's, too few rights, or too long."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from fastapi.routing import APIRoute

from runner.api.e2b.daemon import environment, files, filesystem, process
from runner.words.principal import Role
from tests.support.connect import STREAM, bash, call, done, frame, frames, opened, streamed
from tests.support.connect import written as out
from tests.support.deployment import Deployment, eventually
from tests.support.e2b import create, knowing, within

ROUTES = [
    (method, route.path)
    for router in (process.router, filesystem.router, files.router, environment.router)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
]
STREAMS = {
    "/process.Process/Start", "/process.Process/Connect", "/process.Process/StreamInput",
    "/filesystem.Filesystem/WatchDir",
}  # fmt: skip
START = "process.Process/Start"
HOLDING = 25


@dataclass
class Tenant:
    """A tenant with one key, and one sandbox."""

    token: str
    control: httpx.Client
    inside: httpx.Client
    sandbox_id: str


def furnish(deployed: Deployment, name: str) -> Tenant:
    """Make a sandbox for a tenant."""
    token = deployed.key(name)
    control = deployed.clients.enter_context(knowing(deployed, token))
    made = create(control)
    return Tenant(token, control, within(deployed, made), made["sandboxID"])


@pytest.fixture(scope="module")
def mine(deployed: Deployment) -> Iterator[Tenant]:
    """Return a tenant."""
    found = furnish(deployed, "e2b-mine")
    yield found
    found.control.delete(f"/sandboxes/{found.sandbox_id}")


@pytest.fixture(scope="module")
def theirs(deployed: Deployment) -> Iterator[Tenant]:
    """Return another tenant."""
    found = furnish(deployed, "e2b-theirs")
    yield found
    found.control.delete(f"/sandboxes/{found.sandbox_id}")


def send(client: httpx.Client, method: str, path: str, **headers: str) -> httpx.Response:
    """Send a request that any route understands, and that would have an effect."""
    given = dict(headers)
    asked = {"path": "made-by-a-stranger", **bash("touch made-by-a-stranger")}
    if path == "/files":
        given["Content-Type"] = "application/octet-stream"
        content = b"" if method == "GET" else b"x"
        query = {"path": "made-by-a-stranger"}
        return client.request(method, path, params=query, content=content, headers=given)
    if path in STREAMS:
        given["Content-Type"] = STREAM
        return client.request(method, path, content=frame(asked), headers=given)
    return client.request(method, path, json=asked if method == "POST" else None, headers=given)


def code_of(answer: httpx.Response) -> str:
    """Return how a call went, whether it is told by its status or at its stream's end."""
    if answer.headers.get("content-type") == STREAM:
        (flags, end), *_ = frames(httpx.Response(200, content=iter([answer.content])))
        assert flags == 2
        return str(end["error"]["code"])
    return str(answer.status_code)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_nothing_is_there(
    deployed: Deployment, mine: Tenant, method: str, path: str
) -> None:
    """Not with a wrong one, an API key, or the user's name either."""
    key = mine.control.headers["x-api-key"]
    for headers in (
        {},
        {"X-Access-Token": "st_wrong"},
        {"X-Access-Token": mine.token},
        {"X-Access-Token": key},
        {"X-API-KEY": key},
        {"Authorization": f"Bearer {mine.token}"},
        {"Authorization": "Basic dXNlcjo="},
    ):
        with httpx.Client(base_url=deployed.url, timeout=60) as stranger:
            answer = send(stranger, method, path, **{"E2b-Sandbox-Id": mine.sandbox_id, **headers})
        assert answer.status_code == 401, (headers, answer.text)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_sandboxs_token_does_nothing_in_another(
    mine: Tenant, theirs: Tenant, method: str, path: str
) -> None:
    """It is answered as for a sandbox that nobody has, and nothing happens there."""
    nobodys = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"
    answers = [
        send(mine.inside, method, path, **{"E2b-Sandbox-Id": each})
        for each in (theirs.sandbox_id, nobodys)
    ]
    assert [each.status_code for each in answers] == [502, 502]
    told, unknown = (each.json() for each in answers)
    assert told == {**unknown, "sandboxId": theirs.sandbox_id}
    assert call(theirs.inside, "filesystem.Filesystem/Stat", {"path": "made-by-a-stranger"}).json()[
        "code"
    ] == "not_found"  # fmt: skip


@pytest.fixture
def viewers(deployed: Deployment) -> Iterator[Tenant]:
    """Return a tenant whose key has become a viewer's."""
    found = furnish(deployed, "e2b-viewers")
    assert streamed(found.inside, START, bash("true"))[1] == {}
    deployed.sql(
        "UPDATE api_keys SET role = %s WHERE prefix = %s", Role.VIEWER, found.token.split("_")[1]
    )
    yield found
    deployed.sql(
        "UPDATE api_keys SET role = %s WHERE prefix = %s", Role.OWNER, found.token.split("_")[1]
    )
    found.control.delete(f"/sandboxes/{found.sandbox_id}")


def test_a_token_has_the_rights_that_its_key_has_now(viewers: Tenant) -> None:
    """Its key lost the permission to act in sandboxes: so it did, at every route."""
    for method, path in ROUTES:
        answer = send(viewers.inside, method, path)
        assert code_of(answer) in {"403", "permission_denied"}, (path, answer.text)


def test_what_a_token_opened_ends_with_its_key(deployed: Deployment) -> None:
    """A stream is cut off, visibly incomplete, and the token opens nothing more."""
    tenant = furnish(deployed, "e2b-revoked")
    other = deployed.clients.enter_context(knowing(deployed, deployed.key("e2b-revoked")))
    with opened(tenant.inside, START, bash("echo on; sleep 600")) as coming:
        next(coming)
        assert out([next(coming)[1]]) == b"on\n"
        deployed.sql(
            "UPDATE api_keys SET revoked_at = now() WHERE prefix = %s", tenant.token.split("_")[1]
        )
        with pytest.raises(httpx.RemoteProtocolError):
            list(coming)
    assert tenant.inside.get("/health").status_code == 401
    assert other.delete(f"/sandboxes/{tenant.sandbox_id}").status_code == 204


def connected(deployed: Deployment) -> int:
    """Return how many connections API and worker hold in all, to clients and to each other."""
    return sum(
        len(psutil.Process(child.pid).net_connections("all"))
        for child in (deployed.stack.api, deployed.stack.worker)
    )


def test_clients_that_vanish_leave_nothing(deployed: Deployment, mine: Tenant) -> None:
    """Each holds a stream, and hangs up without a word: no connection is left of any."""
    address = urlsplit(deployed.url)
    done(mine.inside, "filesystem.Filesystem/MakeDir", {"path": "watched"})
    with opened(mine.inside, START, bash("sleep 600", tag="followed")) as coming:
        followed = next(coming)[1]["event"]["start"]["pid"]
    before = eventually(lambda: connected(deployed))
    asked = (
        ("/filesystem.Filesystem/WatchDir", {"path": "watched"}),
        ("/process.Process/Connect", {"process": {"pid": followed}}),
        ("/process.Process/Start", bash("exec sleep 600", tag="left")),
    )
    held = []
    for n in range(HOLDING):
        path, message = asked[n % len(asked)]
        content = frame(message)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {STREAM}\r\n"
        for name in ("e2b-sandbox-id", "x-access-token"):
            head += f"{name}: {mine.inside.headers[name]}\r\n"
        head += f"Content-Length: {len(content)}\r\n\r\n"
        connection = socket.create_connection((address.hostname, address.port), timeout=60)
        connection.sendall(head.encode() + content)
        assert b"start" in _until(connection, b"start"), path
        held.append(connection)
    assert connected(deployed) >= before + HOLDING
    for connection in held:
        connection.close()
    eventually(lambda: connected(deployed) <= before)
    # What they started goes on, as E2B has it, and ends when somebody ends it.
    processes = done(mine.inside, "process.Process/List", {})["processes"]
    left = [each["pid"] for each in processes if each.get("tag") in {"left", "followed"}]
    assert len(left) == 1 + HOLDING // len(asked)
    for pid in left:
        signal = {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
        done(mine.inside, "process.Process/SendSignal", signal)


def _until(connection: socket.socket, text: bytes) -> bytes:
    """Return what arrives until it holds a text, or nothing more comes."""
    got = b""
    while text not in got and (chunk := connection.recv(65536)):
        got += chunk
    return got


@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b'{"path": "' + b"x" * 100_000 + b'"}', b'{"path": NaN}', b"\xff", b"{}{}",
     b'{"path": "a", "path": "b"}', b'{"path": 1e999}', b'{"path": {"path": {}}}'],
    ids=["deep", "long", "NaN", "not UTF-8", "two", "twice", "infinite", "another shape"],
)  # fmt: skip
def test_hostile_json_is_refused(mine: Tenant, body: bytes) -> None:
    answer = mine.inside.post(
        "/filesystem.Filesystem/ListDir", content=body, headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_argument"), answer.text
    framed = frame(body)
    headers = {"Content-Type": STREAM}
    with mine.inside.stream(
        "POST", "/filesystem.Filesystem/WatchDir", content=framed, headers=headers
    ) as stream:
        assert next(frames(stream))[1]["error"]["code"] == "invalid_argument"


def test_a_body_above_the_bound_is_refused_by_its_head(mine: Tenant) -> None:
    """One message of a stream is bounded further."""
    headers = {"Content-Type": "application/json"}
    body = b" " * (17 * 2**20)
    answer = mine.inside.post("/process.Process/SendInput", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "resource_exhausted")
    answer = mine.inside.post(
        f"/{START}", content=frame(b" " * (5 * 2**20)), headers={"Content-Type": STREAM}
    )
    assert code_of(answer) == "resource_exhausted"
