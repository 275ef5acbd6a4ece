"""Cursors: one deliverer at a time, in order, and a batch that was not taken is sent again."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.audit import events as audit
from runner.audit.delivery import Batch
from runner.audit.forward import Forwarder
from runner.store.db import Database
from runner.words.ids import new_id

SINK = "syslog"
Connection = psycopg.Connection[dict[str, Any]]


@pytest.fixture
def superuser(superuser: Connection) -> Connection:
    """Return a connection of a superuser, with no other test's chain left to deliver."""
    superuser.execute(
        "INSERT INTO audit_cursors (tenant_id, sink, seq) SELECT tenant_id, %s, 1000000 "
        "FROM audit_heads ON CONFLICT (tenant_id, sink) DO UPDATE SET seq = 1000000",
        [SINK],
    )
    return superuser


async def grown(worker: Database, tenant: UUID, records: int) -> None:
    """Append records to a tenant's log."""
    for _ in range(records):
        event = audit.AuditEvent("key:a", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
        async with worker.tenant(tenant) as tx:
            audit.append(tx, tenant, event)


async def test_several_workers_deliver_each_chain_in_order_and_one_at_a_time(
    worker: Database, superuser: Connection
) -> None:
    """With eight forwarders, four chains and batches of a hundred, order holds without repeats."""
    tenants = [new_id() for _ in range(4)]
    await asyncio.gather(*(grown(worker, tenant, 150) for tenant in tenants))
    taken: dict[UUID, list[int]] = {tenant: [] for tenant in tenants}
    at_once: dict[UUID, int] = dict.fromkeys(tenants, 0)

    async def deliver(batch: Batch) -> None:
        at_once[batch.tenant] += 1
        assert at_once[batch.tenant] == 1
        await asyncio.sleep(0.01)
        taken[batch.tenant] += [link.seq for link in batch.links]
        at_once[batch.tenant] -= 1

    async def work(forwarder: Forwarder) -> None:
        while await forwarder.deliver_next(SINK):
            pass

    await asyncio.gather(*(work(Forwarder(worker, {SINK: deliver})) for _ in range(8)))
    # A forwarder that found a chain claimed stopped; what was left is delivered now.
    await work(Forwarder(worker, {SINK: deliver}))
    assert taken == {tenant: list(range(1, 151)) for tenant in tenants}


async def test_a_batch_of_a_worker_that_died_is_sent_again_and_its_late_word_is_refused(
    worker: Database, superuser: Connection
) -> None:
    """Nobody takes it while the lease lasts; then it is sent from the cursor on."""
    tenant = new_id()
    await grown(worker, tenant, 3)
    taken: list[tuple[str, int]] = []
    hung = asyncio.Event()

    async def hangs(batch: Batch) -> None:
        taken.append(("first", batch.last))
        hung.set()
        await asyncio.sleep(0.5)

    async def takes(batch: Batch) -> None:
        taken.append(("second", batch.last))

    first = asyncio.create_task(Forwarder(worker, {SINK: hangs}).deliver_next(SINK))
    await hung.wait()
    second = Forwarder(worker, {SINK: takes})
    assert not await second.deliver_next(SINK)
    superuser.execute("UPDATE audit_cursors SET due_at = now() WHERE tenant_id = %s", [tenant])
    await grown(worker, tenant, 2)
    assert await second.deliver_next(SINK)
    await first
    assert taken == [("first", 3), ("second", 5)]
    found = superuser.execute(
        "SELECT seq, failures FROM audit_cursors WHERE tenant_id = %s", [tenant]
    ).fetchone()
    assert found == {"seq": 5, "failures": 0}


async def test_a_failure_waits_longer_each_time(worker: Database, superuser: Connection) -> None:
    """The waits are 1, 2, 4 … 300 seconds; a fault of ours counts as a failure, too."""
    tenant = new_id()
    await grown(worker, tenant, 1)

    async def fails(_: Batch) -> None:
        raise LookupError("a fault of ours")

    for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300):
        superuser.execute("UPDATE audit_cursors SET due_at = now() WHERE tenant_id = %s", [tenant])
        before = now(superuser)
        assert await Forwarder(worker, {SINK: fails}).deliver_next(SINK)
        row = superuser.execute(
            "SELECT due_at, problem FROM audit_cursors WHERE tenant_id = %s", [tenant]
        ).fetchone()
        assert row is not None
        later = timedelta(seconds=wait)
        assert before + later <= row["due_at"] <= now(superuser) + later
        assert row["problem"] == "a fault of ours; the operator's log has it"


def now(superuser: Connection) -> datetime:
    """Return PostgreSQL's time."""
    row = superuser.execute("SELECT clock_timestamp() AS now").fetchone()
    assert row is not None
    found: datetime = row["now"]
    return found


async def test_a_log_with_a_gap_is_not_forwarded_past_it(
    worker: Database, superuser: Connection
) -> None:
    """The missing record was deleted; a receiver must not think that it has everything."""
    tenant = new_id()
    await grown(worker, tenant, 3)
    with superuser.transaction():
        superuser.execute("SET LOCAL session_replication_role = replica")
        superuser.execute("DELETE FROM audit_events WHERE tenant_id = %s AND seq = 1", [tenant])
    taken: list[Batch] = []

    async def takes(batch: Batch) -> None:
        taken.append(batch)

    assert await Forwarder(worker, {SINK: takes}).deliver_next(SINK)
    assert taken == []
