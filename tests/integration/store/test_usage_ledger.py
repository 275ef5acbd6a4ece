"""Quotas hold to the last place, and the ledger only grows."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.embedded.services import Services
from runner.quotas.standing import refusal
from runner.quotas.tiers import overrides
from runner.store import attempts, executions, ledger, quotas, tenants, usage
from runner.store.attempts import Begun
from runner.store.db import Database
from runner.store.executions import StoredArtifact
from runner.store.objects import new_key
from runner.tenants.tenancy import create_key
from runner.words.errors import LeaseLost
from runner.words.execution import Artifact, Claim, EgressUsage, Usage, never_ran
from runner.words.ids import new_id
from runner.words.principal import Role
from runner.words.states import Reason, State
from tests.integration.store.conftest import LIMITS, REQUEST, Claimed, new_tenant

PLACES = 3
ASKING = 12


@pytest.fixture
async def crowd(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the API's role for many at once."""
    async with Database(SecretStr(postgres.api_url), max_size=ASKING) as database:
        yield database


async def allow(owner: Database, tenant: UUID, **own: int) -> None:
    """Give a tenant quotas of its own."""
    async with owner.tenant(tenant) as tx:
        found = await tenants.get(tx)
        assert found is not None
        await tenants.update(tx, replace(found.terms, quotas=overrides(own, {})))


@pytest.mark.parametrize("alone", [True, False])
async def test_the_last_places_are_given_away_once(
    crowd: Database, owner: Database, *, alone: bool
) -> None:
    """Twelve ask for three places at the same moment: three are accepted.

    The control: without waiting for one another, more of them see the same place free.
    """
    tenant = await new_tenant(owner, f"places-{alone}".lower())
    await allow(owner, tenant, queued=PLACES)

    async def submit() -> bool:
        async with crowd.tenant(tenant) as tx:
            if alone:
                _, standing = await quotas.alone_to_run(tx)
            else:
                standing = await quotas.standing_of_runs(tx)
            if refusal(standing, egress=False):
                return False
            await asyncio.sleep(0.05)
            executions.insert_later(tx, new_id(), REQUEST)
            return True

    accepted = sum(await asyncio.gather(*(submit() for _ in range(ASKING))))
    assert accepted == PLACES if alone else accepted > PLACES


async def test_both_readings_of_a_standing_agree(api: Database, owner: Database) -> None:
    """An execution's reads less, and says the same of that."""
    tenant = await new_tenant(owner, "standings")
    await allow(owner, tenant, queued=PLACES, cpu_s_per_day=7)
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, new_id(), REQUEST)
    async with api.tenant(tenant) as tx:
        found, whole = await quotas.alone(tx)
        same, runs = await quotas.alone_to_run(tx)
    assert found == same
    assert (runs.quotas, runs.queued) == (whole.quotas, 1)
    assert runs.figures() == whole.figures()[: len(runs.figures())]
    assert runs.quotas.cpu_s_per_day == 7


STARTED = audit.AuditEvent("test", audit.Action.EXECUTION_START, audit.Outcome.SUCCESS)
Started: TypeAlias = Callable[[str], Awaitable[Claim]]


@pytest.fixture
def started(claimed: Claimed, worker: Database) -> Started:
    """Return a function that starts a new tenant's only execution, whoever is next."""

    async def run(name: str) -> Claim:
        claim = await claimed(name)
        begun = Begun(timedelta(), audit.body(claim.tenant_id, STARTED))
        await attempts.start(worker, claim, timedelta(minutes=1), begun)
        return claim

    return run


ENDED = replace(
    never_ran(State.SUCCEEDED, Reason.COMPLETED, ""),
    usage=Usage(wall_s=4.5, cpu_s=1.25),
    egress=EgressUsage(allowed=1, denied=0, connections=1, bytes_up=30, bytes_down=70),
)


async def test_an_end_is_entered_once_and_summed_up(
    started: Started, api: Database, worker: Database, superuser: Any
) -> None:
    """It enters the result's figures, memory by its limit, and sums; a late end adds none."""
    claim = await started("ledger")
    tenant, id_ = claim.tenant_id, claim.execution_id
    left = StoredArtifact(Artifact("a", 1000, "0" * 64, "text/plain"), new_key(tenant, "artifacts"))
    async with worker.tenant(tenant) as tx:
        await ledger.reserve(tx, left.object_key, 1000)
    async with worker.tenant(tenant) as tx:
        await attempts.finish(tx, claim, ENDED, [left])
    with pytest.raises(LeaseLost):
        async with worker.tenant(tenant) as tx:
            await attempts.finish(tx, claim, ENDED, [left])
    async with api.tenant(tenant) as tx:
        standing = await quotas.standing(tx)
        today = standing.now.date()
        (day,) = await usage.days(tx, today, today)
    assert (standing.cpu_s, standing.egress_bytes, standing.storage_bytes) == (1.25, 100, 1000)
    assert (standing.active, standing.queued) == (0, 0)
    assert (day.attempts, float(day.wall_s), float(day.cpu_s)) == (1, 4.5, 1.25)
    assert float(day.memory_gib_s) == pytest.approx(4.5 * LIMITS.memory_mb / 1024, abs=1e-6)
    with superuser.transaction():
        superuser.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        superuser.execute("DELETE FROM artifacts WHERE execution_id = %s", [id_])
    async with api.tenant(tenant) as tx:
        assert (await quotas.standing(tx)).storage_bytes == 0


