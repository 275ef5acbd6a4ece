"""Programs in sandboxes without an execution: whatever comes back is held in memory.

For what tries a sandbox or looks into one: verification, learning a profile, benchmarks, tests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from runner.sandbox.guest.artifacts import NOTHING, CollectedFiles
from runner.sandbox.guest.ending import Ending
from runner.sandbox.guest.outcome import Verdict, classify
from runner.sandbox.guest.process import RunTerms, RunWatch
from runner.sandbox.guest.run import OnOutput, OnStarted
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import SandboxFault
from runner.words.execution import InputFile, Program, Stream
from runner.words.resources import RunBounds

_MB = 2**20


@asynccontextmanager
async def launched(launcher: Launcher, order: SandboxOrder) -> AsyncIterator[Sandbox]:
    """Launch a sandbox and destroy it after use."""
    sandbox = await launcher.launch(order)
    try:
        yield sandbox
    finally:
        await sandbox.destroy()


class Shelf:
    """Takes artifacts into memory; those that are not `wanted` go by."""

    def __init__(self, wanted: Callable[[str, int], bool] | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self._wanted = wanted

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep one artifact."""
        wanted = self._wanted is None or self._wanted(path, size)
        pieces = [chunk async for chunk in chunks if wanted]
        if not wanted:
            return
        self.files[path] = b"".join(pieces)
        if len(self.files[path]) != size:
            raise SandboxFault(f"artifact {path!r} has not the size it was offered with")


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """The result of one program."""

    ending: Ending
    output: Sequence[tuple[Stream, bytes]]
    """In the order in which it came."""
    collected: CollectedFiles = NOTHING
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The meaning of the ending."""
        return classify(self.ending)

    @property
    def stdout(self) -> bytes:
        """All of its standard output."""
        return self._of(Stream.STDOUT)

    @property
    def stderr(self) -> bytes:
        """All of its standard error."""
        return self._of(Stream.STDERR)

    def _of(self, stream: Stream) -> bytes:
        return b"".join(chunk for of, chunk in self.output if of is stream)


async def run(
    sandbox: Sandbox,
    program: Program,
    bounds: RunBounds,
    *,
    flood_bytes: int = 256 * _MB,
    cancel_after: float | None = None,
    grace_s: float = 0.5,
    bridge: Bridge | None = None,
    on_started: OnStarted | None = None,
    on_output: OnOutput | None = None,
) -> ProgramRun:
    """Run one program; the callbacks are told of what happens as it does."""
    output: list[tuple[Stream, bytes]] = []
    cancel = asyncio.Event()

    async def started() -> None:
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, cancel.set)
        if on_started is not None:
            await on_started()

    async def keep(stream: Stream, chunk: bytes) -> None:
        output.append((stream, chunk))
        if on_output is not None:
            await on_output(stream, chunk)

    terms = RunTerms(bounds, flood_bytes, grace_s)
    ending = await sandbox.run(program, terms, RunWatch(started, keep, cancel), bridge=bridge)
    return ProgramRun(ending, output)


async def use(
    sandbox: Sandbox,
    program: Program,
    bounds: RunBounds,
    *,
    files: Sequence[InputFile] = (),
    flood_bytes: int = 256 * _MB,
    cancel_after: float | None = None,
    grace_s: float = 0.5,
    bridge: Bridge | None = None,
    shelf: Shelf | None = None,
    max_files: int = 64,
    max_bytes: int = 128 * _MB,
    names: Sequence[str] = (),
    again: bool = False,
) -> ProgramRun:
    """Run one program in this sandbox, which may run another only `again`, and collect."""
    await sandbox.upload(files)
    ran = await run(
        sandbox,
        program,
        bounds,
        flood_bytes=flood_bytes,
        cancel_after=cancel_after,
        grace_s=grace_s,
        bridge=bridge,
    )
    shelf = shelf or Shelf()
    collected = await sandbox.collect(
        names=names, max_files=max_files, max_bytes=max_bytes, sink=shelf, again=again
    )
    return replace(ran, collected=collected, files=shelf.files)
