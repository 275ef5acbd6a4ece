"""The audit log: append-only, and every change, deletion, insertion and reordering is found."""

import asyncio
from uuid import UUID

import psycopg
import pytest

from runner.audit import chain
from runner.audit import events as audit
from runner.embedded.services import Services
from runner.store.db import Database
from tests.integration.store.conftest import new_tenant


def event(number: int) -> audit.AuditEvent:
    """Return an audit event."""
    return audit.AuditEvent(
        actor="key:test",
        action=audit.Action.EXECUTION_SUBMIT,
        outcome=audit.Outcome.SUCCESS,
        resource_type="execution",
        resource_id=str(number),
        metadata={"number": number, "text": "ünïcode ☃"},
    )


async def logged(owner: Database, api: Database, name: str, records: int = 5) -> UUID:
    """Make a tenant with a log; making it logs two records of its own."""
    tenant = await new_tenant(owner, name)
    for number in range(records):
        async with api.tenant(tenant) as tx:
            audit.append(tx, tenant, event(number))
    return tenant


async def verdict(api: Database, tenant: UUID) -> chain.ChainCheck:
    """Verify a tenant's log."""
    return await chain.verify(api, tenant)


async def test_an_untouched_log_is_whole(owner: Database, api: Database) -> None:
    """All records hold."""
    tenant = await logged(owner, api, "whole")
    found = await verdict(api, tenant)
    assert (found.records, found.fault) == (7, None)


TAMPERINGS = {
    "a changed record": (
        "UPDATE audit_events SET body = replace(body, '\"number\":2', '\"number\":9') "
        "WHERE tenant_id = %(t)s AND seq = 5",
        5,
    ),
    "a changed record with its hash made anew": (
        "UPDATE audit_events SET body = b, hash = "
        "sha256(previous_hash || int8send(seq) || convert_to(b, 'UTF8')) FROM "
        "(SELECT replace(body, '\"number\":2', '\"number\":9') AS b FROM audit_events "
        " WHERE tenant_id = %(t)s AND seq = 5) x WHERE tenant_id = %(t)s AND seq = 5",
        6,
    ),
    "a deleted record": ("DELETE FROM audit_events WHERE tenant_id = %(t)s AND seq = 4", 4),
    "a cut tail": ("DELETE FROM audit_events WHERE tenant_id = %(t)s AND seq > 5", 6),
    "an emptied log": ("DELETE FROM audit_events WHERE tenant_id = %(t)s", 1),
    "two records swapped": (
        "UPDATE audit_events SET seq = CASE seq WHEN 4 THEN -5 WHEN 5 THEN -4 END "
        "WHERE tenant_id = %(t)s AND seq IN (4, 5); "
        "UPDATE audit_events SET seq = -seq WHERE tenant_id = %(t)s AND seq < 0",
        4,
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_is_found_at_its_place(
    name: str, owner: Database, api: Database, postgres: Services
) -> None:
    """A superuser first disables the trigger; nobody else gets that far."""
    statement, seq = TAMPERINGS[name]
    tenant = await logged(owner, api, f"tampered-{sorted(TAMPERINGS).index(name)}")
    with psycopg.connect(
        postgres.postgres.url("postgres", "runner"), autocommit=True
    ) as connection:
        connection.execute("SET session_replication_role = replica")
        for part in statement.split(";"):
            assert connection.execute(part.encode(), {"t": tenant}).rowcount > 0
    found = await verdict(api, tenant)
    assert found.fault is not None
    assert found.fault.seq == seq


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_events SET body = body", "DELETE FROM audit_events", "TRUNCATE audit_events"],
)
async def test_the_database_refuses_to_change_the_log(
    statement: str, owner: Database, api: Database, postgres: Services
) -> None:
    """It refuses our processes, the schema's owner, and even a plain superuser."""
    await logged(owner, api, "append-only")
    urls = (
        postgres.api_url,
        postgres.worker_url,
        postgres.owner_url,
        postgres.postgres.url("postgres", "runner"),
    )
    for url in urls:
        with (
            psycopg.connect(url, autocommit=True) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())


async def test_concurrent_writers_do_not_fork_the_chain(
    owner: Database, worker: Database, api: Database
) -> None:
    """Eighty appends from twenty tasks are numbered without a gap, and the chain is whole."""
    tenant = await new_tenant(owner, "concurrent")

    async def write(first: int) -> None:
        for number in range(4):
            async with worker.tenant(tenant) as tx:
                audit.append(tx, tenant, event(first + number))

    await asyncio.gather(*(write(4 * n) for n in range(20)))
    found = await verdict(api, tenant)
    assert (found.records, found.fault) == (82, None)


async def test_a_record_of_another_tenant_is_refused(
    owner: Database, api: Database, postgres: Services
) -> None:
    """The body's tenant is the row's."""
    ours, theirs = await new_tenant(owner, "said"), await new_tenant(owner, "meant")
    with pytest.raises(psycopg.errors.CheckViolation):
        async with api.tenant(ours) as tx:
            audit.append(tx, theirs, event(1))


async def test_an_event_rolls_back_with_what_it_tells_of(owner: Database, api: Database) -> None:
    """It is one transaction: there is no record of what did not happen, and no gap."""
    tenant = await logged(owner, api, "rolled-back")

    async def fail() -> None:
        async with api.tenant(tenant) as tx:
            audit.append(tx, tenant, event(99))
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with api.tenant(tenant) as tx:
        audit.append(tx, tenant, event(100))
    found = await verdict(api, tenant)
    assert (found.records, found.fault) == (8, None)
