"""Sandboxes started ahead: never used, belonging to nobody, each for one execution.

A claim takes the newest one that answers. If there is none, it starts one, as it would without a
pool. The same launcher starts all of them with the same order, so isolation is the same. One task
keeps the pool full, a few starts at a time, so that claims and runs take precedence.
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
from runner.node.stock.sandboxes import FreshSandboxes, Need
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
from runner.words.sandbox import SandboxSpec

TICK_S = 1.0
IMAGES_S = 3.0
"""How often images are checked for a newer build; a claim in between may get an older one."""
FEW = 4
"""While this many sandboxes are ready, further starts can wait. They would slow down running
programs, and where sandboxes are requested faster than Docker starts them, they would not help."""
MAX_KINDS = 8
"""How many kinds are kept ready: those requested last, as special limits make a kind each."""
REST_S = 60.0
"""How long a kind that could not be started is left alone. Its image or isolation may be missing
on this host, and the other kinds must not wait for that."""


@dataclass(frozen=True, slots=True)
class Idle:
    """A sandbox that waits."""

    sandbox: Sandbox
    since: float


class WarmSandboxes:
    """The pool of one worker, which implements `Sandboxes`. `open_pool` makes it.

    Sandboxes of one spec are of one kind: they are interchangeable.
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
        """Kinds whose memory is too small for the image's modules: they wait without them."""
        self._rest_until: dict[SandboxSpec, float] = {}
        self._log = structlog.get_logger("runner.worker")

    @property
    def idle(self) -> int:
        """How many sandboxes wait, of all kinds."""
        return sum(map(len, self._idle.values()))

    async def claim(self, wanted: Need) -> Sandbox:
        """Return a sandbox that waits, or start one for this use."""
        kind = wanted.order.spec
        now = time.monotonic()
        if not self._rests(kind, now):
            self._demand.setdefault(kind, Demand()).asked(now)
            self._changed.set()
        while (sandbox := self._take(kind)) is not None:
            try:
                if not (wanted.checked or sandbox.gone) or await answers(sandbox):
                    return sandbox
            except BaseException:
                self._discard(sandbox)
                raise
            self._log.warning("idle_sandbox_lost", sandbox=sandbox.id)
            self._discard(sandbox)
        return await self._fresh.claim(wanted)

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Destroy the container."""
        await self._fresh.dispose(sandbox, at_once=at_once)

    async def keep(self) -> None:
        """Fill the pool; return once that may have to be done again.

        A kind that cannot be started rests. Raises only failures of the node, which would prevent
        starting the other kinds, too.
        """
        self._changed.clear()
        await self._look()
        while (kind := self._shortest()) is not None:
            try:
                await self._start(kind)
            except (DockerUnavailable, LaunchFailed) as error:
                # The steady kind shows whether the node works, because its order is not at fault.
                if await self._blames_node() or kind == self._steady:
                    raise
                self._rest(kind, error)
            except (RunnerError, OSError) as error:
                self._rest(kind, error)
        with suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await self._changed.wait()

    async def close(self) -> None:
        """Destroy the sandboxes that wait."""
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
        """Start none of the kind for a while, and forget that it was requested."""
        self._rest_until[kind] = time.monotonic() + REST_S
        self._demand.pop(kind, None)
        why = error.detail if isinstance(error, RunnerError) else str(error)
        self._log.warning(
            "kind_not_started_ahead", image=kind.image, isolation=kind.isolation, why=why
        )

    async def _look(self) -> None:
        """Discard sandboxes that are too old, dead, or of an outdated image."""
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
        """Return the kind that lacks most of those that cannot wait, even without room; or None."""
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
        """Return whether enough of the kind wait: the next start is then left to a quiet moment."""
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
        """Load the image's modules. If its memory is too small, destroy it and return False.

        With too little memory, it dies or thrashes until its time is up.
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
    """Keep a pool inside the context; nothing of it remains afterwards.

    `blames_node` tells whether a failed start is the node's fault; without it, it always is.
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
