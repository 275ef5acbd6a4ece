"""A bench for tests that run programs in real sandboxes: launch, run, collect, destroy, count."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from runner.base.settings import Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.artifacts import Collected
from runner.sandbox.guest.ending import Ending
from runner.sandbox.guest.outcome import Verdict, classify
from runner.sandbox.guest.sandbox import Bridge, Sandbox
from runner.sandbox.launch import NODE_LABEL, Configure, Launcher, SandboxOrder
from runner.words.execution import InputFile, Program, Stream
from runner.words.resources import Limits, RunBounds
from runner.words.sandbox import Isolation, SandboxSpec

MB = 2**20


class Shelf:
    """Takes artifacts into memory."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Keep one artifact."""
        content = b"".join([chunk async for chunk in chunks])
        assert len(content) == size
        self.files[path] = content


@dataclasses.dataclass(frozen=True)
class Ran:
    """What became of one program."""

    ending: Ending
    verdict: Verdict
    stdout: bytes
    stderr: bytes
    files: dict[str, bytes]
    collected: Collected


class Bench:
    """Runs programs in fresh sandboxes."""

    def __init__(
        self, launcher: Launcher, limits: Limits, isolation: Isolation = Isolation.CONTAINER
    ) -> None:
        self.launcher = launcher
        self.limits = limits
        self.isolation = isolation

    def within(self, **overrides: float) -> Limits:
        """Return the bench's limits with these changed."""
        return dataclasses.replace(self.limits, **overrides)  # type: ignore[arg-type]  # by name

    def spec(self, **overrides: float) -> SandboxSpec:
        """Return what sandboxes of the default image are made from, with limits changed."""
        return SandboxSpec("python", self.within(**overrides).resources, self.isolation)

    def order(self, **overrides: float) -> SandboxOrder:
        """Return an order for the default image, with limits changed."""
        return SandboxOrder(self.spec(**overrides), tenant="t", execution="e", attempt="1")

    @asynccontextmanager
    async def sandbox(self, **overrides: float) -> AsyncIterator[Sandbox]:
        """Launch a sandbox and destroy it after use."""
        sandbox = await self.launcher.launch(self.order(**overrides))
        try:
            yield sandbox
        finally:
            await sandbox.destroy()

    async def python(self, code: str, **options: object) -> Ran:
        """Run Python code."""
        return await self.run(("python3", "-c", code), **options)  # type: ignore[arg-type]

    async def bash(self, code: str, **options: object) -> Ran:
        """Run a shell script."""
        return await self.run(("bash", "-c", code), **options)  # type: ignore[arg-type]

    async def run(
        self,
        argv: tuple[str, ...],
        *,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        files: Sequence[InputFile] = (),
        flood_bytes: int = 256 * MB,
        cancel_after: float | None = None,
        grace_s: float = 0.5,
        max_files: int = 64,
        max_bytes: int = 128 * MB,
        **overrides: float,
    ) -> Ran:
        """Run one program in a sandbox of its own and collect what it left."""
        async with self.sandbox(**overrides) as sandbox:
            return await use(
                sandbox,
                Program(argv, env or {}, stdin),
                self.within(**overrides).bounds,
                files=files,
                flood_bytes=flood_bytes,
                cancel_after=cancel_after,
                grace_s=grace_s,
                max_files=max_files,
                max_bytes=max_bytes,
            )


async def use(
    sandbox: Sandbox,
    program: Program,
    bounds: RunBounds,
    *,
    files: Sequence[InputFile] = (),
    flood_bytes: int = 256 * MB,
    cancel_after: float | None = None,
    grace_s: float = 0.5,
    max_files: int = 64,
    max_bytes: int = 128 * MB,
    bridge: Bridge | None = None,
    again: bool = False,
) -> Ran:
    """Run one program in this sandbox, which may run another only `again`, and collect."""
    output: dict[Stream, list[bytes]] = {stream: [] for stream in Stream}
    cancel = asyncio.Event()

    async def started() -> None:
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, cancel.set)

    async def keep(stream: Stream, chunk: bytes) -> None:
        output[stream].append(chunk)

    await sandbox.upload(files)
    ending = await sandbox.run(
        program,
        bounds=bounds,
        flood_bytes=flood_bytes,
        on_started=started,
        on_output=keep,
        cancel=cancel,
        grace_s=grace_s,
        bridge=bridge,
    )
    shelf = Shelf()
    collected = await sandbox.collect(
        max_files=max_files, max_bytes=max_bytes, sink=shelf, again=again
    )
    return Ran(
        ending=ending,
        verdict=classify(ending),
        stdout=b"".join(output[Stream.STDOUT]),
        stderr=b"".join(output[Stream.STDERR]),
        files=shelf.files,
        collected=collected,
    )


@asynccontextmanager
async def bench(
    state_dir: Path,
    wrap: Callable[[Launcher], Launcher] = lambda launcher: launcher,
    configure: Configure = container_config,
    isolation: Isolation = Isolation.CONTAINER,
) -> AsyncIterator[Bench]:
    """Open a bench of its own node; at the end nothing of it may be left on the host."""
    settings = Settings(state_dir=state_dir, node="test")
    node = f"test-{uuid.uuid4().hex[:12]}"
    opening = Launcher.open(settings, node=node, instance="only", configure=configure)
    async with opening as launcher:
        limits = load_sizes(settings.profiles_path)[DEFAULT_SIZE]
        yield Bench(wrap(launcher), limits, isolation)
        assert await launcher.engine.containers({NODE_LABEL: node}) == []
        assert list(launcher.sandboxes_dir.iterdir()) == []
        assert launcher.live == set()


def build_image() -> None:
    """Make the images once per host; afterwards Docker holds them."""
    settings = Settings()

    async def build() -> None:
        async with Engine(settings.docker_url, timeout_s=30, threads=2) as engine:
            for name in ("python", "data"):
                await Images(engine, settings.recipes_path).build(name, settings)

    asyncio.run(build())
