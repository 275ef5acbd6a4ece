"""A transport that hangs up only once the client has had time to read the answer.

If a socket is closed while bytes of the client are unread or still come, the kernel resets the
connection, and the client may lose an answer that it has not read yet. So a server that refuses a
body ends its own direction first, and reads on for a while (RFC 9112 section 9.6).
"""

import asyncio
from collections.abc import Callable
from typing import Any


class Lingering:
    """A transport whose `close` lingers; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, owes: Callable[[], bool]) -> None:
        """`owes` tells whether the client is still sending a body."""
        self._transport = transport
        self._owes = owes
        self.lingers = False
        """Whether our direction has ended, and what comes from the client is dropped."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        """Hang up, or only end our direction while the client is sending a body."""
        if self.is_closing():
            return
        if not (self._owes() and self._transport.can_write_eof()):
            self._transport.close()
            return
        self.lingers = True
        self._transport.write_eof()
        self._transport.resume_reading()

    def hang_up(self) -> None:
        """Close it at once."""
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether nothing more can be said."""
        return self.lingers or self._transport.is_closing()
