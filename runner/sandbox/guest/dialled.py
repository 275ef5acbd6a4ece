"""A connection to a port inside a living sandbox. The sandbox's own code serves it."""

from runner.protocol.frames import Data
from runner.protocol.living_events import Done, Failed, Finished
from runner.sandbox.guest.stream import Stream
from runner.words.errors import GuestRefused


class DialledPort:
    """Bytes in both directions, each of which ends separately."""

    def __init__(self, stream: Stream, port: int) -> None:
        self._stream = stream
        self._port = port
        self._finished = False

    async def read(self) -> bytes:
        """Return bytes as they come; empty at the end.

        Raises GuestRefused if the connection breaks off, for instance with ECONNRESET.
        """
        if self._finished:
            return b""
        message = await self._stream.read()
        if isinstance(message, Data):
            return message.payload
        self._finished = True
        if isinstance(message, Failed):
            raise GuestRefused(message.error, f"port {self._port}")
        if not isinstance(message, (Finished, Done)):
            raise self._stream.unexpected(message)
        return b""

    async def write(self, content: bytes) -> None:
        """Write bytes as they are taken. Raises GuestRefused if nobody takes them any more."""
        if not await self._stream.send(content):
            raise GuestRefused("EPIPE", f"port {self._port}")

    def finish(self) -> None:
        """Write no more; reading goes on."""
        self._stream.finish()
