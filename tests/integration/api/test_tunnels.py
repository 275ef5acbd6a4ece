"""Tunnels at the edge: opened by an answer of 101, held to a place, and never for nothing."""

import asyncio
import functools
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from runner.api.edge.connection import Patience, connections
from runner.api.edge.tunnel import SWITCH, Switch, Switches, TunnelClosed
from tests.support import wire
from tests.support.deployment import eventually

CLIENT_S = 1.0


class Echo:
    """Opens every tunnel; says back what it hears, or talks without end when told to."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        switch = scope.get(SWITCH)
        if not isinstance(switch, Switch) or scope["path"] == "/refused":
            await PlainTextResponse("plain")(scope, receive, send)
            return
        headers = [(b"connection", b"Upgrade"), (b"upgrade", b"echo")]
        await send({"type": "http.response.start", "status": 101, "headers": headers})
        assert switch.tunnel is not None
        self.open += 1
        try:
            while data := await switch.tunnel.receive():
                await switch.tunnel.send(data)
                while data == b"talk":
                    await switch.tunnel.send(b"x" * 65536)
                    await asyncio.sleep(0)
            switch.tunnel.finish()
        except TunnelClosed:
            return
        finally:
            self.open -= 1


@pytest.fixture
def echo() -> Echo:
    """Return what answers."""
    return Echo()


@pytest.fixture
def url(echo: Echo) -> Iterator[str]:
    """Return where tunnels are."""
    with serving(echo) as served:
        yield served


@contextmanager
def serving(echo: Echo) -> Iterator[str]:
    """Serve it by our connections, as `runner.api.server` does; it must end when it is told to."""
    config = uvicorn.Config(
        Switches(echo),
        http=connections(Patience(client_s=CLIENT_S, connections=8)),
        ws="websockets-sansio",
        log_config=None,
        lifespan="off",
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def tunnel(url: str, first: bytes = b"") -> Iterator[socket.socket]:
    """Open a tunnel, with the first bytes right behind the request's head."""
    with wire.connected(url) as connection:
        connection.sendall(wire.head("GET", "/", Connection="Upgrade", Upgrade="echo") + first)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert b" 101 " in head
        yield connection


def heard(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes, or what came before the end."""
    got = b""
    while len(got) < size and (piece := connection.recv(size - len(got))):
        got += piece
    return got


def test_bytes_go_both_ways_until_each_end_has_finished(url: str, echo: Echo) -> None:
    """Bytes behind the head are the tunnel's; a plain answer leaves the connection as it was."""
    with tunnel(url, b"early") as connection:
        assert heard(connection, 5) == b"early"
        connection.sendall(b"y" * 1000)
        assert heard(connection, 1000) == b"y" * 1000
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    eventually(lambda: echo.open == 0)
    with wire.connected(url) as connection:
        for _ in range(2):
            request = wire.head("GET", "/refused", Connection="Upgrade", Upgrade="echo")
            connection.sendall(request)
            assert wire.answer(connection)[0] == 200


def test_a_client_that_breaks_off_leaves_nothing(url: str, echo: Echo) -> None:
    for _ in range(20):
        with tunnel(url) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: echo.open == 0)
    with tunnel(url, b"here") as last:
        assert heard(last, 4) == b"here"


def test_who_reads_nothing_is_cut_off(url: str, echo: Echo) -> None:
    """The control: a client that reads as much is served on."""
    with tunnel(url, b"talk") as deaf, tunnel(url, b"talk") as reader:
        eventually(lambda: echo.open == 2)
        eventually(lambda: heard(reader, 65536) and echo.open == 1)
        assert heard(reader, 65536)
        with suppress(OSError):
            deaf.recv(1)


def test_tunnels_end_when_the_server_stops(echo: Echo) -> None:
    """It does not wait for their clients."""
    with ExitStack() as open_:
        with serving(echo) as url:
            connection = open_.enter_context(tunnel(url, b"here"))
            assert heard(connection, 4) == b"here"
        assert connection.recv(1) == b""
