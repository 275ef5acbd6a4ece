"""A bench for tests that run programs in real sandboxes: launch, run, collect, destroy, count."""

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from runner.base.settings import OciRuntime, Settings
from runner.quotas.sizes import DEFAULT_SIZE, load_sizes
from runner.sandbox.drive import ProgramRun, launched, use
from runner.sandbox.engine.docker import Engine
from runner.sandbox.engine.images import Images
from runner.sandbox.engine.maker import Configure
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import NODE_LABEL, Launcher, SandboxOrder
from runner.words.execution import InputFile, Program
from runner.words.resources import Limits
from runner.words.sandbox import Isolation, SandboxSpec

MB = 2**20
BESIDE_OTHERS = 3
"""The patience of what shares its host with other tests."""


class Bench:
    """Runs programs in fresh sandboxes."""

    def __init__(
        self,
        launcher: Launcher,
        limits: Limits,
        isolation: Isolation = Isolation.CONTAINER,
        image: str = "python",
    ) -> None:
        self.launcher = launcher
        self.limits = limits
        self.isolation = isolation
        self.image = image

    def within(self, **overrides: float) -> Limits:
        """Return the bench's limits with these changes."""
        return dataclasses.replace(self.limits, **overrides)  # type: ignore[arg-type]  # by name

    def spec(self, **overrides: float) -> SandboxSpec:
        """Return the specification of the bench's sandboxes, with changed limits."""
        return SandboxSpec(self.image, self.within(**overrides).resources, self.isolation)

    def order(self, **overrides: float) -> SandboxOrder:
        """Return an order for the bench's image, with changed limits."""
        return SandboxOrder(self.spec(**overrides), tenant="t", execution="e", attempt="1")

    @asynccontextmanager
    async def sandbox(self, **overrides: float) -> AsyncIterator[Sandbox]:
        """Launch a sandbox and destroy it after use."""
        async with launched(self.launcher, self.order(**overrides)) as sandbox:
            yield sandbox

    async def python(self, code: str, **options: object) -> ProgramRun:
        """Run Python code."""
        return await self.run(("python3", "-c", code), **options)  # type: ignore[arg-type]

    async def bash(self, code: str, **options: object) -> ProgramRun:
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
        names: Sequence[str] = (),
        **overrides: float,
    ) -> ProgramRun:
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
                names=names,
            )


@asynccontextmanager
async def bench(
    state_dir: Path,
    wrap: Callable[[Launcher], Launcher] = lambda launcher: launcher,
    configure: Configure = container_config,
    isolation: Isolation = Isolation.CONTAINER,
    image: str = "python",
    oci_runtime: OciRuntime | None = None,
) -> AsyncIterator[Bench]:
    """Open a bench with its own node name; at the end, nothing of it may be left on the host."""
    patience = max(Settings().patience, BESIDE_OTHERS)
    settings = Settings(state_dir=state_dir, node="test", patience=patience)
    if oci_runtime is not None:
        settings = settings.model_copy(update={"oci_runtime": oci_runtime})
    node = f"test-{uuid.uuid4().hex[:12]}"
    opening = Launcher.open(settings, node=node, instance="only", configure=configure)
    async with opening as launcher:
        limits = load_sizes(settings.profiles_path)[DEFAULT_SIZE]
        yield Bench(wrap(launcher), limits, isolation, image)
        assert await launcher.engine.containers({NODE_LABEL: node}) == []
        assert list(launcher.site.folder.iterdir()) == []
        assert launcher.live == set()


def build_image(name: str = "python") -> None:
    """Make an image once per host; afterwards, Docker keeps it."""
    settings = Settings()

    async def build() -> None:
        async with Engine(settings.docker_url, timeout_s=30, threads=2) as engine:
            await Images(engine, settings.recipes_path).build(name, settings)

    asyncio.run(build())
