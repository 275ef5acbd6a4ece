"""One process in a sandbox: started, held to its time, ended if need be, and counted.

Time is the node's: the deadline and the grace after SIGTERM are measured here. The watchdog stands
behind the deadline, for when the event loop comes too late.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from runner.protocol.commands import Terminate
from runner.sandbox.guest import patience
from runner.sandbox.guest.channel import Channel, Closed
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.ending import Cause, Ending, Tally, ending_of
from runner.sandbox.guest.patience import START_S, Patience
from runner.sandbox.guest.run import OnOutput, OnStarted, Report, Run
from runner.sandbox.observe.cgroups import Counters
from runner.sandbox.observe.watchdog import Term
from runner.words.errors import RunnerError
from runner.words.resources import RunBounds

_LATE_S = 1.0
"""How late the event loop may be, beyond the deadline and the grace, before the watchdog acts."""

_log = structlog.get_logger("runner.worker")


@dataclass(frozen=True, slots=True)
class RunTerms:
    """Bounds of a run: its time and kept output, how much is a flood, and its grace at the end."""

    bounds: RunBounds
    flood_bytes: int
    grace_s: float = 1.0


@dataclass(frozen=True, slots=True)
class RunWatch:
    """The watcher of a run: is told of its start and its output, and may cancel it."""

    on_started: OnStarted
    on_output: OnOutput
    cancel: asyncio.Event


class Process:
    """One program's process, from its start to its end, or to ours for it."""

    def __init__(
        self,
        container: Container,
        channel: Channel,
        waits: Patience,
        terms: RunTerms,
        watch: RunWatch,
        *,
        command: str,
    ) -> None:
        self._container = container
        self._channel = channel
        self._command = command
        self._patience = waits
        self._terms = terms
        self._cancel = watch.cancel
        # The end of output is known when all of it has come.
        kept = terms.bounds.output_bytes
        self._tally = Tally(terms.flood_bytes if terms.bounds.tail_bytes else kept, kept=kept)
        self.run = Run(
            channel,
            tally=self._tally,
            flood_bytes=terms.flood_bytes,
            on_started=watch.on_started,
            on_output=watch.on_output,
        )

    async def end(
        self, follow: Callable[[Run], Coroutine[Any, Any, Report]], *, first: bool
    ) -> Ending:
        """Follow it to its end and return the facts; `first` if nothing ran in the sandbox before.

        Whatever it raises, the container is dead then.
        """
        # What the container's start cost is not the program's.
        before = self._container.counters()
        self._arm()
        following = asyncio.create_task(follow(self.run))
        try:
            since, cause, counters = await self._hold(following)
            report = await following
        except BaseException:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            try:
                await self._container.kill()
            except RunnerError as error:
                # The watchdog goes on trying.
                _log.error(
                    "program_not_killed", sandbox=self._container.home.name, error=error.detail
                )
            raise
        self._container.end_by(Term.DEADLINE, None)
        return await self._ending(report, cause, counters, before, since=since, first=first)

    def _arm(self) -> None:
        longest = self._terms.bounds.timeout_s + self._terms.grace_s + _LATE_S
        starting = time.monotonic() + self._patience.stretched(START_S)
        self._container.end_by(Term.DEADLINE, starting + longest)
        self.run.began.add_done_callback(
            lambda began: self._container.end_by(Term.DEADLINE, began.result() + longest)
        )

    async def _hold(self, following: "asyncio.Task[Report]") -> tuple[float, Cause, Counters]:
        """Wait until it ends, and end it if it has to; return since when it ran, and why it ended.

        If we ended it, with what it had used by then.
        """
        began = self.run.began
        async with self._patience(patience.UPLOAD_S, "start the program"):
            started: set[asyncio.Future[Any]] = {following, began}
            await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
        since = began.result() if began.done() else time.monotonic()
        until = since + self._terms.bounds.timeout_s
        cause = await self.run.cause(following, cancel=self._cancel, until=until)
        return since, cause, Counters() if cause is Cause.NONE else await self._stop(following)

    async def _stop(self, following: "asyncio.Task[Report]") -> Counters:
        """SIGTERM to everything; after the grace, read the counters and kill the container."""
        try:
            async with asyncio.timeout(self._terms.grace_s):
                await self._channel.send(Terminate())
                await asyncio.wait({following})
        except (TimeoutError, Closed):
            pass
        counters = self._container.counters()
        if not following.done():
            await self._container.kill()
        return counters

    async def _ending(
        self,
        report: Report,
        cause: Cause,
        counters: Counters,
        before: Counters,
        *,
        since: float,
        first: bool,
    ) -> Ending:
        container, ended_at = self._container, time.monotonic()
        if (fired := container.fired) is not None:
            container.alive = False
            ended_at, counters = fired.at, fired.used
            if report is None and cause is Cause.NONE and fired.term is Term.DEADLINE:
                cause = Cause.DEADLINE
        if container.alive:
            # Also of a container that died: its group outlives it by the moment that this takes.
            counters = container.counters()
        died_of_memory = fired is not None and fired.term is Term.MEMORY
        if report is None:
            container.alive = False
            if cause is Cause.NONE and fired is None:
                died_of_memory = await container.died_of_memory()
        return ending_of(
            self._command,
            cause,
            report,
            self._tally,
            counters.since(before, first=first),
            wall_s=ended_at - since,
            died_of_memory=died_of_memory,
        )
