"""Starts a process and waits for it: what it wrote meanwhile, and how it ended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from runner.auth.caller import Caller
from runner.door.streams import ProcessStream
from runner.sandboxes.use import Using
from runner.words.errors import Invalid, Refused
from runner.words.execution import Stream
from runner.words.living import Launch, OutputGap, OutputPiece, ProcessEnd, ProcessInfo

STDIN_S = 300.0
"""How long a process may take to read the stdin that it was given."""


@dataclass(frozen=True, slots=True)
class Input:
    """The bytes for a process's stdin, which is closed after them if `close` is true."""

    data: bytes = field(repr=False)
    close: bool = True


@dataclass(slots=True)
class Kept:
    """The beginning of what a process wrote to one of its outputs."""

    most: int
    raw: bytearray = field(default_factory=bytearray, repr=False)
    total: int = 0
    """How many bytes it wrote, kept or not."""

    def take(self, data: bytes) -> None:
        """Count bytes, and keep them while there is room."""
        self.total += len(data)
        self.raw += data[: self.most - len(self.raw)]


@dataclass(slots=True)
class Foreground:
    """A process after the wait for it. Output that was not read yet begins at byte `offset`."""

    process: ProcessInfo
    stdout: Kept
    stderr: Kept
    omitted: int = 0
    """Bytes of its output that were overwritten before they could be read."""
    offset: int = 0
    end: ProcessEnd | None = None
    """How it ended, if it did in time."""
    ended_at: datetime | None = None

    def take(self, piece: OutputPiece | OutputGap) -> None:
        """Take a piece of its output."""
        if isinstance(piece, OutputGap):
            self.omitted += piece.omitted
        else:
            kept = self.stdout if piece.stream is Stream.STDOUT else self.stderr
            kept.take(piece.data)


async def run(
    using: Using,
    caller: Caller,
    sandbox_id: UUID,
    launch: Launch,
    given: Input | None = None,
    *,
    wait_s: float,
    most: int,
    on_start: Callable[[], object],
) -> Foreground:
    """Start a process; return when it has ended or after `wait_s`, when it still goes on.

    `on_start` is called once it runs. At most `most` bytes of each of its outputs are kept. If it
    does not read its stdin in time, it is killed and Invalid is raised.
    """
    async with using.start(caller, sandbox_id, launch, attach=wait_s > 0) as started:
        on_start()
        ran = Foreground(started.process, Kept(most), Kept(most))
        if given is None:
            await _listen(started, ran, wait_s)
            return ran
        feeding = asyncio.create_task(_feed(using, caller, sandbox_id, ran, given))
        try:
            await _listen(started, ran, wait_s)
            # A process that has ended needs no more input.
            if ran.end is None:
                await feeding
        finally:
            feeding.cancel()
            await asyncio.wait({feeding})
            if not feeding.cancelled():
                feeding.exception()
    return ran


async def _listen(started: ProcessStream, ran: Foreground, wait_s: float) -> None:
    """Take what the process writes until it has ended, or time is up."""
    if wait_s <= 0:
        return
    try:
        async with asyncio.timeout(wait_s):
            async for piece in started.output():
                ran.take(piece)
            ran.end, ran.ended_at = started.end, datetime.now(UTC)
    except TimeoutError:
        return
    finally:
        ran.offset = started.offset


async def _feed(
    using: Using, caller: Caller, sandbox_id: UUID, ran: Foreground, given: Input
) -> None:
    """Write the process's stdin. Kills it and raises Invalid if it does not read in time."""
    number = ran.process.number
    try:
        async with asyncio.timeout(STDIN_S):
            # A process that closes its stdin early wants no more input.
            with suppress(Refused):
                data = _once(given.data)
                await using.write_stdin(caller, sandbox_id, number, data, close=given.close)
    except TimeoutError:
        await using.forget(caller, sandbox_id, number)
        raise Invalid(
            f"the process did not read its stdin within {STDIN_S:g} s, and was killed", "stdin"
        ) from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
