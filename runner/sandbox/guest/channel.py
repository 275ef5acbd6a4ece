"""The worker's end of a sandbox's connection. Every byte read here comes from a hostile place."""

import asyncio
import hmac
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeAlias, TypeVar, cast

from runner.protocol import greeting
from runner.protocol.commands import COMMANDS, Command, Live, Load, Ping, Prepare
from runner.protocol.events import EVENTS, SupervisorEvent
from runner.protocol.frames import CONTROL, PIECE, SANDBOX, Data, frame, next_frame, pieces
from runner.sandbox.guest.pace import (
    BYTE_S,
    FRAME_S,
    PIECE_S,
    REPORT_BYTE_S,
    REPORT_S,
    WAKING_S,
    Pace,
)
from runner.words.errors import ProtocolViolation

E = TypeVar("E", bound=SupervisorEvent)
Heard: TypeAlias = SupervisorEvent | Data


class Closed(ProtocolViolation):
    """The supervisor's end of the connection is closed: the container has died."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as a channel leaves it, with what it has read of it and not taken."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: bytes
    next_stream: int
    pace: Pace = field(default_factory=Pace)


class Channel:
    """The worker's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._reading = cast("asyncio.ReadTransport", writer.transport)
        self._buffer = bytearray()
        self.pace = Pace()
        """Its share of the event loop; that of its container once this is known."""
        self._programs = 0
        self._generation = 0
        self._image = ""
        self._stream = SANDBOX
        """That of the last command, on which the supervisor answers."""
        self.heard = 0
        """How many bytes have come."""

    @property
    def closed(self) -> bool:
        """Whether the other end has hung up and nothing of it is left to read."""
        return self._reader.at_eof()

    async def read(self) -> Heard:
        """Return the next message. Raises Closed at the end, ProtocolViolation on nonsense.

        Pieces of one kind that have come already are returned as one, of 65,536 bytes at most.
        """
        if self.pace.overdrawn:
            await self._rest()
        while (found := next_frame(self._buffer, 0, self._stream)) is None:
            await self._hear()
        kind, start, end = found
        payload = bytes(self._buffer[start:end])
        if kind == b"C":
            del self._buffer[:end]
            self.pace.charge(REPORT_S + REPORT_BYTE_S * len(payload))
            return EVENTS.decode(payload)
        if kind == b"W":
            raise ProtocolViolation("the sandbox granted a window before it was told to live")
        pieces, size, frames = [payload], len(payload), 1
        while (more := next_frame(self._buffer, end, self._stream)) is not None:
            of, start, last = more
            if of != kind or size + last - start > PIECE:
                break
            pieces.append(bytes(self._buffer[start:last]))
            size, frames, end = size + last - start, frames + 1, last
        del self._buffer[:end]
        self.pace.charge(PIECE_S + FRAME_S * frames + BYTE_S * size)
        return Data(kind, b"".join(pieces))

    async def greet(self, image: str) -> None:
        """Hear which generations the supervisor speaks, and tell it which one it is.

        Raises ImageIncompatible where this node speaks none of them.
        """
        said = await self._first_word()
        if isinstance(said, greeting.Returning):
            raise ProtocolViolation("the sandbox returned before it was told to live")
        await self._agree(said, image)

    async def welcome(self, image: str, secret: str) -> None:
        """Hear that the supervisor is the one that was told this secret, and is back.

        Raises ProtocolViolation if it is not.
        """
        said = await self._first_word()
        if not isinstance(said, greeting.Returning):
            raise ProtocolViolation("the sandbox greeted where it was to return")
        if not hmac.compare_digest(said.secret.encode(), secret.encode()):
            raise ProtocolViolation("the sandbox returned without its secret")
        await self._agree(said, image)

    async def _first_word(self) -> greeting.FirstWord:
        while (found := greeting.first_word(self._buffer)) is None:
            await self._hear()
        said, end = found
        del self._buffer[:end]
        return said

    async def _agree(self, said: greeting.FirstWord, image: str) -> None:
        self._image = image
        self._generation = greeting.agreed(said, image)
        answer = greeting.Agree(self._generation)
        await self._write(greeting.framed(greeting.ANSWERS.encode(answer)))

    def release(self) -> Connection:
        """Give the connection away; the channel is of no use afterwards."""
        rest = bytes(self._buffer)
        return Connection(self._reader, self._writer, rest, self._programs + 1, self.pace)

    def require(self, generation: int) -> None:
        """Raise ImageIncompatible unless the supervisor speaks this generation, or a later one."""
        if self._generation < generation:
            raise greeting.too_old(self._image, self._generation, generation)

    async def _hear(self) -> None:
        try:
            data = await self._reader.read(PIECE)
        except ConnectionError as error:
            raise Closed("the sandbox closed its connection") from error
        if not data:
            raise Closed("the sandbox closed its connection")
        self.pace.charge(WAKING_S)
        self._buffer += data
        self.heard += len(data)

    async def _rest(self) -> None:
        # What comes meanwhile stays in the kernel, or it would wake the loop each time.
        transport = self._reading
        if paused := transport.is_reading():
            transport.pause_reading()
        try:
            await self.pace.rest()
        finally:
            if paused:
                transport.resume_reading()

    async def expect(self, kind: type[E]) -> E:
        """Return the next message, which must be an event of this kind."""
        message = await self.read()
        if not isinstance(message, kind):
            raise unexpected(message)
        return message

    async def send(self, command: Command, *contents: bytes) -> None:
        """Send a command, with the pieces of the contents that it announces right behind it.

        Raises ValueError when it is longer than a command may be.
        """
        payload = COMMANDS.encode(command)
        if len(payload) > CONTROL:
            raise ValueError(f"a command of {len(payload)} bytes; {CONTROL} are possible")
        # Gathered: to write to a sandbox wakes it, which costs more than the writing.
        self._stream = self._stream_of(command)
        gathered = frame(b"C", self._stream, payload)
        for piece in chain.from_iterable(pieces(self._stream, each) for each in contents):
            if len(gathered) + len(piece) > PIECE:
                await self._write(gathered)
                gathered = b""
            gathered += piece
        await self._write(gathered)

    async def send_bytes(self, content: bytes) -> None:
        """Send the pieces of a transfer."""
        for piece in pieces(self._stream, content):
            await self._write(piece)

    def _stream_of(self, command: Command) -> int:
        if isinstance(command, (Ping, Load, Live)):
            return SANDBOX
        if isinstance(command, Prepare):
            self._programs += 1
        return self._programs

    async def _write(self, frames: bytes) -> None:
        try:
            self._writer.write(frames)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Closed("the sandbox closed its connection") from error

    def close(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()


def unexpected(message: Heard) -> ProtocolViolation:
    """Return the failure for a message that has no place where it came."""
    what = message.name if isinstance(message, SupervisorEvent) else f"piece {message.kind!r}"
    return ProtocolViolation(f"the sandbox sent a {what} out of turn")
