"""Makes room on a host that is short of memory, or drains: paused sandboxes become snapshots.

Only those whose tenants chose that, and first those that were used least lately. One whose files
cannot be kept, for instance because the tenant's storage is full, stays as it is.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from functools import partial
from uuid import UUID

import psutil
import structlog

from runner.auth.caller import By, TenantActor
from runner.node.gate import Gate
from runner.node.residents.journal import NODE
from runner.node.residents.resident import Resident
from runner.node.starvation import starved
from runner.sandboxes.keeping import SnapshotKeeper
from runner.words.errors import RunnerError
from runner.words.sandbox import WORKSPACE

LONGEST_S = 120.0
"""How long one snapshot may take: others wait for their turn, and the host for its memory."""
RESTS_S = 300.0
"""How long a sandbox is left alone whose files could not be kept."""
SLOW_S = 10.0
"""If that took longer, all of its tenant's are left alone: a sandbox may be slow on purpose, and
meanwhile nobody's memory is freed."""

SHORT = "its host was short of memory while it was paused"
DRAINED = "its node was drained while it was paused or ran nothing"
QUIET_S = 30.0
"""On a node that drains, a sandbox that has run nothing for so long is paused first."""

_log = structlog.get_logger("runner.worker")


def available() -> int:
    """Return how many bytes of the host's memory programs could still take."""
    return int(psutil.virtual_memory().available)


class Evictor:
    """Evicts residents. `sweep` is a duty."""

    def __init__(
        self,
        residents: Iterable[Resident],
        keeper: SnapshotKeeper,
        *,
        reserve_mb: int,
        gate: Gate,
        free: Callable[[], int] = available,
        quiet_s: float = QUIET_S,
    ) -> None:
        """Keep `reserve_mb` MiB of the host free; `free` returns how many bytes are."""
        self._residents = residents
        self._keeper = keeper
        self._reserve = reserve_mb * 2**20
        self._free = free
        self._gate = gate
        self._quiet_s = quiet_s
        self._quiet: dict[UUID, tuple[int, float]] = {}
        self._rests_until: dict[UUID, float] = {}

    async def sweep(self) -> None:
        """Evict as many as give the host what it lacks; on a node that drains, all that may go."""
        if self._gate.draining:
            await self._pause_quiet()
            await self._evict_for(math.inf, DRAINED)
        else:
            self._quiet.clear()
            await self._evict_for(self._reserve - self._free(), SHORT)

    async def _pause_quiet(self) -> None:
        """Pause sandboxes in which nothing ran for a while. Who uses one meanwhile resumes it."""
        now = asyncio.get_running_loop().time()
        movable = [each for each in self._residents if each.may_be_moved]
        seen, self._quiet = self._quiet, {}
        for resident in movable:
            sandbox_id, started = resident.hold.sandbox_id, resident.processes.started
            begun, since = seen.get(sandbox_id, (started, now))
            self._quiet[sandbox_id] = started, since if begun == started else now
            if now - self._quiet[sandbox_id][1] < self._quiet_s:
                continue
            try:
                await resident.pause({"drain": True})
            except (RunnerError, OSError) as error:
                _log.warning("sandbox_not_paused", sandbox=str(sandbox_id), why=str(error))

    async def _evict_for(self, lacking: float, why: str) -> None:
        if lacking <= 0:
            return
        now = asyncio.get_running_loop().time()
        self._rests_until = {each: at for each, at in self._rests_until.items() if at > now}
        for resident in sorted(self._candidates(), key=lambda each: each.ran_until):
            # Somebody may have used it, or ended it, while others were evicted.
            if not resident.may_be_evicted or self._rests(resident):
                continue
            frees = resident.guest.container.in_use().memory_bytes or 0
            if await self._evict(resident, why):
                lacking -= frees
            if lacking <= 0:
                return

    def _candidates(self) -> list[Resident]:
        return [each for each in self._residents if each.may_be_evicted and not self._rests(each)]

    def _rests(self, resident: Resident) -> bool:
        hold = resident.hold
        return hold.sandbox_id in self._rests_until or hold.tenant_id in self._rests_until

    async def _evict(self, resident: Resident, reason: str) -> bool:
        """Evict it; return whether it is gone."""
        sandbox_id, clock = resident.hold.sandbox_id, asyncio.get_running_loop().time
        began = clock()
        try:
            await resident.evict(partial(self._keep, resident), reason)
        except (RunnerError, OSError, TimeoutError) as error:
            whose = resident.hold.tenant_id if clock() - began > SLOW_S else sandbox_id
            self._rests_until[whose] = clock() + RESTS_S
            why = error.detail if isinstance(error, RunnerError) else str(starved(error) or error)
            _log.warning("sandbox_not_evicted", sandbox=str(sandbox_id), why=why)
        return resident.over

    async def _keep(self, resident: Resident) -> UUID:
        """Keep its files; return the snapshot's id. Its metadata are the sandbox's."""
        hold = resident.hold
        async with asyncio.timeout(LONGEST_S):
            kept = await self._keeper.keep(
                TenantActor(hold.tenant_id, By(NODE)),
                hold.sandbox_id,
                partial(resident.guest.archives.pack, WORKSPACE),
                name=None,
                metadata=resident.metadata,
            )
        return kept.id
