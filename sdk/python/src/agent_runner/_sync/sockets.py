# Written by scripts/make-sync from _async/sockets.py: change that.
"""WebSockets to the API: opened with the client's key, and their failures made ours."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from agent_runner.closing import refused
from agent_runner.errors import from_transport

OPEN_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 2.0


@contextmanager
def connected(
    http: httpx.Client, path: str, params: Mapping[str, int] | None = None
) -> Iterator[ClientConnection]:
    """Yield a WebSocket, closed at the end of the context. Raises ApiError if it cannot open."""
    url = httpx.URL(str(http.base_url).rstrip("/") + path)
    secure = url.scheme == "https"
    address = str(url.copy_with(scheme="wss" if secure else "ws", params=dict(params or {})))
    opening: dict[str, Any] = {
        "create_connection": _Direct,
        "additional_headers": {"Authorization": http.headers["Authorization"]},
        "ssl": httpx.create_ssl_context() if secure else None,
        "compression": None,
        "open_timeout": OPEN_TIMEOUT_S,
        "close_timeout": CLOSE_TIMEOUT_S,
    }
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(connect(address, **opening))
        except InvalidStatus as error:
            raise refused(error, url) from error
        except (OSError, WebSocketException) as error:
            raise from_transport(error) from error
        yield connection


class _Direct(ClientConnection):
    """A WebSocket that follows no redirect, as the library would: the API makes none."""

    def handshake(self, *arguments: Any, **options: Any) -> None:
        """Open it. Raises InvalidStatus, with nothing in it to follow."""
        try:
            super().handshake(*arguments, **options)
        except InvalidStatus as error:
            if "Location" in error.response.headers:
                del error.response.headers["Location"]
            raise
