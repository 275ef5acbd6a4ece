"""Sandboxes started ahead: never used, of nobody, each for one execution.

A claim takes the newest that answers; none there means a start of its own, as without a pool. What
is started ahead is ordered by the same launcher with the same order, so isolation is the same. One
task keeps it full, a few starts at a time, so that claims and runs go before it.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from runner.base.duties import Duties
from runner.node.stock.demand import Demand, PoolBounds, room
from runner.node.stock.sandboxes import FreshSandboxes
from runner.node.traffic import Traffic
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.words.errors import (
    DockerUnavailable,
    ImageMissing,
    LaunchFailed,
    ProtocolViolation,
    RunnerError,
)
from runner.words.execution import Claim, ExecutionRequest
from runner.words.sandbox import SandboxSpec

TICK_S = 1.0
IMAGES_S = 3.0
"""How often it is looked whether an image is today's; what is claimed meanwhile may not be."""
FEW = 4
"""With so many left, starting more can wait: it would slow those who are served down, and what is
asked for faster than Docker starts it cannot be had by starting sooner."""
MAX_KINDS = 8
"""Kinds kept ready at a time, those asked for last: limits of a request's own make a kind each."""
REST_S = 60.0
"""How long nothing is started ahead of a kind that could not be started: its image may be missing,
or this host lacks its isolation, and the other kinds are not to wait for that."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A sandbox that waits."""

    sandbox: Sandbox
    since: float


