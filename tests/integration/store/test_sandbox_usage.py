"""The use of living sandboxes is entered in slices, once, and added to all else."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from runner.quotas.standing import sandbox_refusal
from runner.store import quotas, residents, usage
from runner.store.db import Database
from runner.store.residents import HeldSandbox, SandboxHold
from runner.store.usage import Day, SandboxReading
from runner.words.lives import EndReason, Life
from tests.integration.store.conftest import LEASE, new_tenant
from tests.integration.store.test_living_sandboxes import SPEC, claimed, made, running

MEMORY_GIB = SPEC.resources.memory_mb / 1024


def reading(cpu_s: float | None, up: int = 0, down: int = 0, **ports: int) -> SandboxReading:
    return SandboxReading(cpu_s, up, down, **ports)


async def count(
    worker: Database, hold: SandboxHold, now: SandboxReading, *, ended: bool = False
) -> bool:
    """Enter a slice."""
    async with worker.tenant(hold.tenant_id) as tx:
        return await usage.count_sandbox(tx, hold, now, ended=ended)


async def today(api: Database, tenant: UUID) -> Day:
    """Return what a tenant used today."""
    async with api.tenant(tenant) as tx:
        day = (await quotas.standing(tx)).now.date()
        (found,) = await usage.days(tx, day, day)
    return found


def earlier(superuser: Any, hold: SandboxHold, seconds: float) -> None:
    """Make the last slice this much older."""
    superuser.execute(
        "UPDATE sandboxes SET counted_at = clock_timestamp() - make_interval(secs => %s) "
        "WHERE sandbox_id = %s",
        [seconds, hold.sandbox_id],
    )


def entered(superuser: Any, hold: SandboxHold) -> list[dict[str, Any]]:
    """Return the ledger's rows of a sandbox."""
    rows: list[dict[str, Any]] = superuser.execute(
        "SELECT attempt, outcome, kind, wall_s::float8, cpu_s::float8, cpu_measured, "
        "memory_gib_s::float8, egress_bytes_up, egress_bytes_down, port_bytes_in, port_bytes_out "
        "FROM usage_records WHERE execution_id = %s ORDER BY attempt",
        [hold.sandbox_id],
    ).fetchall()
    return rows


