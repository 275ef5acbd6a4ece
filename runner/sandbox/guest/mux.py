"""A living sandbox's connection: many streams at once, none of which waits for another.

What comes is handed to the streams at once; their windows bound how much waits there. If a
supervisor breaks the protocol, the whole sandbox is given up, and everybody who waits is told.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from runner.protocol.commands import Command, Ping
from runner.protocol.events import Alive, SupervisorEvent
from runner.protocol.frames import CONTROL, GRANT, HEADER, SANDBOX, Splitter, frame, pieces
from runner.protocol.living_commands import LIVING_COMMANDS, ListProcesses, StartProcess
from runner.protocol.living_events import (
    LIVING_EVENTS,
    ProcessesListed,
    ProcessExited,
    ProcessKnown,
)
from runner.sandbox.guest.channel import Closed, Connection, unexpected
from runner.sandbox.guest.intake import Intake
from runner.sandbox.guest.pace import (
    BYTE_S,
    KEPT_FRAME_S,
    PIECE_S,
    REPORT_BYTE_S,
    REPORT_S,
    WAKING_S,
)
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.stream import Hear, Stream
from runner.sandbox.guest.turns import TURNS
from runner.words.errors import ProtocolViolation

CANCEL_S = 5.0
"""How long a supervisor may take to end a stream that was cancelled."""
MOST_KNOWN = 16_384
"""How many processes a supervisor may list."""
MOST_LATE = 24
"""How often a stream's end may be late while other frames come, which may stand before it."""
_LAST_STREAM = 2**32 - 1
_HELD_UP_S = 0.25
"""A timer that is this late means that the event loop was held up."""


class _Listing:
    """A list of processes that is still coming."""

    def __init__(self, on_known: Callable[[ProcessKnown], object] | None) -> None:
        self.known: dict[int, ProcessKnown] = {}
        self._on_known = on_known
        self.answer: asyncio.Future[list[ProcessKnown]] = asyncio.get_running_loop().create_future()

    def add(self, known: ProcessKnown) -> None:
        if known.process in self.known or len(self.known) >= MOST_KNOWN:
            raise ProtocolViolation("the sandbox told of a process twice, or of too many")
        self.known[known.process] = known
        if self._on_known is not None:
            self._on_known(known)


