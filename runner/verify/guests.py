"""Sandboxes as checks see them: a place where a program runs, as an execution or as a process.

What decides over a process's time and end in a living sandbox is the node's own table of processes,
so that checks try what tenants get.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from runner.node.residents.processes import ProcessLabel, ProcessTable, TrackedProcess
from runner.sandbox.drive import run
from runner.sandbox.guest.artifacts import ArtifactSink, CollectedFiles
from runner.sandbox.guest.ending import Cause, Ending
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.run import OnOutput
from runner.sandbox.guest.sandbox import Sandbox
from runner.words.errors import GuestRefused, ProtocolViolation
from runner.words.execution import Program, Stream
from runner.words.living import Launch, OutputPiece, ProcessEnd, TerminalSize
from runner.words.resources import RunBounds
from runner.words.sandbox import WORKSPACE

_FLOOD_BYTES = 2**22
_GRACE_S = 0.3
_TERMINAL = TerminalSize(24, 80)


class Way(StrEnum):
    """The way in which a check's program comes into a sandbox."""

    EXECUTION = "as an execution"
    PROCESS = "as a process of a living sandbox"
    TERMINAL = "on a terminal of a living sandbox"
    RESUMED = "in a living sandbox that was paused and resumed"
    FORKED = "on a terminal of a copy of a living sandbox"
    BUILD = "by root, in a step of a template's build"


LIVING_WAYS = (Way.PROCESS, Way.TERMINAL, Way.RESUMED, Way.FORKED)
ON_TERMINAL = frozenset({Way.TERMINAL, Way.FORKED})


@dataclass(frozen=True, slots=True)
class GuestRun:
    """The result of one program: what it wrote to stdout, and its end in words.

    `by_itself` says that it ended with an exit code of its own, `usable` that its sandbox can run
    another program.
    """

    stdout: bytes
    ended: str
    by_itself: bool
    usable: bool


class Guest(Protocol):
    """A sandbox in which checks run programs."""

    async def run(
        self, program: Program, bounds: RunBounds, way: Way, on_output: OnOutput | None = None
    ) -> GuestRun:
        """Run one program; `on_output` hears of its output as it comes."""


class ExecutionGuest:
    """A sandbox that runs one program at a time, as executions do."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def run(
        self, program: Program, bounds: RunBounds, way: Way, on_output: OnOutput | None = None
    ) -> GuestRun:
        """Run one program, which ends with everything that it has started."""
        if way is not Way.EXECUTION:
            raise ValueError(f"a sandbox for executions runs nothing {way}")
        ran = await run(
            self._sandbox,
            program,
            bounds,
            flood_bytes=_FLOOD_BYTES,
            grace_s=_GRACE_S,
            on_output=on_output,
        )
        ending = ran.ending
        uncaused = ending.cause is Cause.NONE
        return GuestRun(
            stdout=ran.stdout,
            ended=_ended(ending),
            by_itself=uncaused and ending.exit_code is not None,
            usable=uncaused and not ending.container_died,
        )

    async def collect(
        self, *, max_files: int, max_bytes: int, sink: ArtifactSink
    ) -> CollectedFiles:
        """Collect what the last program left."""
        return await self._sandbox.collect(max_files=max_files, max_bytes=max_bytes, sink=sink)


class LivingGuest:
    """A sandbox that lives, in which each program is a process in a folder of its own."""

    def __init__(
        self, sandbox: LivingSandbox, source: Callable[[], Awaitable[bytes]] | None = None
    ) -> None:
        """Take a sandbox; `source` returns the archive of the workspace that it may copy."""
        self._sandbox = sandbox
        self._source = source
        self._processes = ProcessTable(forget=sandbox.forget, on_end=lambda *_: None)
        self._prepared: set[Way] = set()

    async def run(
        self, program: Program, bounds: RunBounds, way: Way, on_output: OnOutput | None = None
    ) -> GuestRun:
        """Run one program; only its process group ends with it."""
        if way is Way.EXECUTION:
            raise ValueError("a living sandbox runs no executions")
        if way not in self._prepared:
            await self._prepare(way)
            self._prepared.add(way)
        said: list[bytes] = []
        try:
            return await self._followed(program, bounds, way, on_output, said)
        except ProtocolViolation:
            # That is also what the end of its container looks like.
            return GuestRun(b"".join(said), "the sandbox died", by_itself=False, usable=False)

    async def write(self, path: str, content: bytes) -> None:
        """Write a file in it."""
        await self._sandbox.files.write(path, _whole(content), mode=0o644, parents=True)

    async def pack(self) -> bytes:
        """Return its workspace as an archive."""
        async with self._sandbox.archives.pack(WORKSPACE) as archive:
            return b"".join([chunk async for chunk in archive])

    async def _prepare(self, way: Way) -> None:
        if way is Way.RESUMED:
            await self._sandbox.pause()
            await self._sandbox.resume()
        elif way is Way.FORKED:
            if self._source is None:
                raise ValueError("there is no sandbox to copy")
            await self._sandbox.archives.unpack(WORKSPACE, _whole(await self._source()))

    async def _followed(
        self,
        program: Program,
        bounds: RunBounds,
        way: Way,
        on_output: OnOutput | None,
        said: list[bytes],
    ) -> GuestRun:
        terminal = _TERMINAL if way in ON_TERMINAL else None
        label = ProcessLabel.of(Launch(program.argv, timeout_s=bounds.timeout_s))
        folder = f"{WORKSPACE}/{self._processes.started}"
        try:
            await self._sandbox.files.make_folder(folder)
            starting = self._sandbox.start_attached(
                replace(program, cwd=folder), terminal=terminal, label=label.text()
            )
            async with starting as (guest, attached):
                process = self._processes.add(guest, label)
                async with self._forgotten(process):
                    async for each in attached:
                        if isinstance(each, OutputPiece) and each.stream is Stream.STDOUT:
                            said.append(each.data)
                            if on_output is not None:
                                await on_output(each.stream, each.data)
                    end = await process.wait()
        except GuestRefused as error:
            return GuestRun(b"", f"not started: {error.errno}", by_itself=False, usable=False)
        return GuestRun(
            b"".join(said), _told(end), by_itself=end.exit_code is not None, usable=True
        )

    @asynccontextmanager
    async def _forgotten(self, process: TrackedProcess) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if not self._sandbox.lost.done():
                self._processes.forget(process.number)


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _ended(ending: Ending) -> str:
    if ending.cause is not Cause.NONE:
        return ending.cause.value
    if ending.oom_killed or ending.container_died:
        return "killed for its memory" if ending.oom_killed else "the sandbox died"
    return _code(ending.exit_code, ending.signal)


def _told(end: ProcessEnd) -> str:
    return Cause.DEADLINE.value if end.timed_out else _code(end.exit_code, end.signal)


def exit_words(code: int) -> str:
    """Return how a program ended, by its exit code, or by a signal's number below 0."""
    return _code(code, None) if code >= 0 else _code(None, -code)


def _code(exit_code: int | None, signal: int | None) -> str:
    return f"signal {signal}" if signal else f"exit code {exit_code}"
