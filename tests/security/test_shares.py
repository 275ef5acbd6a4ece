"""One tenant cannot hold all of the API's connections, whatever it opens and from wherever."""

import asyncio
import functools
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network

import h11
import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.edge.address import ClientAddress
from runner.api.edge.connection import Patience, connections
from runner.api.edge.routing import TEMPLATE
from runner.api.edge.shares import Shared, Shares
from runner.api.middleware import PRINCIPAL
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from tests.support import wire
from tests.support.deployment import NO_POOL, Deployment, deployment, eventually

CONNECTIONS = 60
TRIED = 200
KEYS = 4
WAITS = "import time; print('on', flush=True); time.sleep(60)"


@pytest.fixture(scope="module")
def small(image: None) -> Iterator[Deployment]:
    """Return a deployment with few connections."""
    with deployment(max_connections=CONNECTIONS, **NO_POOL) as made:
        yield made


def opened(
    open_: ExitStack, url: str, path: str, keys: list[str]
) -> dict[int, list[socket.socket]]:
    """Request a path on many connections from many addresses; return them by their answers."""
    answered: dict[int, list[socket.socket]] = {}
    for n in range(TRIED):
        connection = open_.enter_context(wire.connected(url, f"127.0.1.{1 + n % 200}"))
        bearer = f"Bearer {keys[n % len(keys)]}"
        connection.sendall(wire.head("GET", path, Authorization=bearer))
        status = int(connection.recv(4096).split(b" ", 2)[1])
        answered.setdefault(status, []).append(connection)
    return answered


def others_are_served(made: Deployment) -> None:
    """Check that another tenant's program runs, and that health is reported."""
    assert made.client("quiet").run(command=["echo", "1"]).state == "succeeded"
    assert httpx.get(f"{made.url}/healthz").status_code == 200
    assert httpx.get(f"{made.url}/readyz").status_code == 200


def test_a_tenants_streams_leave_room_and_end_with_their_execution(small: Deployment) -> None:
    """It gets a quarter of the connections, then 429. All of them end when it is cancelled."""
    client = small.client("greedy")
    id_ = client.submit(code=WAITS, language="python").id
    keys = [small.key("greedy") for _ in range(KEYS)]
    with ExitStack() as open_:
        answered = opened(open_, small.url, f"/v1/executions/{id_}/events", keys)
        assert answered.keys() == {200, 429}
        assert len(answered[200]) == CONNECTIONS // 4
        others_are_served(small)
        client.cancel(id_)
        began = time.monotonic()
        for stream in answered[200]:
            while not (data := stream.recv(65536)).endswith(b"0\r\n\r\n"):
                assert data
        assert time.monotonic() - began < 5


