"""One stream of a living sandbox: a command, the events about it, and bytes within windows."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

from runner.protocol.commands import Command
from runner.protocol.events import SupervisorEvent
from runner.protocol.frames import PIECE, Data
from runner.protocol.living import OVERHEAD, WINDOW
from runner.protocol.living_commands import Cancel, EndOfBytes
from runner.sandbox.guest.channel import Heard, unexpected
from runner.sandbox.guest.turns import WINDOWED, Turn
from runner.words.errors import ProtocolViolation

E = TypeVar("E", bound=SupervisorEvent)
Hear: TypeAlias = Callable[[SupervisorEvent], None]
"""Handles an event at once. Raises ProtocolViolation for one that is out of turn."""


class Carrier(Protocol):
    """The connection that a stream is on."""

    def command(self, stream: int, command: Command) -> None:
        """Send a command on a stream."""

    def grant(self, stream: int, more: int) -> None:
        """Add to the window in which the supervisor sends."""

    def piece(self, stream: int, content: bytes | memoryview) -> None:
        """Send a piece of bytes."""

    async def drain(self) -> None:
        """Wait until what was sent is on its way."""

    def passed_on(self) -> None:
        """Charge the sandbox for passing on one piece."""

    def fail(self, reason: ProtocolViolation) -> None:
        """Give the sandbox up."""

    def expect_end(self, stream: "Stream") -> None:
        """Give the sandbox up unless the stream ends in time."""


class Stream:
    """Opened by `Mux.open`. As a context manager, it is cancelled on exit unless it has ended."""

    def __init__(self, carrier: Carrier, number: int, turn: Turn, hear: Hear | None = None) -> None:
        """Make it. If there is a `hear`, it gets the events, and `read` returns only pieces."""
        self.number = number
        self.ended = False
        """Whether the last event has come."""
        self.deadline: asyncio.TimerHandle | None = None
        """The time at which the mux gives the sandbox up, unless the stream has ended by then."""
        self._carrier = carrier
        self._turn = turn
        self._hear = hear
        self._said: frozenset[type[SupervisorEvent]] = frozenset()
        self._inbox: deque[tuple[Heard, int]] = deque()
        self._room = WINDOW
        self._taken = 0
        self._window = WINDOW
        self._closed = False
        self._dropping = False
        self._lost: ProtocolViolation | None = None
        self._came = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()

    # ---- What comes --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether `read` would return at once."""
        return bool(self._inbox)

    async def read(self) -> Heard:
        """Return the next event, or pieces of one kind, at most 65,536 bytes.

        After the last event, there is nothing to read. Raises the reason if the mux was lost.
        """
        while not self._inbox:
            if self.ended:
                raise RuntimeError("the stream has ended, and its last event was read")
            if self._lost is not None:
                raise self._lost
            self._came.clear()
            await self._came.wait()
        message, cost = self._inbox.popleft()
        if isinstance(message, Data):
            self._carrier.passed_on()
            message, cost = self._joined(message, cost)
        self._take(cost)
        return message

    def _joined(self, first: Data, cost: int) -> tuple[Data, int]:
        pieces, size = [first.payload], len(first.payload)
        while self._inbox:
            more, its_cost = self._inbox[0]
            if not isinstance(more, Data) or more.kind != first.kind:
                break
            if (size := size + len(more.payload)) > PIECE:
                break
            pieces.append(more.payload)
            cost += its_cost
            self._inbox.popleft()
        return (Data(first.kind, b"".join(pieces)) if len(pieces) > 1 else first), cost

    async def event(self, kind: type[E]) -> E:
        """Return the next message, which must be an event of this kind."""
        message = await self.read()
        if not isinstance(message, kind):
            raise self.unexpected(message)
        return message

    async def __aiter__(self) -> AsyncIterator[Heard]:
        """Yield messages; the last one is the event that ends the stream."""
        while self._inbox or not self.ended:
            yield await self.read()

    def unexpected(self, message: Heard) -> ProtocolViolation:
        """Give the sandbox up for a message out of turn, and return the failure."""
        reason = unexpected(message)
        self._carrier.fail(reason)
        return reason

    # ---- What goes ---------------------------------------------------------------------------

    async def send(self, content: bytes) -> bool:
        """Send bytes as the supervisor takes them; False if it takes no more on this stream."""
        view = memoryview(content)
        while view:
            await self._may_send.wait()
            if self._lost is not None:
                raise self._lost
            if self._closed:
                return False
            piece, view = view[:PIECE], view[PIECE:]
            self._window -= len(piece) + OVERHEAD
            if self._window <= 0:
                self._may_send.clear()
            self._carrier.piece(self.number, piece)
            await self._carrier.drain()
        return not self._closed

    def say(self, command: Command) -> None:
        """Send a command about this stream, unless it has ended."""
        if self._lost is not None:
            raise self._lost
        if not self.ended:
            self._carrier.command(self.number, command)

    def finish(self) -> None:
        """Say that no more bytes follow."""
        self.say(EndOfBytes())
        self.close()

    def close(self) -> None:
        """Stop all sending on it."""
        self._closed = True
        self._may_send.set()

    def abandon(self) -> None:
        """Cancel it, and drop what still comes, without waiting for its end."""
        self._inbox.clear()
        if self.ended or self._dropping or self._lost is not None:
            return
        self._dropping = True
        self._hear = None
        self.close()
        self.say(Cancel())
        if self._room < WINDOW:
            self._give(WINDOW - self._room)
        self._carrier.expect_end(self)

    async def cancel(self) -> None:
        """Cancel it and wait for its end. Raises the reason if the mux was lost."""
        self.abandon()
        while not self.ended:
            if self._lost is not None:
                raise self._lost
            self._came.clear()
            await self._came.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abandon()

    # ---- What the mux tells ------------------------------------------------------------------

    def take_event(self, event: SupervisorEvent, size: int) -> None:
        """Take an event. Raises ProtocolViolation if it has no place here."""
        if type(event) not in self._turn.events:
            raise unexpected(event)
        cost = 0
        if type(event) in WINDOWED:
            cost = self._cost(size)
        elif type(event) in self._said:
            # No window bounds this event: repeated, it would fill the node's memory.
            raise unexpected(event)
        else:
            self._said |= {type(event)}
        if type(event) in self._turn.last:
            self.ended = True
            self.close()
        if self._hear is not None:
            self._hear(event)
        else:
            self._keep(event, cost)
        if self.ended:
            self._came.set()

    def take_piece(self, kind: bytes, payload: bytes) -> None:
        """Take a piece. Raises ProtocolViolation if it exceeds the window or has no place here."""
        piece = Data(kind, payload)
        if kind not in self._turn.pieces:
            raise unexpected(piece)
        self._keep(piece, self._cost(len(payload)))

    def take_grant(self, more: int) -> None:
        """Widen the window by this much, but never beyond its first size."""
        if not self._turn.takes_bytes or not more:
            raise ProtocolViolation("the sandbox granted what has no place on its stream")
        # After a reattachment, the supervisor may still grant bytes of the earlier connection.
        self._window = min(WINDOW, self._window + more)
        if self._window > 0:
            self._may_send.set()

    def lose(self, reason: ProtocolViolation) -> None:
        """Tell everybody who waits that nothing comes any more."""
        self._lost = reason
        self._may_send.set()
        self._came.set()

    def _cost(self, size: int) -> int:
        if self._room <= 0:
            raise ProtocolViolation("the sandbox sent more than it was granted")
        self._room -= (cost := size + OVERHEAD)
        return cost

    def _keep(self, message: Heard, cost: int) -> None:
        if self._dropping:
            self._take(cost)
        else:
            self._inbox.append((message, cost))
            self._came.set()

    def _take(self, cost: int) -> None:
        self._taken += cost
        if self._taken * 2 >= WINDOW and not self.ended and self._lost is None:
            self._give(self._taken)

    def _give(self, more: int) -> None:
        self._room += more
        self._taken = 0
        self._carrier.grant(self.number, more)
