"""A connection that became a WebSocket: uvicorn's protocol, with a limit on every wait."""

import asyncio
import base64
import binascii
from collections.abc import Sequence
from typing import Any, cast

import structlog
from uvicorn._types import ASGI3Application
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from runner.api.edge.shares import PLACE, Place
from runner.api.edge.sockets import UPGRADED

MAX_MESSAGE_BYTES = 64 * 1024
MAX_FRAGMENTS = 64
"""The most frames of one message: empty ones cost memory, but add nothing to its size."""
MAX_LINE_BYTES = 8000
MAX_LINES = 100
"""A second parser reads the handshake; its own limits are just above these."""
LOOK_EVERY = 0.1
"""How often a connection is checked, as a fraction of a client's time."""
_KEY_BYTES = 16

_log = structlog.get_logger("runner.api")

RawHeaders = Sequence[tuple[bytes, bytes]]


def is_handshake(method: str, version: str, path: bytes, headers: RawHeaders) -> bool:
    """Return whether a request opens a WebSocket on a path that has one.

    Only a correct handshake does; the route answers any other one as a plain request.
    """
    if (method, version) != ("GET", "1.1") or not UPGRADED.fullmatch(path.decode("latin-1")):
        return False
    if len(headers) > MAX_LINES or any(len(n) + len(v) > MAX_LINE_BYTES for n, v in headers):
        return False
    lines: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lines.setdefault(name, []).append(value.strip())
    connection = b",".join(lines.get(b"connection", ())).lower().split(b",")
    return (
        [each.lower() for each in lines.get(b"upgrade", ())] == [b"websocket"]
        and b"upgrade" in {each.strip() for each in connection}
        and lines.get(b"sec-websocket-version") == [b"13"]
        and _is_key(lines.get(b"sec-websocket-key", []))
        # The parser of handshakes takes no body, and we offer no subprotocol.
        and not {b"content-length", b"transfer-encoding", b"sec-websocket-protocol"} & lines.keys()
    )


def _is_key(lines: list[bytes]) -> bool:
    try:
        return len(lines) == 1 and len(base64.b64decode(lines[0], validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


class Upgraded(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket in a connection's place; cuts off a client that does not read."""

    def __init__(self, *args: Any, place: Place, client_s: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self.app = placed(self.app, place)
        self._place = place
        self._client_s = client_s
        self._unread_since: float | None = None
        self._closing_since: float | None = None
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a connection."""
        super().connection_made(transport)
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        if self._watch is not None:
            self._watch.cancel()
        self._place.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note that the client reads too slowly."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has caught up."""
        super().resume_writing()
        self._unread_since = None

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read the answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        """Take a further fragment of a message."""
        if len(self.frames) >= MAX_FRAGMENTS:
            if not self.transport.is_closing():
                self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"more than {MAX_FRAGMENTS} fragments")
                self.handle_parser_exception()
            return
        super().handle_cont(event)

    def keepalive_timeout(self) -> None:
        """Give up a client that does not answer, unless its answer lies here unread."""
        if self.read_paused and not self.transport.is_closing():
            self.pong_timer = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(self._client_s * LOOK_EVERY, self._look)

    def _look(self) -> None:
        now = self.loop.time()
        if self.transport.is_closing():
            # Closing would wait until the client has read the rest, however long that takes.
            self._closing_since = self._closing_since or now
        waits = [since for since in (self._closing_since, self._unread_since) if since is not None]
        if waits and now - min(waits) >= self._client_s:
            _log.info("client_cut_off", why="messages not read", client=self.client)
            self.transport.abort()
        else:
            self._look_later()


def placed(app: Any, place: Place) -> ASGI3Application:
    """Return the app with the place of this connection in each request's scope."""

    async def in_place(scope: Any, receive: Any, send: Any) -> None:
        scope[PLACE] = place
        await app(scope, receive, send)

    return cast(ASGI3Application, in_place)