@pytest.fixture
async def hold(
    api: Database, owner: Database, worker: Database, request: pytest.FixtureRequest
) -> SandboxHold:
    """Return a running sandbox of a tenant that only this test uses."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    return await running(api, worker, await new_tenant(owner, name[:60].rstrip("-")))


async def test_a_slice_is_what_the_counters_grew_by(
    hold: SandboxHold, api: Database, worker: Database, superuser: Any
) -> None:
    """A repeated reading adds only time, and no slice counts as an attempt."""
    earlier(superuser, hold, 10)
    assert await count(worker, hold, reading(2.0, 100, 1000, port_bytes_in=7))
    assert await count(worker, hold, reading(2.0, 100, 1000, port_bytes_in=7))
    assert await count(worker, hold, reading(5.5, 130, 1000, port_bytes_in=9, port_bytes_out=2**40))
    first, repeated, third = entered(superuser, hold)
    assert (first["attempt"], first["outcome"], first["kind"]) == (1, "running", "sandbox")
    assert first["wall_s"] == pytest.approx(10, abs=5)
    assert first["memory_gib_s"] == pytest.approx(first["wall_s"] * MEMORY_GIB, abs=1e-5)
    assert [each["cpu_s"] for each in (first, repeated, third)] == [2.0, 0.0, 3.5]
    assert [each["egress_bytes_up"] for each in (first, repeated, third)] == [100, 0, 30]
    assert [each["egress_bytes_down"] for each in (first, repeated, third)] == [1000, 0, 0]
    assert [each["port_bytes_in"] for each in (first, repeated, third)] == [7, 0, 2]
    assert [each["port_bytes_out"] for each in (first, repeated, third)] == [0, 0, 2**40]
    assert repeated["wall_s"] < 5
    day = await today(api, hold.tenant_id)
    assert (day.attempts, day.cpu_s, day.egress_bytes_up) == (0, Decimal("5.5"), 130)
    assert (day.port_bytes_in, day.port_bytes_out) == (9, 2**40)
    assert (day.sandbox_cpu_s, day.sandbox_wall_s) == (day.cpu_s, day.wall_s)
    assert day.sandbox_memory_gib_s == day.memory_gib_s > 0
    async with api.tenant(hold.tenant_id) as tx:
        standing = await quotas.standing(tx)
    assert (standing.cpu_s, standing.egress_bytes) == (5.5, 1130)


async def test_what_a_container_took_before_is_not_its_tenants(
    api: Database, owner: Database, worker: Database, superuser: Any
) -> None:
    tenant = await new_tenant(owner, "before-its-start")
    hold = await claimed(worker, tenant, await made(api, tenant))
    assert not await count(worker, hold, reading(3.0)), "it does not live yet"
    async with worker.tenant(tenant) as tx:
        await residents.start(tx, hold, {}, cpu_s=3.0)
    assert await count(worker, hold, reading(3.5))
    (only,) = entered(superuser, hold)
    assert only["cpu_s"] == 0.5


async def test_paused_it_holds_its_memory_and_nothing_else(
    hold: SandboxHold, worker: Database, superuser: Any
) -> None:
    """This holds even if nobody can read its counter."""
    async with worker.tenant(hold.tenant_id) as tx:
        await residents.change(tx, hold, Life.PAUSING)
        await usage.count_sandbox(tx, hold, reading(1.0))
        await residents.change(tx, hold, Life.PAUSED)
    earlier(superuser, hold, 100)
    await count(worker, hold, reading(None))
    ran, paused = entered(superuser, hold)
    assert (ran["outcome"], paused["outcome"]) == ("running", "paused")
    assert (paused["wall_s"], paused["cpu_s"]) == (0, 0)
    assert paused["memory_gib_s"] == pytest.approx(100 * MEMORY_GIB, abs=1)


async def test_what_nobody_could_read_is_the_most_it_can_be_and_is_not_counted_again(
    hold: SandboxHold, api: Database, worker: Database, superuser: Any
) -> None:
    earlier(superuser, hold, 10)
    await count(worker, hold, reading(None))
    (unread,) = entered(superuser, hold)
    assert unread["cpu_measured"] is False
    assert unread["cpu_s"] == pytest.approx(unread["wall_s"] * SPEC.resources.cpu, abs=1e-5)
    assert unread["cpu_s"] >= 10
    await count(worker, hold, reading(4.0))
    await count(worker, hold, reading(100.0))
    assert (await today(api, hold.tenant_id)).cpu_s == 100


async def test_after_a_restart_it_is_counted_on_from_where_the_row_says(
    hold: SandboxHold, api: Database, worker: Database, superuser: Any
) -> None:
    """Its container and the clock go on; its way out begins anew. The earlier hold counts nothing.

    What the earlier process had not entered is not lost, but for what went through its way out.
    """
    await count(worker, hold, reading(2.0, 500, 500))
    earlier(superuser, hold, 60)
    held = HeldSandbox(hold.tenant_id, hold.sandbox_id, Life.RUNNING, hold.instance)
    async with worker.tenant(hold.tenant_id) as tx:
        assert await residents.take_over(tx, held, node="n1", instance="i2", lease=LEASE)
    assert not await count(worker, hold, reading(9.0, 900, 900))
    assert await count(worker, SandboxHold(hold.tenant_id, hold.sandbox_id, "i2"), reading(3.0, 7))
    first, second = entered(superuser, hold)
    assert (second["cpu_s"], second["egress_bytes_up"], second["egress_bytes_down"]) == (1.0, 7, 0)
    assert second["wall_s"] == pytest.approx(60, abs=10)
    assert (await today(api, hold.tenant_id)).egress_bytes_up == first["egress_bytes_up"] + 7


async def test_the_last_slice_goes_with_the_end_and_none_comes_after(
    hold: SandboxHold, worker: Database, superuser: Any
) -> None:
    async with worker.tenant(hold.tenant_id) as tx:
        assert await usage.count_sandbox(tx, hold, reading(2.0), ended=True)
        await residents.end(tx, hold, EndReason.KILLED, "killed")
    assert not await count(worker, hold, reading(8.0))
    (only,) = entered(superuser, hold)
    assert (only["outcome"], only["cpu_s"]) == ("ended", 2.0)


async def test_a_slice_that_was_not_stored_is_in_the_next_one(
    hold: SandboxHold, worker: Database, superuser: Any
) -> None:
    """Its row and the ledger are written together, or neither is."""

    async def fails() -> None:
        async with worker.tenant(hold.tenant_id) as tx:
            await usage.count_sandbox(tx, hold, reading(2.0, 10))
            raise RuntimeError("the process died")

    with pytest.raises(RuntimeError):
        await fails()
    await count(worker, hold, reading(3.0, 15))
    (only,) = entered(superuser, hold)
    assert (only["cpu_s"], only["egress_bytes_up"]) == (3.0, 15)


async def test_another_tenants_sandbox_is_not_counted(
    hold: SandboxHold, owner: Database, worker: Database, superuser: Any
) -> None:
    stranger = await new_tenant(owner, "counts-for-another")
    assert not await count(worker, SandboxHold(stranger, hold.sandbox_id, "i1"), reading(9.0))
    assert entered(superuser, hold) == []


async def test_what_sandboxes_used_up_is_refused_to_the_next(
    hold: SandboxHold, api: Database, worker: Database
) -> None:
    """The control: before that, one more may live."""

    async def refused() -> str | None:
        async with api.tenant(hold.tenant_id) as tx:
            why = sandbox_refusal(await quotas.standing(tx), memory_mb=64, egress=False)
        return None if why is None else why.quota

    await count(worker, hold, reading(1.0))
    assert await refused() is None
    await count(worker, hold, reading(1e9))
    assert await refused() == "cpu_s_per_day"