class WarmSandboxes:
    """A pool for one worker; `Sandboxes` to the recipe. Made by `open_pool`.

    Sandboxes of one spec are of one kind: each can stand for the other.
    """

    def __init__(
        self,
        launcher: Launcher,
        *,
        bounds: PoolBounds,
        steady: SandboxSpec | None,
        max_idle_s: float,
        traffic: Traffic,
        blames_node: Callable[[], Awaitable[bool]],
    ) -> None:
        self._blames_node = blames_node
        self._launcher = launcher
        self._traffic = traffic
        self._fresh = FreshSandboxes(launcher, traffic)
        self._bounds = bounds
        self._steady = steady
        self._max_idle_s = max_idle_s
        self._idle: dict[SandboxSpec, deque[Idle]] = {}
        self._demand: dict[SandboxSpec, Demand] = {}
        self._digests: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._looked = 0.0
        self._disposals: set[asyncio.Task[None]] = set()
        self._too_small: set[SandboxSpec] = set()
        """Kinds in whose memory the image's list does not fit: they wait without it."""
        self._rest_until: dict[SandboxSpec, float] = {}
        self._log = structlog.get_logger("runner.worker")

    @property
    def idle(self) -> int:
        """How many wait, of all kinds."""
        return sum(map(len, self._idle.values()))

    async def claim(self, claim: Claim, request: ExecutionRequest) -> Sandbox:
        """Return one that waits, else start one for this execution."""
        kind = request.sandbox
        now = time.monotonic()
        if not self._rests(kind, now):
            self._demand.setdefault(kind, Demand()).asked(now)
            self._changed.set()
        while (sandbox := self._take(kind)) is not None:
            try:
                if await answers(sandbox):
                    return sandbox
            except BaseException:
                self._discard(sandbox)
                raise
            self._log.warning("idle_sandbox_lost", sandbox=sandbox.id)
            self._discard(sandbox)
        return await self._fresh.claim(claim, request)

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Destroy the container."""
        await self._fresh.dispose(sandbox, at_once=at_once)

    async def keep(self) -> None:
        """Make it as full as it should be; return once it may have to be done again.

        A kind that cannot be started rests. Raises only what is the node's fault, which would keep
        the other kinds from starting, too.
        """
        self._changed.clear()
        await self._look()
        while (kind := self._shortest()) is not None:
            try:
                await self._start(kind)
            except (DockerUnavailable, LaunchFailed) as error:
                # The steady kind is what the node is tried with: its order is not at fault.
                if await self._blames_node() or kind == self._steady:
                    raise
                self._rest(kind, error)
            except (RunnerError, OSError) as error:
                self._rest(kind, error)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._changed.wait()

    async def close(self) -> None:
        """Destroy what waits."""
        for waiting in self._idle.values():
            for idle in waiting:
                self._discard(idle.sandbox)
        self._idle.clear()
        while self._disposals:
            await asyncio.gather(*self._disposals)

    def _take(self, kind: SandboxSpec) -> Sandbox | None:
        waiting = self._idle.get(kind)
        return waiting.pop().sandbox if waiting else None

    def _rests(self, kind: SandboxSpec, now: float) -> bool:
        return self._rest_until.get(kind, now) > now

    def _rest(self, kind: SandboxSpec, error: Exception) -> None:
        """Start none of the kind for a while, and forget that it was asked for."""
        self._rest_until[kind] = time.monotonic() + REST_S
        self._demand.pop(kind, None)
        why = error.detail if isinstance(error, RunnerError) else str(error)
        self._log.warning(
            "kind_not_started_ahead", image=kind.image, isolation=kind.isolation, why=why
        )

    async def _look(self) -> None:
        """Let go of what is too old, dead, or of an image that is not today's."""
        now = time.monotonic()
        if now >= self._looked + IMAGES_S:
            self._looked = now
            await self._look_at_images()
        for kind, waiting in list(self._idle.items()):
            for idle in list(waiting):
                stale = idle.sandbox.identity.image_digest != self._digests.get(kind.image)
                if stale or idle.sandbox.gone or idle.since < now - self._max_idle_s:
                    waiting.remove(idle)
                    self._discard(idle.sandbox)
        for kind in sorted(self._demand, key=lambda kind: self._demand[kind].last)[:-MAX_KINDS]:
            del self._demand[kind]
        for kind in [kind for kind in self._idle if not self._target(kind, now)]:
            for idle in self._idle.pop(kind):
                self._discard(idle.sandbox)
        self._rest_until = {kind: until for kind, until in self._rest_until.items() if until > now}
        self._too_small &= self._known

    async def _look_at_images(self) -> None:
        images = {kind.image for kind in self._idle}
        for image in self._digests.keys() - images:
            del self._digests[image]
        for image in images:
            try:
                self._digests[image] = await self._launcher.maker.images.require(image)
            except ImageMissing:
                self._digests.pop(image, None)

    def _target(self, kind: SandboxSpec, now: float) -> int:
        demand = self._demand.get(kind)
        lately = demand is not None and demand.last > now - self._max_idle_s
        floor = self._bounds.floor if kind == self._steady else int(lately)
        return max(floor, demand.wanted(now) if demand else 0)

    def _shortest(self) -> SandboxSpec | None:
        """Return the kind that lacks most of those that cannot wait, or None; also without room."""
        if not room(self._bounds, self.idle):
            return None
        now = time.monotonic()
        kinds = [
            kind
            for kind in self._known
            if not self._rests(kind, now) and not self._can_wait(kind, now)
        ]
        lacking = {kind: self._target(kind, now) - len(self._idle.get(kind, ())) for kind in kinds}
        kind = max(lacking, key=lambda kind: lacking[kind], default=None)
        return kind if kind is not None and lacking[kind] > 0 else None

    @property
    def _known(self) -> set[SandboxSpec]:
        return {*self._demand, *([self._steady] if self._steady else [])}

    def _can_wait(self, kind: SandboxSpec, now: float) -> bool:
        """Return whether enough of the kind wait for its next to be started in a quiet moment."""
        demand = self._demand.get(kind)
        needed = min(FEW, demand.wanted(now)) if demand else 0
        return len(self._idle.get(kind, ())) >= needed and self._traffic.worth_waiting

    async def _start(self, kind: SandboxSpec) -> None:
        began = time.monotonic()
        sandbox = await self._launcher.launch(SandboxOrder(kind))
        if kind not in self._too_small and not await self._load(kind, sandbox):
            return
        now = time.monotonic()
        if kind in self._demand:
            self._demand[kind].started(now - began)
        self._digests[kind.image] = sandbox.identity.image_digest
        self._idle.setdefault(kind, deque()).append(Idle(sandbox, now))

    async def _load(self, kind: SandboxSpec, sandbox: Sandbox) -> bool:
        """Get it ready for its program; False, and it is gone, if its memory is too small.

        It then dies, or thrashes until its time is up.
        """
        try:
            failed = await sandbox.load()
            await sandbox.prepare()
        except ProtocolViolation:
            self._too_small.add(kind)
            self._log.warning(
                "list_not_loaded", image=kind.image, memory_mb=kind.resources.memory_mb
            )
            self._discard(sandbox)
            return False
        except BaseException:
            self._discard(sandbox)
            raise
        if failed:
            self._log.warning("modules_not_loaded", image=kind.image, modules=failed)
        return True

    def _discard(self, sandbox: Sandbox) -> None:
        task = asyncio.create_task(self._fresh.dispose(sandbox))
        self._disposals.add(task)
        task.add_done_callback(self._disposals.discard)


@asynccontextmanager
async def open_pool(
    launcher: Launcher,
    *,
    bounds: PoolBounds,
    steady: SandboxSpec | None,
    max_idle_s: float,
    traffic: Traffic | None = None,
    duties: Duties | None = None,
    blames_node: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[WarmSandboxes]:
    """Keep a pool while the context lasts; nothing of it stays.

    `blames_node` is asked whose fault a failed start ahead is; without it, it is the node's.
    """
    pool = WarmSandboxes(
        launcher,
        bounds=bounds,
        steady=steady,
        max_idle_s=max_idle_s,
        traffic=traffic or Traffic(),
        blames_node=blames_node or _always,
    )
    try:
        async with (duties or Duties()).doing("filling the pool", pool.keep):
            yield pool
    finally:
        await pool.close()


async def _always() -> bool:
    return True


async def answers(sandbox: Sandbox) -> bool:
    """Return whether its supervisor waits for commands."""
    try:
        await sandbox.ping()
    except (ProtocolViolation, DockerUnavailable, OSError):
        return False
    return True