def test_a_tenants_idle_connections_leave_room(small: Deployment) -> None:
    """They are half of all connections, open after an answer, and free again once they close."""
    keys = [small.key("idle") for _ in range(KEYS)]
    for _ in range(2):
        with ExitStack() as open_:
            answered = opened(open_, small.url, "/v1/me", keys)
            assert answered.keys() == {200, 429}
            assert abs(len(answered[200]) - CONNECTIONS // 2) <= 2
            others_are_served(small)
        eventually(lambda: httpx.get(f"{small.url}/v1/me", headers=_bearer(keys[0])).is_success)


def test_strangers_connections_keep_nobody_out(small: Deployment) -> None:
    """More than the limit, silent or with a body that does not come: the oldest are cut."""
    login = wire.head("POST", "/v1/login", Content_Type="application/json", Content_Length="100")
    for sent in (b"", login):
        with ExitStack() as open_:
            for n in range(TRIED):
                connection = open_.enter_context(wire.connected(small.url, f"127.0.1.{1 + n}"))
                connection.sendall(sent)
            others_are_served(small)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Known:
    """Takes the caller from a header instead of a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tenants = {name: new_id() for name in ("greedy", "quiet")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        name = Request(scope).headers["tenant"]
        scope[TEMPLATE] = "/"
        scope[PRINCIPAL] = Principal(
            self._tenants[name], self._tenants[name], PrincipalKind.KEY, name, Role.OWNER
        )
        await self._app(scope, receive, send)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an app with our connection class."""
    http = connections(Patience(client_s=10, connections=CONNECTIONS))
    server = uvicorn.Server(uvicorn.Config(app, http=http, log_config=None, lifespan="off"))
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


def asked(connection: socket.socket, tenant: str) -> int | None:
    """Return the status of the answer to one tenant's request; None if the connection was cut."""
    try:
        connection.sendall(wire.head("GET", "/", Tenant=tenant))
        return wire.answer(connection)[0]
    except (ConnectionError, h11.RemoteProtocolError):
        return None


@pytest.mark.parametrize("shared", [True, False], ids=["with shares", "without"])
def test_without_shares_one_tenant_would_push_the_others_out(shared: bool) -> None:
    """Shown able to fail: the same greed, with a quiet tenant's connection kept or lost."""
    app: ASGIApp = PlainTextResponse("here")
    if shared:
        app = Shares(app, Shared.of(CONNECTIONS))
    with serving(Known(app)) as url, ExitStack() as open_:
        quiet = open_.enter_context(wire.connected(url))
        assert asked(quiet, "quiet") == 200
        for _ in range(TRIED):
            greedy = open_.enter_context(wire.connected(url))
            assert asked(greedy, "greedy") in {200, 429}
        assert asked(quiet, "quiet") == (200 if shared else None)


@pytest.mark.parametrize("named", [True, False], ids=["trusted proxy", "unknown peer"])
def test_a_proxys_idle_connections_are_no_tenants(named: bool) -> None:
    """Shown able to fail: a peer that the operator does not name is refused with the same pool."""
    shares = Known(Shares(PlainTextResponse("here"), Shared.of(CONNECTIONS)))
    trusted = (ip_network("127.0.0.1/32"),) if named else (ip_network("192.0.2.1/32"),)
    with serving(ClientAddress(shares, trusted)) as url, ExitStack() as open_:
        pool = [open_.enter_context(wire.connected(url)) for _ in range(CONNECTIONS)]
        statuses = [asked(connection, "greedy") for connection in pool]
        assert set(statuses) == ({200} if named else {200, 429})
        assert not named or {asked(connection, "quiet") for connection in pool} == {200}


def test_a_tenants_requests_by_way_of_a_proxy_leave_room() -> None:
    """While they are served, they count as if they came on connections of the tenant's own."""
    gate = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        if Request(scope).headers["tenant"] == "greedy":
            await asyncio.to_thread(gate.wait)
        await PlainTextResponse("done")(scope, receive, send)

    shares = Known(Shares(slow, Shared.of(CONNECTIONS)))
    with (
        serving(ClientAddress(shares, (ip_network("127.0.0.1/32"),))) as url,
        ExitStack() as open_,
    ):
        open_.callback(gate.set)
        for _ in range(CONNECTIONS):
            greedy = open_.enter_context(wire.connected(url))
            greedy.sendall(wire.head("GET", "/", Tenant="greedy"))
            time.sleep(0.01)
        last = open_.enter_context(wire.connected(url))
        assert asked(last, "greedy") == 429
        quiet = open_.enter_context(wire.connected(url))
        assert asked(quiet, "quiet") == 200


@pytest.mark.parametrize("one", [True, False], ids=["one for both ways", "one for each"])
def test_requests_to_ports_and_to_the_api_have_one_share(one: bool) -> None:
    """Shown able to fail: with two, a tenant holds twice its share, by way of its ports."""
    gate = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(gate.wait)
        await PlainTextResponse("done")(scope, receive, send)

    shared = Shared.of(CONNECTIONS)
    api = Shares(slow, shared)
    ports = Shares(slow, shared if one else Shared.of(CONNECTIONS))

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        way = ports if scope["path"].startswith("/ports") else api
        await way(scope, receive, send)

    def held(url: str, open_: ExitStack, path: str) -> int:
        """Ask on many connections; return how many are served, and not refused at once."""
        asking = []
        for _ in range(CONNECTIONS):
            connection = open_.enter_context(wire.connected(url))
            connection.sendall(wire.head("GET", path, Tenant="greedy"))
            asking.append(connection)
        eventually(lambda: len(select.select(asking, [], [], 0)[0]) >= CONNECTIONS // 2)
        return len(asking) - len(select.select(asking, [], [], 0.2)[0])

    with serving(Known(either)) as url, ExitStack() as open_:
        open_.callback(gate.set)
        by_api = held(url, open_, "/")
        assert 0 < by_api <= CONNECTIONS // 2
        last = open_.enter_context(wire.connected(url))
        last.sendall(wire.head("GET", "/ports", Tenant="greedy"))
        refused = bool(select.select([last], [], [], 2)[0])
        assert refused is one


def test_a_client_that_goes_away_frees_its_share_when_its_request_ends() -> None:
    """A request that outlives its connection still counts, so hanging up is no way around."""
    gate = threading.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(gate.wait)
        await PlainTextResponse("done")(scope, receive, send)

    with serving(Known(Shares(slow, Shared.of(CONNECTIONS)))) as url, ExitStack() as open_:
        for _ in range(CONNECTIONS):
            with wire.connected(url) as gone:
                gone.sendall(wire.head("GET", "/", Tenant="greedy"))
                time.sleep(0.01)
        last = open_.enter_context(wire.connected(url))
        assert asked(last, "greedy") == 429
        gate.set()

        def served() -> bool:
            with wire.connected(url) as again:
                return asked(again, "greedy") == 200

        eventually(served, within_s=5)
