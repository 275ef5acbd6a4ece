"""The worker's end of a sandbox's connection. Every byte read here comes from a hostile place."""

import asyncio
from itertools import chain
from typing import TypeAlias, TypeVar, cast

from runner.protocol import greeting
from runner.protocol.commands import COMMANDS, Command, Load, Ping, Prepare
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


class Channel:
    """The worker's end of the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._reading = cast("asyncio.ReadTransport", writer.transport)
        self._buffer = bytearray()
        self._pace = Pace()
        self._programs = 0
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
        if self._pace.overdrawn:
            await self._rest()
        while (found := next_frame(self._buffer, 0, self._stream)) is None:
            await self._hear()
        kind, start, end = found
        payload = bytes(self._buffer[start:end])
        if kind == b"C":
            del self._buffer[:end]
            self._pace.charge(REPORT_S + REPORT_BYTE_S * len(payload))
            return EVENTS.decode(payload)
        pieces, size, frames = [payload], len(payload), 1
        while (more := next_frame(self._buffer, end, self._stream)) is not None:
            of, start, last = more
            if of != kind or size + last - start > PIECE:
                break
            pieces.append(bytes(self._buffer[start:last]))
            size, frames, end = size + last - start, frames + 1, last
        del self._buffer[:end]
        self._pace.charge(PIECE_S + FRAME_S * frames + BYTE_S * size)
        return Data(kind, b"".join(pieces))

    async def greet(self, image: str) -> None:
        """Hear which generations the supervisor speaks, and tell it which one it is.

        Raises ImageIncompatible where this node speaks none of them.
        """
        while (found := greeting.first_word(self._buffer)) is None:
            await self._hear()
        said, end = found
        del self._buffer[:end]
        answer = greeting.Agree(greeting.agreed(said, image))
        await self._write(greeting.framed(greeting.ANSWERS.encode(answer)))

    async def _hear(self) -> None:
        try:
            data = await self._reader.read(PIECE)
        except ConnectionError as error:
            raise Closed("the sandbox closed its connection") from error
        if not data:
            raise Closed("the sandbox closed its connection")
        self._pace.charge(WAKING_S)
        self._buffer += data
        self.heard += len(data)

    async def _rest(self) -> None:
        # What comes meanwhile stays in the kernel, or it would wake the loop each time.
        transport = self._reading
        if paused := transport.is_reading():
            transport.pause_reading()
        try:
            await self._pace.rest()
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
        if isinstance(command, (Ping, Load)):
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