async def test_an_attempt_that_is_handed_back_is_entered_with_its_start(
    started: Started, api: Database, worker: Database, superuser: Any
) -> None:
    """It used nothing that is charged, and the next attempt starts afresh."""
    claim = await started("handed-back")
    tenant, id_ = claim.tenant_id, claim.execution_id
    read = "SELECT started_at FROM {} WHERE execution_id = %s"
    (before,) = superuser.execute(read.format("executions"), [id_]).fetchone().values()
    async with worker.tenant(tenant) as tx:
        await attempts.requeue(tx, claim, "drained")
    (recorded,) = superuser.execute(read.format("usage_records"), [id_]).fetchone().values()
    (after,) = superuser.execute(read.format("executions"), [id_]).fetchone().values()
    assert before is not None
    assert recorded == before
    assert after is None
    async with api.tenant(tenant) as tx:
        assert (await quotas.standing(tx)).cpu_s == 0


async def test_cpu_that_could_not_be_read_is_the_most_it_can_have_been(
    started: Started, worker: Database, superuser: Any
) -> None:
    """It is wall-clock time times the limit, and the ledger says that it was not measured."""
    claim = await started("unread")
    unread = replace(ENDED, usage=Usage(wall_s=2.0))
    async with worker.tenant(claim.tenant_id) as tx:
        await attempts.finish(tx, claim, unread)
    row = superuser.execute(
        "SELECT cpu_s::float8, cpu_measured FROM usage_records WHERE execution_id = %s",
        [claim.execution_id],
    ).fetchone()
    assert row == {"cpu_s": 2.0 * LIMITS.cpu, "cpu_measured": False}


async def test_what_is_written_stays_written(postgres: Services, owner: Database) -> None:
    """Nobody can change the ledger, its sums, the counts or the tiers; not even the owner can."""
    tenant = await new_tenant(owner, "written")
    refused = {
        postgres.api_url: [
            "INSERT INTO usage_records (tenant_id) VALUES (app_tenant())",
            "UPDATE usage_days SET cpu_s = 0",
            "UPDATE queues SET served = 0",
            "UPDATE storage_usage SET bytes = 0",
            "UPDATE tiers SET weight = 1000",
            "UPDATE tenants SET quotas = '{}'",
            "UPDATE queue_clock SET served = 0",
        ],
        postgres.worker_url: [
            "UPDATE usage_records SET cpu_s = 0",
            "DELETE FROM usage_records",
            "UPDATE usage_days SET cpu_s = 0",
            "UPDATE queues SET served = 0",
            "UPDATE tiers SET weight = 1000",
            "UPDATE tenants SET tier = 'enterprise'",
        ],
        postgres.owner_url: ["UPDATE usage_records SET cpu_s = 0", "TRUNCATE usage_records"],
        postgres.operator_url: ["DELETE FROM tiers", "DELETE FROM queue_clock"],
    }
    for url, statements in refused.items():
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_a_tenant_sees_its_own_numbers_alone(
    api: Database, owner: Database, postgres: Services
) -> None:
    """It sees no ledger, sums, queue, storage or quotas of others, not even through the view."""
    ours, theirs = await new_tenant(owner, "usage-ours"), await new_tenant(owner, "usage-theirs")
    for tenant in (ours, theirs):
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, new_id(), REQUEST)
    with psycopg.connect(postgres.api_url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(ours)])
        for statement in (b"SELECT tenant_id FROM tenant_quotas", b"SELECT tenant_id FROM queues"):
            assert connection.execute(statement).fetchall() == [(ours,)], statement
        for table in (b"usage_records", b"usage_days", b"storage_usage"):
            assert connection.execute(b"TABLE " + table).fetchall() == [], table


async def test_a_tier_that_is_published_counts_at_once(owner: Database, api: Database) -> None:
    """A tenant's own number replaces the tier's."""
    made = await create_key(
        owner, tenant="published", role=Role.OWNER, name="test", max_limits=LIMITS
    )
    async with api.tenant(made.tenant_id) as tx:
        before = await quotas.standing(tx)
    async with owner.no_tenant() as tx:
        less = replace(before.quotas, queued=7, storage_bytes=11)
        await quotas.publish(tx, {before.tier: less})
    try:
        await allow(owner, made.tenant_id, queued=9)
        async with api.tenant(made.tenant_id) as tx:
            after = (await quotas.standing(tx)).quotas
        assert (after.queued, after.storage_bytes) == (9, 11)
    finally:
        async with owner.no_tenant() as tx:
            await quotas.publish(tx, {before.tier: before.quotas})


async def test_everybody_who_decides_by_a_standing_may_read_it(
    api: Database, worker: Database, owner: Database
) -> None:
    """The API before it accepts something, the worker before it lets a sandbox out."""
    tenant = await new_tenant(owner, "read-by-both")
    for database in (api, worker):
        async with database.tenant(tenant) as tx:
            assert (await quotas.standing(tx)).snapshots_expire_at is None
