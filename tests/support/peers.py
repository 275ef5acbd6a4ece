"""The other end of a living sandbox's connection, played by a test: it says what it is told to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runner.protocol.commands import Command
from runner.protocol.events import SupervisorEvent
from runner.protocol.frames import GRANT, HEADER, PIECE, frame
from runner.protocol.living_commands import LIVING_COMMANDS
from runner.protocol.living_events import LIVING_EVENTS
from runner.sandbox.guest.channel import Connection
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.patience import Patience


class Peer:
    """Plays a supervisor."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def frame(self) -> tuple[bytes, int, bytes]:
        """Return kind, stream and payload of the next frame."""
        kind, stream, size = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        return kind, stream, await self._reader.readexactly(size)

    async def hears(self, kind: type[Command]) -> int:
        """Return the stream of the next frame, which must be this command."""
        letter, stream, payload = await self.frame()
        assert letter == b"C"
        assert isinstance(LIVING_COMMANDS.decode(payload), kind)
        return stream

    async def granted(self) -> tuple[int, int]:
        """Return the stream of the next frame, and what it grants."""
        kind, stream, payload = await self.frame()
        assert kind == b"W"
        return stream, GRANT.unpack(payload)[0]

    def says(self, stream: int, *events: SupervisorEvent) -> None:
        """Send events."""
        self.sends(*(frame(b"C", stream, LIVING_EVENTS.encode(event)) for event in events))

    def pieces(self, stream: int, kind: bytes, content: bytes) -> None:
        """Send bytes in frames."""
        for start in range(0, len(content), PIECE):
            self.sends(frame(kind, stream, content[start : start + PIECE]))

    def grants(self, stream: int, more: int) -> None:
        """Add to the node's window."""
        self.sends(frame(b"W", stream, GRANT.pack(more)))

    def sends(self, *frames: bytes) -> None:
        """Send bytes."""
        self._writer.write(b"".join(frames))

    async def drain(self) -> None:
        """Wait until the node has taken most of it."""
        await self._writer.drain()

    async def silent(self, seconds: float = 0.1) -> bool:
        """Return whether nothing comes for so long."""
        try:
            await asyncio.wait_for(self._reader.readexactly(1), seconds)
        except TimeoutError:
            return True
        return False

    def hang_up(self) -> None:
        """Close the connection."""
        self._writer.transport.abort()


@asynccontextmanager
async def played(*, returning: bool = False) -> AsyncIterator[tuple[Mux, Peer]]:
    """Return a mux, and who plays the supervisor at its other end."""
    ours, theirs = socket.socketpair()
    peer = Peer(*await asyncio.open_unix_connection(sock=theirs))
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    mux = Mux(Connection(reader, writer, b"", 1), Patience(1), returning=returning)
    try:
        async with asyncio.timeout(60):
            yield mux, peer
    finally:
        mux.close()
        peer.hang_up()
        await asyncio.sleep(0)
