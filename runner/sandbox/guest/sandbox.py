"""One sandbox in use: upload, run, collect, destroy.

Time is the worker's: the deadline, the grace after SIGTERM and the patience with a silent
supervisor are measured here. The kernel ends what is to end, and Docker only what this worker may
not kill: while Docker is away nothing outlives its time. A watchdog stands behind the deadline, as
well as behind a lease and a removal, for when the event loop or Docker comes too late.
"""

import asyncio
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from runner.protocol.messages import Alive, Cleaned, Loaded
from runner.sandbox.engine.docker import Engine
from runner.sandbox.guest import patience
from runner.sandbox.guest.artifacts import NOTHING, ArtifactSink, CollectedFiles, collect, plain
from runner.sandbox.guest.channel import Channel, Closed
from runner.sandbox.guest.ending import Cause, Ending, Tally, ending_of
from runner.sandbox.guest.inputs import Reader, nothing_stored, place
from runner.sandbox.guest.patience import START_S, Patience
from runner.sandbox.guest.run import OnOutput, OnStarted, Report, Run
from runner.sandbox.guest.sockets import EGRESS_SOCKET, listen
from runner.sandbox.observe.cgroups import Cgroups, Counters
from runner.sandbox.observe.isolation import EffectiveIsolation
from runner.sandbox.observe.watchdog import Term, Watchdog
from runner.words.errors import LeaseLost, RunnerError
from runner.words.execution import InputFile, Program
from runner.words.resources import RunBounds

_EGRESS_BACKLOG = 64
_LATE_S = 1.0
"""How late the event loop may be, beyond the deadline and the grace, before the watchdog acts."""
_REMOVED_S = 3.0
"""How long Docker may take to remove a container, before the watchdog ends what runs in it."""

_log = structlog.get_logger("runner.worker")


@dataclass(frozen=True, slots=True)
class Bridge:
    """That the program may talk to the egress proxy, and whose certificates it shall trust."""

    trust: str = ""


