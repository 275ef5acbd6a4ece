"""Frames on a connection to the door: a kind, a length, and a payload of that length.

`C` carries a call or a reply as JSON, `D` bytes of a file, of stdin or of a port, `O` and `E` a
process's stdout and stderr. Each connection carries one call. So the socket's own flow control is
enough: a slow reader holds up nobody else.
"""

import asyncio
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from runner.protocol.codec import Codec, Message
from runner.words.errors import ProtocolViolation

PIECE = 64 * 1024
CONTROL = 1024 * 1024
"""Room for a launch's arguments and environment, or for a listing's few hundred paths."""
HEADER = struct.Struct(">cI")
LONGEST = {b"C": CONTROL, b"D": PIECE, b"O": PIECE, b"E": PIECE}
WAITS_S = 0.02
"""How long a message that may wait does so at most. Each time that the other end is woken costs it
more than the message."""
_LARGE = 16 * 1024
"""To copy so many bytes costs more than to write them by themselves."""
_AT_ONCE = struct.pack("ii", 1, 0)
_CLOSED = -1
READ_AHEAD = 2 * PIECE
"""How much a connection takes from its socket before somebody reads it."""

S = TypeVar("S", bound=Message)
H = TypeVar("H", bound=Message)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one kind: `D`, `O` or `E`."""

    kind: bytes
    data: bytes


class Hung(ConnectionError):
    """The other end has hung up, or is gone."""


class DoorLine(Generic[S, H]):
    """One end of a connection: says messages `S`, hears messages `H`, and bytes either way."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        says: Codec[S],
        hears: Codec[H],
    ) -> None:
        self._reader = reader
        self._writer = writer
        # TLS forgets it when the connection ends.
        self._peer: socket.socket = writer.get_extra_info("socket")
        self._says = says
        self._hears = hears
        self._gathered = bytearray()
        self._flushing: asyncio.Handle | None = None
        self._waits = False
        """Whether all that was gathered may still wait."""

    @property
    def peer(self) -> socket.socket:
        """The socket itself: the kernel knows who is at its other end."""
        return self._peer

    async def tell(self, message: S, *, may_wait: bool = False) -> None:
        """Say one message. Raises Hung, and ValueError if it is too long.

        If it `may_wait`, it travels with what is said next, or alone after `WAITS_S`.
        """
        payload = self._says.encode(message)
        if len(payload) > CONTROL:
            raise ValueError(f"a message of {len(payload)} bytes; {CONTROL} are possible")
        await self._send(b"C", payload, may_wait=may_wait)

    async def send(self, kind: bytes, data: bytes) -> None:
        """Send bytes in pieces that fit into frames. Raises Hung."""
        for piece in _pieces(data):
            await self._send(kind, piece)

    async def hear(self) -> H | Chunk:
        """Return the next message or bytes. Raises Hung at the end, ProtocolViolation on nonsense.

        After a cancellation, nobody may read on: part of a frame may be lost.
        """
        kind, payload = await self._frame()
        return self._hears.decode(payload) if kind == b"C" else Chunk(kind, payload)

    def close(self) -> None:
        """Hang up once what was written has gone out."""
        self._flush()
        self._writer.close()

    def abort(self) -> None:
        """Hang up at once."""
        self._forget()
        if self.peer.family != socket.AF_UNIX and self.peer.fileno() != _CLOSED:
            # Otherwise TCP would first deliver what was written, to an end that may read no more.
            self.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._writer.transport.abort()

    async def _frame(self) -> tuple[bytes, bytes]:
        try:
            kind, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            if not 0 < length <= LONGEST.get(kind, 0):
                raise ProtocolViolation(f"a frame {kind!r} of {length} bytes came to the door")
            return kind, await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise Hung("the other end has hung up") from error

    async def _send(self, kind: bytes, payload: bytes, *, may_wait: bool = False) -> None:
        # Gather what is said in one turn of the loop, because each write wakes the other end.
        if self._flushing is None or (self._waits and not may_wait):
            self._flush_later(may_wait=may_wait)
        self._gathered += HEADER.pack(kind, len(payload))
        if len(payload) >= _LARGE:
            self._flush()
            if not self._writer.transport.is_closing():
                self._writer.write(payload)
        else:
            self._gathered += payload
            if len(self._gathered) >= PIECE:
                self._flush()
        try:
            await self._writer.drain()
        except (OSError, RuntimeError) as error:
            raise Hung("the other end has hung up") from error

    def _flush_later(self, *, may_wait: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._flushing is not None:
            self._flushing.cancel()
        self._waits = may_wait
        self._flushing = (
            loop.call_later(WAITS_S, self._flush) if may_wait else loop.call_soon(self._flush)
        )

    def _flush(self) -> None:
        if self._gathered and not self._writer.transport.is_closing():
            self._writer.write(bytes(self._gathered))
        self._forget()

    def _forget(self) -> None:
        self._gathered.clear()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None


def _pieces(data: bytes) -> Iterator[bytes]:
    if len(data) <= PIECE:
        if data:
            yield data
        return
    view = memoryview(data)
    for start in range(0, len(view), PIECE):
        yield bytes(view[start : start + PIECE])
