"""A connection that became a tunnel: bytes both ways, after an answer of 101.

A request with `Upgrade` that opens no WebSocket of ours finds a `Switch` in its scope. If its route
answers with 101, the bytes that follow are the route's; any other answer is an answer as usual.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.edge.shares import Place

SWITCH = "runner.switch"
"""In the scope of a request that wants to leave HTTP: how an answer of 101 opens a tunnel."""
SWITCHING = 101
READ_AHEAD = 128 * 1024
"""From how many unread bytes on the client is not read from."""
LOOK_EVERY = 0.1
"""How often a tunnel is looked at, as a part of a client's time."""

_log = structlog.get_logger("runner.api")
Headers = list[tuple[bytes, bytes]]


class TunnelClosed(Exception):
    """The client has gone."""


class Tunnel(asyncio.Protocol):
    """The client's end of a tunnel."""

    def __init__(self, *, place: Place, client_s: float, ended: Callable[["Tunnel"], None]) -> None:
        self._place = place
        self._client_s = client_s
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._over = False
        """Whether the client sends no more."""
        self._gone = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection."""
        # uvloop's are no subclass.
        self._transport = cast(asyncio.Transport, transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give the connection's place back."""
        self._gone = self._over = True
        if self._watch is not None:
            self._watch.cancel()
        self._place.close()
        self._ended(self)
        self._news.set()
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Keep bytes until the route takes them."""
        self._received += data
        if len(self._received) > READ_AHEAD and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """Note that the client sends no more; it may still read."""
        self._over = True
        self._news.set()
        return True

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        self._writable.clear()
        self._unread_since = self._loop.time()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        self._writable.set()
        self._unread_since = None

    def shutdown(self) -> None:
        """End: the server stops."""
        self.close()

    async def receive(self) -> bytes:
        """Return the next bytes; empty once the client sends no more. Raises TunnelClosed."""
        while not self._received:
            if self._gone:
                raise TunnelClosed
            if self._over:
                return b""
            self._news.clear()
            await self._news.wait()
        data = bytes(self._received)
        self._received.clear()
        if self._transport is not None and not self._over:
            self._transport.resume_reading()
        return data

    async def left(self) -> None:
        """Wait until the client has gone. Raises TunnelClosed then."""
        while not self._gone:
            self._news.clear()
            await self._news.wait()
        raise TunnelClosed

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the client does not read. Raises TunnelClosed."""
        if self._gone or self._transport is None:
            raise TunnelClosed
        self._transport.write(data)
        await self._writable.wait()

    def finish(self) -> None:
        """Send no more."""
        transport = self._transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    def close(self) -> None:
        """Close the connection once what was sent has gone out."""
        if self._transport is not None:
            self._transport.close()
            self._unread_since = self._unread_since or self._loop.time()

    def _look_later(self) -> None:
        self._watch = self._loop.call_later(self._client_s * LOOK_EVERY, self._look)

    def _look(self) -> None:
        since = self._unread_since
        if since is not None and self._loop.time() - since >= self._client_s:
            _log.info("client_cut_off", why="bytes not read")
            if self._transport is not None:
                self._transport.abort()
        else:
            self._look_later()


class Switch:
    """The way out of HTTP for a request: `open` is called with the headers of its answer."""

    def __init__(self, opening: Callable[[Headers], Tunnel]) -> None:
        self._opening = opening
        self.tunnel: Tunnel | None = None
        """Open after an answer of 101."""

    def open(self, headers: Headers) -> None:
        """Answer with 101. Raises TunnelClosed if the client has gone."""
        self.tunnel = self._opening(headers)


class Switches:
    """Lets an answer of 101 pass all that marks and counts answers, and then opens the tunnel."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        switch = scope.get(SWITCH)
        if not isinstance(switch, Switch):
            await self._app(scope, receive, send)
            return

        async def answered(message: Message) -> None:
            if message.get("status") == SWITCHING:
                switch.open(list(message["headers"]))
            else:
                await send(message)

        try:
            await self._app(scope, receive, answered)
        finally:
            if switch.tunnel is not None:
                switch.tunnel.close()