class Mux:
    """The node's end of the connection, once `live` was answered."""

    def __init__(
        self,
        connection: Connection,
        waits: Patience,
        *,
        returning: bool = False,
    ) -> None:
        """Take over a connection.

        With `returning`, processes may end before a listing makes their streams known.
        """
        self.lost: asyncio.Future[ProtocolViolation] = asyncio.get_running_loop().create_future()
        """The end of the connection: Closed, or how the supervisor broke the protocol."""
        self.frozen = False
        """Set while the sandbox is paused: then nothing is late."""
        self._writer = connection.writer
        self._gathered: list[bytes | memoryview] = []
        self._splitter = Splitter()
        self._put_off = b""
        """Bytes that have come and wait until the sandbox's share of the loop suffices."""
        self._patience = waits
        self._pace = connection.pace
        self._heard = 0
        """How many frames have come."""
        self._next = connection.next_stream
        self._returning = returning
        self._streams: dict[int, Stream] = {}
        self._pings: deque[asyncio.Future[None]] = deque()
        self._listings: deque[_Listing] = deque()
        self._intake = Intake(connection, self._hear, self._hung_up)

    # ---- Questions and streams ---------------------------------------------------------------

    async def ping(self) -> None:
        """Wait until the supervisor answers. Raises the reason if the connection was lost."""
        self._check()
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pings.append(pong)
        self.command(SANDBOX, Ping())
        await pong

    async def processes(
        self, on_known: Callable[[ProcessKnown], object] | None = None
    ) -> list[ProcessKnown]:
        """Return every process that was not forgotten; new streams avoid their numbers.

        `on_known` is called with each before anything else about it is handled.
        """
        self._check()
        listing = _Listing(on_known)
        self._listings.append(listing)
        self.command(SANDBOX, ListProcesses())
        return await listing.answer

    def open(self, command: Command, *contents: bytes, hear: Hear | None = None) -> Stream:
        """Send a command on a new stream, followed by the contents that it announces.

        Raises ValueError if it is longer than a command may be.
        """
        self._check()
        if self._next > _LAST_STREAM:
            raise Closed("the sandbox has used up its streams")
        head = _framed(self._next, command)
        stream = Stream(self, self._next, TURNS[type(command)], hear)
        self._next += 1
        self._streams[stream.number] = stream
        following = (piece for each in contents for piece in pieces(stream.number, each))
        self._write(b"".join((head, *following)))
        return stream

    def adopt(self, number: int, hear: Hear) -> Stream:
        """Return the stream of a process that an earlier connection started."""
        self._check()
        stream = Stream(self, number, TURNS[StartProcess], hear)
        self._streams[number] = stream
        return stream

    def close(self) -> None:
        """Hang up at once."""
        self.fail(Closed("the connection to the sandbox was closed"))

    # ---- For streams -------------------------------------------------------------------------

    def command(self, stream: int, command: Command) -> None:
        """Send a command on a stream."""
        self._write(_framed(stream, command))

    def grant(self, stream: int, more: int) -> None:
        """Add to the window in which the supervisor sends."""
        self._write(frame(b"W", stream, GRANT.pack(more)))

    def piece(self, stream: int, content: bytes | memoryview) -> None:
        """Send a piece of bytes."""
        self._write(HEADER.pack(b"D", stream, len(content)), content)

    async def drain(self) -> None:
        """Wait until what was sent is on its way. Raises the reason if the connection was lost."""
        self._flush()
        try:
            await self._writer.drain()
        except ConnectionError:
            self.fail(Closed("the sandbox closed its connection"))
        self._check()

    def passed_on(self) -> None:
        """Charge the sandbox for passing on one piece."""
        self._pace.charge(PIECE_S)

    def charge(self, seconds: float) -> None:
        """Charge the sandbox for other work on what it said."""
        self._pace.charge(seconds)

    def expect_end(self, stream: Stream) -> None:
        """Give the sandbox up unless the stream ends in time, or other frames delay its end."""
        loop = asyncio.get_running_loop()
        patience = self._patience.stretched(CANCEL_S)

        def wait(left: int) -> None:
            due = time.monotonic() + patience
            stream.deadline = loop.call_later(patience, look, due, self._heard, left)

        def look(due: float, heard: int, left: int) -> None:
            if stream.ended or self.lost.done():
                return
            if self.frozen or time.monotonic() - due > _HELD_UP_S:
                wait(left)
            elif self._heard > heard and left:
                wait(left - 1)
            else:
                self.fail(ProtocolViolation("the sandbox did not end a stream in time"))

        wait(MOST_LATE)

    def fail(self, reason: ProtocolViolation) -> None:
        """Give the sandbox up: hang up, and tell everybody who waits. Only the first reason counts.

        Its container is left as it is.
        """
        if self.lost.done():
            return
        self.lost.set_result(reason)
        self._intake.stop()
        listings = (listing.answer for listing in self._listings)
        waiting: list[asyncio.Future[Any]] = [*self._pings, *listings]
        for answer in waiting:
            if not answer.done():
                answer.set_exception(reason)
                answer.exception()  # marked as seen, even if nobody waits any more
        streams = list(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.lose(reason)

    def _check(self) -> None:
        if self.lost.done():
            raise self.lost.result()

    def _write(self, *frames: bytes | memoryview) -> None:
        # Gather what is sent in one turn of the loop, because each write wakes the sandbox.
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._flush)
        self._gathered += frames

    def _flush(self) -> None:
        gathered, self._gathered = self._gathered, []
        if gathered and not self.lost.done():
            self._writer.writelines(gathered)

    # ---- What comes --------------------------------------------------------------------------

    def _hung_up(self) -> None:
        self.fail(Closed("the sandbox closed its connection"))

    def _hear(self, data: bytes) -> None:
        if self.lost.done():
            return
        if data or self._put_off:
            self._pace.charge(WAKING_S)
        if self._put_off:
            data, self._put_off = self._put_off + data, b""
        if self._intake.rests:
            self._put_off = data
            return
        try:
            self._take_all(memoryview(data))
        except ProtocolViolation as error:
            self.fail(error)
        except BaseException:
            self.fail(Closed("the connection to the sandbox was closed"))
            raise

    def _take_all(self, data: memoryview) -> None:
        """Take each frame that is whole, as long as the sandbox's share of the loop suffices."""
        for kind, stream, payload, end in self._splitter.split(data):
            self._take(kind, stream, payload)
            if self.lost.done():
                return
            if self._pace.overdrawn:
                self._put_off = bytes(data[end:])
                self._intake.rest(self._pace.rest_s)
                return

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        self._heard += 1
        if kind == b"C":
            self._pace.charge(REPORT_S + REPORT_BYTE_S * len(payload))
        else:
            self._pace.charge(KEPT_FRAME_S + BYTE_S * len(payload))
        if number == SANDBOX:
            if kind != b"C":
                raise _misplaced(kind, number)
            self._take_answer(LIVING_EVENTS.decode(payload))
            return
        if (stream := self._streams.get(number)) is None:
            self._take_early(kind, number, payload)
            return
        if kind == b"C":
            stream.take_event(LIVING_EVENTS.decode(payload), len(payload))
            if stream.ended:
                del self._streams[number]
                if stream.deadline is not None:
                    stream.deadline.cancel()
        elif kind == b"W":
            if len(payload) != GRANT.size:
                raise _misplaced(kind, number)
            stream.take_grant(*GRANT.unpack(payload))
        else:
            stream.take_piece(kind, payload)

    def _take_early(self, kind: bytes, number: int, payload: bytes) -> None:
        """Take a frame about a process that is listed only later."""
        if self._returning and kind == b"C":
            event = LIVING_EVENTS.decode(payload)
            if isinstance(event, ProcessExited):
                return
        elif self._returning and kind == b"W":
            return
        raise _misplaced(kind, number)

    def _take_answer(self, event: SupervisorEvent) -> None:
        if isinstance(event, Alive) and self._pings:
            pong = self._pings.popleft()
            if not pong.done():
                pong.set_result(None)
        elif isinstance(event, ProcessKnown) and self._listings:
            self._listings[0].add(event)
        elif isinstance(event, ProcessesListed) and self._listings:
            listing = self._listings[0]
            if any(number >= event.next_stream for number in listing.known):
                raise ProtocolViolation("the sandbox told of a process beyond its streams")
            self._listings.popleft()
            self._returning = False
            self._next = max(self._next, event.next_stream)
            if not listing.answer.done():
                listing.answer.set_result(list(listing.known.values()))
        else:
            raise unexpected(event)


def _framed(stream: int, command: Command) -> bytes:
    payload = LIVING_COMMANDS.encode(command)
    if len(payload) > CONTROL:
        raise ValueError(f"a command of {len(payload)} bytes; {CONTROL} are possible")
    return frame(b"C", stream, payload)


def _misplaced(kind: bytes, stream: int) -> ProtocolViolation:
    return ProtocolViolation(
        f"the sandbox sent a frame {kind.decode()!r} that has no place on stream {stream}"
    )