class Sandbox:
    """A started container with its supervisor's connection.

    Serves one execution; more, of the same tenant, only if `clean` has found it clean after each.
    """

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - it is the sandbox's id, and its callers' word for it
        container_id: str,
        image_digest: str,
        profile_hash: str,
        isolation: EffectiveIsolation | None,
        channel: Channel,
        engine: Engine,
        cgroups: Cgroups,
        watchdog: Watchdog,
        home: Path,
        on_destroyed: Callable[[str], None],
        waits: Patience,
        traces: Callable[[], list[str]],
    ) -> None:
        self.id = id
        self.container_id = container_id
        self.image_digest = image_digest
        self.profile_hash = profile_hash
        self.isolation = isolation
        self._channel = channel
        self._engine = engine
        self._cgroups = cgroups
        self._watchdog = watchdog
        self._home = home
        self._on_destroyed = on_destroyed
        self._patience = waits
        self._traces = traces
        self._alive = True
        self._preparing = False
        self.runs = 0
        self.spent = False

    def listen_for_egress(self) -> socket.socket:
        """Return a listening socket that this sandbox alone can reach, as its identity."""
        (self._home / EGRESS_SOCKET).unlink(missing_ok=True)
        return listen(self._home, EGRESS_SOCKET, backlog=_EGRESS_BACKLOG)

    @property
    def gone(self) -> bool:
        """Whether the supervisor has hung up: the container has died."""
        return self._channel.closed

    async def ping(self) -> None:
        """Hear that the supervisor waits for commands. Raises ProtocolViolation if it does not."""
        async with self._patience(patience.ANSWER_S, "answer"):
            await self._channel.send("ping")
            await self._channel.expect(Alive)

    async def load(self) -> list[str]:
        """Let the interpreter import its image's list; return what could not be imported.

        For one that is started ahead. Raises ProtocolViolation; Closed if memory did not suffice.
        """
        async with self._patience(patience.LOAD_S, "load its modules"):
            await self._channel.send("load")
            return (await self._channel.expect(Loaded)).failed

    async def clean(self) -> list[str]:
        """Remove all that was collected; return the kinds of what is left all the same.

        Raises ProtocolViolation when the supervisor does not do it, or not in time.
        """
        if not self._alive:
            return ["the container, which has died"]
        async with self._patience(patience.CLEAN_S, "clean up"):
            await self._channel.send("clean")
            left = (await self._channel.expect(Cleaned)).left
        self._cgroups.forget_peak(self.container_id)
        return [plain(each) for each in left] + self._traces()

    async def prepare(self) -> None:
        """Let it make the process that becomes the next program, so that nobody waits for it.

        Raises ProtocolViolation when the container has died.
        """
        if not self._preparing:
            await self._channel.send("prepare")
            self._preparing = True

    async def upload(self, files: Sequence[InputFile], read: Reader = nothing_stored) -> None:
        """Place files in the workspace. Raises SandboxFault when one does not fit.

        `read` yields the bytes of those that are stored, as many as they say or an exception.
        """
        self.spent = True  # until it has ended well: half-way, the supervisor waits for bytes
        async with self._patience(patience.UPLOAD_S, "take its input files"):
            await self.prepare()
            await place(self._channel, files, read)
        self.spent = False

    async def run(
        self,
        program: Program,
        *,
        bounds: RunBounds,
        flood_bytes: int,
        on_started: OnStarted,
        on_output: OnOutput,
        cancel: asyncio.Event,
        grace_s: float = 1.0,
        bridge: Bridge | None = None,
    ) -> Ending:
        """Run the program to its end, or to ours for it, and return the facts.

        With a `bridge`, 127.0.0.1:3128 inside leads to the socket of `listen_for_egress`. The
        program does not wait for `on_started`; if that fails, it is stopped.

        Raises ProtocolViolation when the supervisor breaks the protocol, SandboxFault when it
        does not start the program, and whatever the callbacks raise; the container is dead then.
        """
        # The end of output is known when all of it has come.
        asked = flood_bytes if bounds.tail_bytes else bounds.output_bytes
        tally = Tally(asked, kept=bounds.output_bytes)
        # What the container's start cost is not the program's.
        before = self._cgroups.read(self.container_id)
        run = Run(
            self._channel,
            tally=tally,
            flood_bytes=flood_bytes,
            on_started=on_started,
            on_output=on_output,
        )
        longest = bounds.timeout_s + grace_s + _LATE_S
        self._end_by(Term.DEADLINE, time.monotonic() + self._patience.stretched(START_S) + longest)
        run.began.add_done_callback(
            lambda began: self._end_by(Term.DEADLINE, began.result() + longest)
        )
        following = asyncio.create_task(self._follow(run, program, bridge))
        try:
            async with self._patience(patience.UPLOAD_S, "start the program"):
                first: set[asyncio.Future[Any]] = {following, run.began}
                await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            since = run.began.result() if run.began.done() else time.monotonic()
            until = since + bounds.timeout_s
            cause = await run.cause(following, cancel=cancel, until=until)
            counters = Counters()
            if cause is not Cause.NONE:
                counters = await self._stop(following, grace_s)
            report = await following
        except BaseException:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            try:
                await self._kill()
            except RunnerError as error:
                # The watchdog goes on trying.
                _log.error("program_not_killed", sandbox=self.id, error=error.detail)
            raise
        self._end_by(Term.DEADLINE, None)
        ended_at = time.monotonic()
        if (fired := self._watchdog.fired(self.container_id)) is not None:
            self._alive = False
            ended_at, counters = fired.at, fired.used
            if report is None and cause is Cause.NONE and fired.term is Term.DEADLINE:
                cause = Cause.DEADLINE
        if self._alive:
            # Also of a container that died: its group outlives it by the moment that this takes.
            counters = self._cgroups.read(self.container_id)
        died_of_memory = fired is not None and fired.term is Term.MEMORY
        if report is None:
            self._alive = False
            if cause is Cause.NONE and fired is None:
                state = await self._engine.state(self.container_id)
                died_of_memory = bool(state.get("OOMKilled"))
        self.runs += 1
        used = counters.since(before, first=self.runs == 1)
        return ending_of(
            cause, report, tally, used, wall_s=ended_at - since, died_of_memory=died_of_memory
        )

    def end_by(self, until: float | None) -> None:
        """End all that runs in it by then, by the clock of `time.monotonic`; None: no more.

        A thread of its own does that, whatever holds up the event loop. Raises LeaseLost when it
        has done so.
        """
        self._end_by(Term.LEASE, until)
        fired = self._watchdog.fired(self.container_id)
        if fired is not None and fired.term is Term.LEASE:
            raise LeaseLost("the worker was held up for as long as its lease")

    def _end_by(self, term: Term, until: float | None) -> None:
        if until is None:
            self._watchdog.disarm(self.container_id, term)
        else:
            self._watchdog.arm(self.container_id, term, until)

    async def _follow(self, run: Run, program: Program, bridge: Bridge | None) -> Report:
        try:
            await self.prepare()
        except Closed:
            return None
        self._preparing = False
        trust = bridge.trust if bridge else ""
        return await run.follow(program, egress=bridge is not None, trust=trust)

    async def _stop(self, following: "asyncio.Task[Report]", grace_s: float) -> Counters:
        """SIGTERM to everything; after the grace, read the counters and kill the container."""
        try:
            async with asyncio.timeout(grace_s):
                await self._channel.send("terminate")
                await asyncio.wait({following})
        except (TimeoutError, Closed):
            pass
        counters = self._cgroups.read(self.container_id)
        if not following.done():
            await self._kill()
        return counters

    async def _kill(self) -> None:
        """Kill all that runs in it. When some of it is left, raises what Docker does."""
        self._alive = False
        try:
            if await asyncio.to_thread(self._cgroups.end, self.container_id):
                return
        except OSError as error:
            _log.warning("not_killed_by_kernel", sandbox=self.id, error=str(error))
        try:
            await self._engine.kill(self.container_id)
        except RunnerError:
            if await asyncio.to_thread(self._cgroups.processes, self.container_id):
                self._end_by(Term.OVER, time.monotonic())
                raise

    async def collect(
        self, *, max_files: int, max_bytes: int, sink: ArtifactSink, again: bool = False
    ) -> CollectedFiles:
        """Hand the files the program left to the sink; nothing when the container is dead.

        Unless another program is to run `again`, the sandbox is spent. That needs no new process
        in it, so ask for it when the program has used up the memory.
        """
        if not self._alive:
            return NOTHING
        self.spent = True  # until it has ended well: half-way, frames are left that nobody awaits
        async with self._patience(patience.COLLECT_S, "hand back its artifacts"):
            collected = await collect(
                self._channel, max_files=max_files, max_bytes=max_bytes, again=again, sink=sink
            )
        self.spent = not again
        return collected

    async def destroy(self) -> None:
        """Remove the container and its socket directory. Safe to repeat.

        When Docker does not answer, raises DockerUnavailable: what runs in it is ended all the
        same, and `reap.remove_strays` then finds the rest.
        """
        self._alive = False
        self._end_by(Term.OVER, time.monotonic() + _REMOVED_S)
        self._channel.close()
        try:
            try:
                await self._engine.remove(self.container_id)
            except BaseException:
                self._watchdog.abandon(self.container_id)
                raise
            self._watchdog.forget(self.container_id)
            await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        finally:
            self._on_destroyed(self.id)
