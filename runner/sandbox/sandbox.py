"""One sandbox in use: upload, run, collect, destroy.

Time is the worker's: the deadline, the grace after SIGTERM and the patience with a silent
supervisor are measured here, and what they end is ended through Docker.
"""

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.errors import ProtocolViolation
from runner.models import InputFile, Limits, Program, Stream
from runner.sandbox import patience
from runner.sandbox.artifacts import NOTHING, ArtifactSink, Collected, collect, plain
from runner.sandbox.cgroups import Cgroups, Counters
from runner.sandbox.channel import (
    Alive,
    Channel,
    Cleaned,
    Closed,
    Counted,
    Data,
    Ended,
    Loaded,
    NotStarted,
    Started,
    unexpected,
)
from runner.sandbox.ending import Cause, Ending, Tally, ending_of
from runner.sandbox.engine import Engine
from runner.sandbox.inputs import Reader, nothing_stored, place
from runner.sandbox.isolation import EffectiveIsolation
from runner.sandbox.patience import Patience
from runner.sandbox.sockets import EGRESS_SOCKET, listen
from runner.tasks import beside

_STREAMS = {b"O": Stream.STDOUT, b"E": Stream.STDERR}
_EGRESS_BACKLOG = 64


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
        async with self._patience(patience.UPLOAD_S, "take its input files"):
            await self.prepare()
            await place(self._channel, files, read)

    async def run(
        self,
        program: Program,
        *,
        limits: Limits,
        flood_bytes: int,
        on_started: Callable[[], Awaitable[None]],
        on_output: Callable[[Stream, bytes], Awaitable[None]],
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
        tally = Tally(limits.output_kb * 1024)
        # What the container's start cost is not the program's.
        before = self._cgroups.read(self.container_id)
        flood = asyncio.Event()
        began = asyncio.get_running_loop().create_future()
        reading = asyncio.create_task(
            self._follow(program, bridge, tally, flood_bytes, flood, began, on_started, on_output)
        )
        try:
            async with self._patience(patience.UPLOAD_S, "start the program"):
                await asyncio.wait({reading, began}, return_when=asyncio.FIRST_COMPLETED)
            since = began.result() if began.done() else time.monotonic()
            cause = await _first(
                reading, cancel=cancel, flood=flood, until=since + limits.timeout_s
            )
            counters = Counters()
            if cause is not Cause.NONE:
                counters = await self._stop(reading, grace_s)
            report = await reading
        except BaseException:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await self._kill()
            raise
        wall = time.monotonic() - since
        if self._alive:
            # Also of a container that died: its group outlives it by the moment that this takes.
            counters = self._cgroups.read(self.container_id)
        died_of_memory = False
        if report is None:
            state = await self._engine.state(self.container_id)
            died_of_memory = bool(state.get("OOMKilled"))
            self._alive = False
        self.runs += 1
        used = counters.since(before, first=self.runs == 1)
        return ending_of(cause, report, tally, used, wall_s=wall, died_of_memory=died_of_memory)

    async def _follow(
        self,
        program: Program,
        bridge: Bridge | None,
        tally: Tally,
        flood_bytes: int,
        flood: asyncio.Event,
        began: "asyncio.Future[float]",
        on_started: Callable[[], Awaitable[None]],
        on_output: Callable[[Stream, bytes], Awaitable[None]],
    ) -> Ended | NotStarted | None:
        """Start the program and pass its output on; None when the container dies first."""
        try:
            await self._send_program(program, bridge, tally)
            first = await self._channel.read()
            if isinstance(first, NotStarted):
                return first
            if not isinstance(first, Started):
                raise unexpected(first)
            began.set_result(time.monotonic())
            async with beside(on_started()):
                message = await self._hear_out(tally, flood_bytes, flood, on_output)
        except Closed:
            return None
        if (message.exit_code is None) == (message.signal is None):
            raise ProtocolViolation("the sandbox reported an end without one cause")
        tally.claim(message.stdout, message.stderr)
        return message

    async def _hear_out(
        self,
        tally: Tally,
        flood_bytes: int,
        flood: asyncio.Event,
        on_output: Callable[[Stream, bytes], Awaitable[None]],
    ) -> Ended:
        while not isinstance(message := await self._channel.read(), Ended):
            if isinstance(message, Data) and message.kind in _STREAMS:
                stream = _STREAMS[message.kind]
                tally.receive(stream, len(message.payload))
                await on_output(stream, message.payload)
            elif isinstance(message, Counted):
                tally.claim(message.stdout, message.stderr)
            else:
                raise unexpected(message)
            if tally.everything > flood_bytes:
                flood.set()
        return message

    async def _send_program(self, program: Program, bridge: Bridge | None, tally: Tally) -> None:
        what = {
            "argv": program.argv,
            "env": dict(program.env),
            "cwd": program.cwd,
            "interpret": program.interpret,
        }
        start = json.dumps(what).encode()
        await self.prepare()
        self._preparing = False
        await self._channel.send(
            "run",
            start,
            program.stdin,
            program_bytes=len(start),
            stdin_bytes=len(program.stdin),
            output_bytes=tally.allowance,
            egress=bridge is not None,
            trust=bridge.trust if bridge else "",
        )

    async def _stop(
        self, reading: "asyncio.Task[Ended | NotStarted | None]", grace_s: float
    ) -> Counters:
        """SIGTERM to everything; after the grace, read the counters and kill the container."""
        try:
            async with asyncio.timeout(grace_s):
                await self._channel.send("terminate")
                await asyncio.wait({reading})
        except (TimeoutError, Closed):
            pass
        counters = self._cgroups.read(self.container_id)
        if not reading.done():
            await self._kill()
        return counters

    async def _kill(self) -> None:
        self._alive = False
        await self._engine.kill(self.container_id)

    async def collect(
        self, *, max_files: int, max_bytes: int, sink: ArtifactSink, again: bool = False
    ) -> Collected:
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

        When Docker does not answer, raises DockerUnavailable; `reap.remove_strays` then finds it.
        """
        self._alive = False
        self._channel.close()
        try:
            await self._engine.remove(self.container_id)
            await asyncio.to_thread(shutil.rmtree, self._home, ignore_errors=True)
        finally:
            self._on_destroyed(self.id)


async def _first(
    reading: "asyncio.Task[Ended | NotStarted | None]",
    *,
    cancel: asyncio.Event,
    flood: asyncio.Event,
    until: float,
) -> Cause:
    """Wait for the program's end, a cancellation, a flood or the deadline; tell which it was."""
    waits = {
        asyncio.create_task(flood.wait()): Cause.FLOOD,
        asyncio.create_task(cancel.wait()): Cause.CANCEL,
    }
    try:
        done, _ = await asyncio.wait(
            {reading, *waits},
            timeout=max(0.0, until - time.monotonic()),
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if reading in done:
        return Cause.NONE
    return next((cause for task, cause in waits.items() if task in done), Cause.DEADLINE)
