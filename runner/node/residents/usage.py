"""Enters the use of living sandboxes into the ledger, and pauses them when a quota is used up.

A slice is entered every `COUNT_S`, when a sandbox is paused, resumed or ended, when this process
stops, and when the next one takes the sandbox over. If this process dies, only the bytes through
ways out since the last slice are lost. The container and the database's clock count the rest, and
the row says from where.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import structlog

from runner.base.duties import for_each
from runner.node.residents.resident import Resident
from runner.node.residents.residents import Residents
from runner.quotas.standing import resume_refusal
from runner.store import quotas, usage
from runner.store.db import Database
from runner.words.errors import RunnerError
from runner.words.execution import JSON
from runner.words.lives import Life

COUNT_S = 30.0
"""How much longer than its quota allows a tenant's sandboxes can run."""

_log = structlog.get_logger("runner.worker")


class UsageSweep:
    """Counts all residents. `count` is a duty, done every `COUNT_S`."""

    def __init__(self, residents: Residents, database: Database) -> None:
        self._residents = residents
        self._database = database

    async def count(self) -> None:
        """Enter a slice of each; pause those of tenants that have used up their day."""
        tenants: defaultdict[UUID, list[Resident]] = defaultdict(list)
        for resident in self._residents:
            if not resident.over:
                tenants[resident.hold.tenant_id].append(resident)
        await for_each(list(tenants.items()), self._count)

    async def _count(self, tenant: tuple[UUID, Sequence[Resident]]) -> None:
        tenant_id, residents = tenant
        readings = await asyncio.gather(*(each.meter.read() for each in residents))
        async with self._database.tenant(tenant_id) as tx:
            for resident, reading in zip(residents, readings, strict=True):
                await usage.count_sandbox(tx, resident.hold, reading)
        running = [each for each in residents if each.life is Life.RUNNING]
        if not running:
            return
        # The day's sums are made when a transaction ends: not in the same one.
        async with self._database.tenant(tenant_id) as tx:
            standing = await quotas.standing(tx)
        if (refused := resume_refusal(standing)) is not None:
            facts: dict[str, JSON] = {"quota": refused.quota, "limit": refused.limit}
            await asyncio.gather(*(_pause(each, facts) for each in running))


async def sample(residents: Residents) -> None:
    """Add what each resident uses now to its series; a duty, done every `SAMPLE_S`."""
    await for_each([each for each in residents if not each.over], _sample)


async def _sample(resident: Resident) -> None:
    resident.series.add(datetime.now(UTC), await resident.metrics())


async def _pause(resident: Resident, facts: dict[str, JSON]) -> None:
    try:
        await resident.pause(facts)
    except RunnerError as error:
        # It has ended, or Docker does not answer: the next sweep sees to it.
        _log.warning("sandbox_not_paused", sandbox=str(resident.hold.sandbox_id), why=error.detail)
