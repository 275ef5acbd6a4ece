"""WebSockets as the application sees them: a handshake is served as a GET request.

So all checks before the routes apply to a WebSocket as to any request: labels, counts, rates,
authentication, shares, rights. The route answers with 101 instead of 200, and finds the connection
in its scope. Any other answer is a refusal, with its own status and body.
"""

import re
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

SOCKET = "runner.socket"
"""Key in a handshake's ASGI scope: the WebSocket that an answer of 101 opens."""
UPGRADED = re.compile(r"/v1/sandboxes/[^/%?]+/(processes/[^/%?]+/terminal|tcp/[^/%?]+)")
"""The paths that have WebSockets. On all others, `Upgrade` is ignored."""
INTERNAL = 1011
"""An unexpected failure on this end (RFC 6455 7.4)."""
MAX_REASON_BYTES = 123
_SCHEMES = {"ws": "http", "wss": "https"}


class WentAway(Exception):
    """The client closed the WebSocket, or is gone."""


class Socket:
    """This end of a WebSocket: offered by a client, then open, then closed."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.is_open = False

    async def accept(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Open it."""
        await self._send({"type": "websocket.accept", "headers": headers})
        self.is_open = True

    async def hear(self) -> bytes | str:
        """Return the next message. Raises WentAway."""
        message = await self._receive()
        if message["type"] != "websocket.receive":
            self.is_open = False
            raise WentAway
        text: str | None = message.get("text")
        content: bytes | None = message.get("bytes")
        return text if text is not None else content or b""

    async def tell(self, content: bytes | str) -> None:
        """Send a message; wait while the client does not read. Raises WentAway."""
        kind = "bytes" if isinstance(content, bytes) else "text"
        try:
            await self._send({"type": "websocket.send", kind: content})
        except OSError:
            self.is_open = False
            raise WentAway from None

    async def close(self, code: int, reason: str) -> None:
        """Close it if it is open, and say why."""
        if not self.is_open:
            return
        self.is_open = False
        brief = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": brief})
        except OSError:
            return


class Handshakes:
    """Turns a WebSocket's handshake into a GET request, and its answer into ASGI's events."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one handshake and the WebSocket that it opens."""
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        await receive()
        may_refuse = "websocket.http.response" in (scope.get("extensions") or {})
        if not (may_refuse and UPGRADED.fullmatch(scope["path"])):
            # A refusal is held in memory until it is whole: no route that streams may answer here.
            await send({"type": "websocket.close"})
            return
        socket = Socket(receive, send)
        request = {
            **scope,
            "type": "http",
            "method": "GET",
            "scheme": _SCHEMES.get(scope["scheme"], scope["scheme"]),
            "extensions": {},
            SOCKET: socket,
        }
        accepted = asked = False

        async def without_body() -> Message:
            nonlocal asked
            if asked:
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def answered(message: Message) -> None:
            nonlocal accepted
            if message.get("status") == HTTPStatus.SWITCHING_PROTOCOLS:
                accepted = True
                await socket.accept(list(message["headers"]))
            elif not accepted:
                await send({**message, "type": f"websocket.{message['type']}"})

        try:
            await self._app(request, without_body, answered)
        finally:
            await socket.close(INTERNAL, "internal error")
