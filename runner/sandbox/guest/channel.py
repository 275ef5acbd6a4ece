"""The worker's end of a sandbox's connection. Every byte read here comes from a hostile place."""

import asyncio
import json
from itertools import chain
from typing import TypeVar, cast

from runner.protocol.frames import CONTROL, PIECE, Data, frame, next_frame, pieces
from runner.protocol.messages import VERSION, Message, Ready, Report, parse
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

R = TypeVar("R", bound=Report)


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
        self.heard = 0
        """How many bytes have come."""

    @property
    def closed(self) -> bool:
        """Whether the other end has hung up and nothing of it is left to read."""
        return self._reader.at_eof()

    async def read(self) -> Message:
        """Return the next message. Raises Closed at the end, ProtocolViolation on nonsense.

        Pieces of one kind that have come already are returned as one, of 65,536 bytes at most.
        """
        if self._pace.overdrawn:
            await self._rest()
        while (frame := next_frame(self._buffer, 0)) is None:
            await self._hear()
        kind, start, end = frame
        payload = bytes(self._buffer[start:end])
        if kind == b"C":
            del self._buffer[:end]
            self._pace.charge(REPORT_S + REPORT_BYTE_S * len(payload))
            return parse(payload)
        pieces, size, frames = [payload], len(payload), 1
        while (more := next_frame(self._buffer, end)) is not None and more[0] == kind:
            _, start, last = more
            if size + last - start > PIECE:
                break
            pieces.append(bytes(self._buffer[start:last]))
            size, frames, end = size + last - start, frames + 1, last
        del self._buffer[:end]
        self._pace.charge(PIECE_S + FRAME_S * frames + BYTE_S * size)
        return Data(kind, b"".join(pieces))

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

    async def expect(self, kind: type[R]) -> R:
        """Return the next message, which must be a report of this kind."""
        message = await self.read()
        if not isinstance(message, kind):
            raise unexpected(message)
        return message

    async def send(self, do: str, *contents: bytes, **facts: object) -> None:
        """Send a command, with the pieces of what it announces right behind it.

        Raises ValueError when it is longer than a command may be.
        """
        payload = json.dumps({"do": do, **facts}).encode()
        if len(payload) > CONTROL:
            raise ValueError(f"a command of {len(payload)} bytes; {CONTROL} are possible")
        # Gathered: to write to a sandbox wakes it, which costs more than the writing.
        gathered = frame(b"C", payload)
        for piece in chain.from_iterable(map(pieces, contents)):
            if len(gathered) + len(piece) > PIECE:
                await self._write(gathered)
                gathered = b""
            gathered += piece
        await self._write(gathered)

    async def send_bytes(self, content: bytes) -> None:
        """Send the pieces of a transfer."""
        for piece in pieces(content):
            await self._write(piece)

    async def _write(self, frames: bytes) -> None:
        try:
            self._writer.write(frames)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Closed("the sandbox closed its connection") from error

    def close(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()


async def greeted(channel: Channel) -> Channel:
    """Hear that the supervisor is ready, and that it speaks as we do; hang up if not."""
    try:
        version = (await channel.expect(Ready)).version
    except BaseException:
        channel.close()
        raise
    if version != VERSION:
        channel.close()
        raise ProtocolViolation(f"the image's supervisor speaks version {version}")
    return channel


def unexpected(message: Message) -> ProtocolViolation:
    """Return the failure for a message that has no place where it came."""
    what = message.name if isinstance(message, Report) else f"piece {message.kind!r}"
    return ProtocolViolation(f"the sandbox sent a {what} out of turn")
