"""One program's run, as the worker hears it from the supervisor."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from runner.base.tasks import beside
from runner.protocol.commands import Invocation, RunProgram
from runner.protocol.events import Counted, NotStarted, ProgramEnded, Started
from runner.protocol.frames import Data
from runner.sandbox.guest.channel import Channel, Closed, unexpected
from runner.sandbox.guest.ending import Cause, Tally
from runner.words.execution import Program, Stream

_STREAMS = {b"O": Stream.STDOUT, b"E": Stream.STDERR}
_HELD_UP_S = 0.25
"""If the clock is looked at this much too late, the event loop was held up."""
_CATCH_UP_S = 1.0
_HEARING_S = 0.05

OnStarted = Callable[[], Awaitable[None]]
OnOutput = Callable[[Stream, bytes], Awaitable[None]]
Report = ProgramEnded | NotStarted | None


class Run:
    """Follows a program from its start to its report."""

    def __init__(
        self,
        channel: Channel,
        *,
        tally: Tally,
        flood_bytes: int,
        on_started: OnStarted,
        on_output: OnOutput,
    ) -> None:
        self._channel = channel
        self._tally = tally
        self._flood_bytes = flood_bytes
        self._on_started = on_started
        self._on_output = on_output
        self._flood = asyncio.Event()
        self.began: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        """The time at which the program started, by the clock of `time.monotonic`."""

    async def follow(self, program: Program, *, egress: bool, trust: str) -> Report:
        """Start the program and pass its output on; None when the container dies first."""
        try:
            await self._send(program, egress=egress, trust=trust)
            first = await self._channel.read()
            if isinstance(first, NotStarted):
                return first
            if not isinstance(first, Started):
                raise unexpected(first)
            self.began.set_result(time.monotonic())
            async with beside(self._on_started()):
                message = await self._hear_out()
        except Closed:
            return None
        self._tally.claim(message.stdout, message.stderr)
        return message

    async def _send(self, program: Program, *, egress: bool, trust: str) -> None:
        start = Invocation(program.argv, program.env, program.cwd, program.interpret).encode()
        command = RunProgram(
            program_bytes=len(start),
            stdin_bytes=len(program.stdin),
            output_bytes=self._tally.allowance,
            egress=egress,
            trust=trust,
        )
        await self._channel.send(command, start, program.stdin)

    async def _hear_out(self) -> ProgramEnded:
        while not isinstance(message := await self._channel.read(), ProgramEnded):
            if isinstance(message, Data) and message.kind in _STREAMS:
                stream = _STREAMS[message.kind]
                self._tally.receive(stream, len(message.payload))
                await self._on_output(stream, message.payload)
            elif isinstance(message, Counted):
                self._tally.claim(message.stdout, message.stderr)
            else:
                raise unexpected(message)
            if self._tally.everything > self._flood_bytes:
                self._flood.set()
        return message

    async def cause(
        self, following: "asyncio.Task[Report]", *, cancel: asyncio.Event, until: float
    ) -> Cause:
        """Wait for the program's end, a cancellation, a flood or the deadline; tell which it was.

        A program that ended while the event loop was held up ended by itself.
        """
        cause = await self._first(following, cancel=cancel, until=until)
        if cause is Cause.DEADLINE and time.monotonic() - until > _HELD_UP_S:
            heard, caught_up = -1, time.monotonic() + _CATCH_UP_S
            while heard != self._channel.heard and time.monotonic() < caught_up:
                heard = self._channel.heard
                await asyncio.wait({following}, timeout=_HEARING_S)
        return Cause.NONE if following.done() else cause

    async def _first(
        self, following: "asyncio.Task[Report]", *, cancel: asyncio.Event, until: float
    ) -> Cause:
        waits = {
            asyncio.create_task(self._flood.wait()): Cause.FLOOD,
            asyncio.create_task(cancel.wait()): Cause.CANCEL,
        }
        try:
            done, _ = await asyncio.wait(
                {following, *waits},
                timeout=max(0.0, until - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return next((cause for task, cause in waits.items() if task in done), Cause.DEADLINE)
