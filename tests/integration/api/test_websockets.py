"""WebSockets at the edge: whoever holds too many, reads nothing or sends too much is cut off."""

import asyncio
import base64
import functools
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from runner.api.edge.connection import Patience, connections
from runner.api.edge.routing import TEMPLATE
from runner.api.edge.shares import Shared, Shares
from runner.api.edge.sockets import SOCKET, Handshakes, Socket, WentAway
from runner.api.edge.upgraded import MAX_MESSAGE_BYTES, is_handshake
from runner.api.middleware import PRINCIPAL
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from tests.support import wire
from tests.support.deployment import eventually

CLIENT_S = 2.0
CONNECTIONS = 24
PATH = "/v1/sandboxes/x/processes/1/terminal"
STREAM = "/v1/sandboxes/{sandbox_id}/processes/{process}/terminal"
TENANT = new_id()


class Echo:
    """Opens every WebSocket; repeats what it hears, or sends without end when told to."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        socket = scope.get(SOCKET)
        if not isinstance(socket, Socket):
            await PlainTextResponse("plain")(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 101, "headers": []})
        self.open += 1
        try:
            while True:
                heard = await socket.hear()
                if heard == "fail":
                    raise RuntimeError(heard)
                await socket.tell(heard)
                while heard == "talk":
                    await socket.tell(b"x" * 65536)
                    await asyncio.sleep(0)
        except WentAway:
            return
        finally:
            self.open -= 1


class Known:
    """Says who calls, in place of keys."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope[TEMPLATE] = STREAM if Request(scope).url.path == PATH else "/"
        scope[PRINCIPAL] = Principal(TENANT, TENANT, PrincipalKind.KEY, "a", Role.OWNER)
        await self._app(scope, receive, send)


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve an app with our connections, as `runner.api.server` does."""
    config = uvicorn.Config(
        app,
        http=connections(Patience(client_s=CLIENT_S, connections=CONNECTIONS)),
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"127.0.0.1:{listener.getsockname()[1]}{PATH}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


@pytest.fixture
def echo() -> Echo:
    """Return what answers."""
    return Echo()


@pytest.fixture
def url(echo: Echo) -> Iterator[str]:
    """Return where WebSockets are, among few connections."""
    with serving(Handshakes(Known(Shares(echo, Shared.of(CONNECTIONS))))) as served:
        yield served


def handshake() -> bytes:
    """Return the head that opens a WebSocket."""
    key = base64.b64encode(os.urandom(16)).decode()
    return wire.head(
        "GET", PATH, Connection="Upgrade", Upgrade="websocket",
        Sec_WebSocket_Version="13", Sec_WebSocket_Key=key,
    )  # fmt: skip


def frame(opcode: int, content: bytes) -> bytes:
    """Return a short frame as clients send it, masked by zeros."""
    return struct.pack("!BBI", 0x80 | opcode, 0x80 | len(content), 0) + content


@contextmanager
def raw(url: str) -> Iterator[socket.socket]:
    """Open a WebSocket and leave its bytes to the test."""
    with wire.connected(f"http://{url}") as connection:
        connection.sendall(handshake())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert b" 101 " in head
        yield connection


def opened(open_: ExitStack, url: str) -> int:
    """Open a WebSocket for as long as a context lasts; return the status that answers it."""
    try:
        open_.enter_context(connect(f"ws://{url}"))
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


def test_messages_go_both_ways_and_compression_is_not_offered(url: str) -> None:
    with connect(f"ws://{url}") as open_:
        assert open_.response is not None
        assert "Sec-WebSocket-Extensions" not in open_.response.headers
        for message in ("text", b"bytes", b"x" * MAX_MESSAGE_BYTES):
            open_.send(message)
            assert open_.recv(10) == message


def test_a_failure_nobody_foresaw_closes_it_and_says_so(url: str, echo: Echo) -> None:
    with connect(f"ws://{url}") as open_:
        open_.send("fail")
        with pytest.raises(ConnectionClosed):
            open_.recv(10)
        assert open_.close_code == 1011
    eventually(lambda: echo.open == 0)


def test_open_ones_are_held_to_shares_and_give_their_places_back(url: str, echo: Echo) -> None:
    """They do so by closing and by breaking off, many times as often as the limit at once."""
    for _ in range(2):
        with ExitStack() as open_:
            statuses = [opened(open_, url) for _ in range(CONNECTIONS)]
            assert set(statuses) == {101, 429}
            assert 0 < statuses.count(101) < CONNECTIONS // 2
        eventually(lambda: echo.open == 0)
    for _ in range(2 * CONNECTIONS):
        with raw(url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: echo.open == 0)
    with connect(f"ws://{url}") as last:
        last.send("here")
        assert last.recv(10) == "here"


def test_who_reads_nothing_is_cut_off(url: str, echo: Echo) -> None:
    """The control: a client that reads as much is served for longer than that."""
    with raw(url) as deaf, connect(f"ws://{url}", max_size=None) as reader:
        deaf.sendall(frame(1, b"talk"))
        eventually(lambda: echo.open == 2)
        reader.send("talk")
        until = time.monotonic() + 20 * CLIENT_S
        while echo.open == 2 and time.monotonic() < until:
            reader.recv(10)
        assert echo.open == 1
        assert reader.recv(10)


def test_pings_whose_answers_are_not_read_fill_no_memory(url: str, echo: Echo) -> None:
    """They are no longer answered, and the client is cut off."""
    with raw(url) as connection:
        connection.settimeout(0.5)
        pings = memoryview(frame(9, b"x" * 100) * 500)
        at, until = 0, time.monotonic() + 20 * CLIENT_S
        while echo.open and time.monotonic() < until:
            with suppress(OSError):
                at = (at + connection.send(pings[at:])) % len(pings)
        assert echo.open == 0


def test_who_leaves_a_handshake_unfinished_is_cut_off(url: str) -> None:
    with wire.connected(f"http://{url}") as connection:
        connection.sendall(handshake()[:-2])
        assert wire.answer(connection)[0] == 408


GOOD = (
    (b"connection", b"keep-alive, Upgrade"),
    (b"upgrade", b"WebSocket"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", base64.b64encode(b"0123456789abcdef")),
)


def test_a_handshake_is_known_by_all_of_its_head() -> None:
    assert is_handshake("GET", "1.1", PATH.encode(), GOOD)
    assert not is_handshake("POST", "1.1", PATH.encode(), GOOD)
    assert not is_handshake("GET", "1.0", PATH.encode(), GOOD)
    for path in ("/", "/v1/executions", f"{PATH}/", f"/x{PATH}", PATH.replace("x", "%78"), "/é"):
        assert not is_handshake("GET", "1.1", path.encode("latin-1"), GOOD)
    for n in range(len(GOOD)):
        assert not is_handshake("GET", "1.1", PATH.encode(), GOOD[:n] + GOOD[n + 1 :])
    for more in (GOOD[3], GOOD[2], (b"content-length", b"1"), (b"x", b"x" * 9000)):
        assert not is_handshake("GET", "1.1", PATH.encode(), (*GOOD, more))
    assert not is_handshake("GET", "1.1", PATH.encode(), (*GOOD, *[(b"x", b"")] * 100))


async def test_a_socket_elsewhere_is_refused_whatever_the_server_lets_through() -> None:
    """Only paths with WebSockets: the answers of others may be without end."""
    sent = []

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/executions", "scheme": "ws",
             "extensions": {"websocket.http.response": {}}}  # fmt: skip
    await Handshakes(Echo())(scope, receive, send)
    assert sent == [{"type": "websocket.close"}]
