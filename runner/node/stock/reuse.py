"""Sandboxes that serve their tenant again: emptied, checked, and kept for similar executions.

Never between tenants, and only for executions that ask for it. Between two runs, the supervisor
empties the sandbox and looks for what is left, and the worker looks from outside. A sandbox is
destroyed if anything is found, or if it is too old or has served too often.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from runner.base.duties import Duties
from runner.base.settings import Settings
from runner.base.tasks import uninterrupted
from runner.node.stock.pool import answers
from runner.node.stock.sandboxes import Need, Owner, Sandboxes
from runner.sandbox.guest.sandbox import Sandbox
from runner.words.errors import DockerUnavailable, ImageMissing, LeaseLost, ProtocolViolation

SWEEP_S = 3.0
CLEANED_SOON_S = 0.25
"""How long a claim waits for one that is being cleaned; beyond this, starting one is faster."""


@dataclass(frozen=True, slots=True)
class ReuseBounds:
    """The limits of reuse: how many runs one sandbox may serve, and how many sandboxes may wait."""

    runs: int
    age_s: float
    idle_s: float
    waiting: int

    @classmethod
    def of(cls, settings: Settings) -> "ReuseBounds":
        """Return the operator's bounds."""
        return cls(
            runs=settings.reuse_runs,
            age_s=settings.reuse_age_s,
            idle_s=settings.pool_idle_s,
            waiting=settings.pool_max,
        )


@dataclass(slots=True)
class _Held:
    """An owner's sandbox, in use or waiting."""

    sandbox: Sandbox
    owner: Owner
    since: float
    waiting_since: float = 0.0


class ReusedSandboxes:
    """Implements `Sandboxes` in front of others. `open_reuse` makes it."""

    def __init__(
        self,
        others: Sandboxes,
        *,
        bounds: ReuseBounds,
        digest: Callable[[str], Awaitable[str]],
    ) -> None:
        self._others = others
        self._bounds = bounds
        self._digest = digest
        self._used: dict[str, _Held] = {}
        self._waiting: dict[Owner, deque[_Held]] = {}
        self._cleaning: dict[Owner, int] = {}
        self._cleaned = asyncio.Event()
        self._log = structlog.get_logger("runner.worker")

    @property
    def waiting(self) -> int:
        """How many sandboxes wait, of all owners."""
        return sum(map(len, self._waiting.values()))

    async def claim(self, wanted: Need) -> Sandbox:
        """Return a clean sandbox of the owner if reuse was requested and there is one."""
        owner = wanted.owner
        if owner is None or not self._bounds.waiting:
            return await self._others.claim(wanted)
        while (held := await self._next(owner)) is not None:
            alive = False
            try:
                alive = await answers(held.sandbox)
            finally:
                if not alive:
                    await uninterrupted(self._others.dispose(held.sandbox))
            if alive:
                self._used[held.sandbox.id] = held
                return held.sandbox
        sandbox = await self._others.claim(wanted)
        self._used[sandbox.id] = _Held(sandbox, owner, time.monotonic())
        return sandbox

    async def dispose(self, sandbox: Sandbox, *, at_once: bool = False) -> None:
        """Clean it and let it wait for its tenant's next execution, or destroy it."""
        held = self._used.pop(sandbox.id, None)
        kept = False
        try:
            if held is not None and not at_once and not sandbox.spent:
                kept = await self._renew(held)
        finally:
            if not kept:
                await uninterrupted(self._others.dispose(sandbox, at_once=at_once))

    async def close(self) -> None:
        """Destroy the sandboxes that wait."""
        for held in [each for waiting in self._waiting.values() for each in waiting]:
            await self._drop(held)

    async def _next(self, owner: Owner) -> _Held | None:
        """Take a sandbox that waits; if some are being cleaned, wait a moment for one of them."""
        if not self._waiting.get(owner) and self._cleaning.get(owner):
            try:
                async with asyncio.timeout(CLEANED_SOON_S):
                    while not self._waiting.get(owner) and self._cleaning.get(owner):
                        await self._cleaned.wait()
            except TimeoutError:
                return None
        waiting = self._waiting.get(owner)
        return waiting.pop() if waiting else None

    async def _renew(self, held: _Held) -> bool:
        """Clean the sandbox and keep it; return False if it must not be kept."""
        if held.sandbox.runs >= self._bounds.runs or self._too_old(held):
            return False
        owner = held.owner
        self._cleaning[owner] = self._cleaning.get(owner, 0) + 1
        try:
            if not await self._clean(held) or self.waiting >= self._bounds.waiting:
                return False
            held.waiting_since = time.monotonic()
            self._waiting.setdefault(owner, deque()).append(held)
            return True
        finally:
            self._cleaning[owner] -= 1
            if not self._cleaning[owner]:
                del self._cleaning[owner]
            # Do not await here: once it waits for its tenant, nothing may interrupt this.
            self._cleaned.set()
            self._cleaned = asyncio.Event()

    async def _clean(self, held: _Held) -> bool:
        try:
            if not (left := await held.sandbox.clean()):
                # Otherwise the lease of a failed attempt would end it while it waits.
                held.sandbox.end_by(None)
                await held.sandbox.prepare()
        except (ProtocolViolation, DockerUnavailable, LeaseLost, OSError) as error:
            left = [str(error)]
        if left:
            self._log.info("sandbox_not_clean", sandbox=held.sandbox.id, left=left)
        return not left

    async def sweep(self) -> None:
        """Destroy sandboxes that have waited too long or have an outdated image."""
        now = time.monotonic()
        for owner, waiting in list(self._waiting.items()):
            today = await self._today(owner.spec.image)
            for held in list(waiting):
                idle = held.waiting_since < now - self._bounds.idle_s
                stale = held.sandbox.identity.image_digest != today
                if idle or stale or held.sandbox.gone or self._too_old(held):
                    await self._drop(held)

    async def _today(self, image: str) -> str | None:
        try:
            return await self._digest(image)
        except ImageMissing:
            return None

    async def _drop(self, held: _Held) -> None:
        waiting = self._waiting.get(held.owner)
        if waiting is None or held not in waiting:
            return
        waiting.remove(held)
        if not waiting:
            del self._waiting[held.owner]
        # Nobody else knows of it any more.
        await uninterrupted(self._others.dispose(held.sandbox))

    def _too_old(self, held: _Held) -> bool:
        return held.since < time.monotonic() - self._bounds.age_s


@asynccontextmanager
async def open_reuse(
    others: Sandboxes,
    *,
    bounds: ReuseBounds,
    digest: Callable[[str], Awaitable[str]],
    duties: Duties | None = None,
) -> AsyncIterator[ReusedSandboxes]:
    """Keep tenants' sandboxes inside the context; nothing of them remains afterwards."""
    reused = ReusedSandboxes(others, bounds=bounds, digest=digest)
    sweeping = (duties or Duties()).doing(
        "sweeping reused sandboxes", reused.sweep, every_s=SWEEP_S
    )
    try:
        async with sweeping:
            yield reused
    finally:
        await reused.close()
