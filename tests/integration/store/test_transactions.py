"""Statements sent together are still one transaction: all is stored, or nothing."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

from runner.audit import events as audit
from runner.embedded.services import Services
from runner.store import executions, scheduling
from runner.store.connection import Connection
from runner.store.db import Database
from runner.store.transaction import Later
from runner.words.errors import StoreUnavailable, Unconfirmed
from runner.words.ids import new_id
from tests.integration.store.conftest import REQUEST, new_tenant

SUBMITTED = audit.AuditEvent("test", audit.Action.EXECUTION_SUBMIT, audit.Outcome.SUCCESS)
OURS = audit.Filter(actor="test")


async def test_what_was_to_go_along_is_stored_with_the_end(api: Database, owner: Database) -> None:
    """No earlier wait was necessary."""
    tenant, id_ = await new_tenant(owner, "tx-later"), new_id()
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, id_, REQUEST)
        audit.append(tx, tenant, SUBMITTED)
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, id_) is not None
        assert len(await audit.list_after(tx, 0, OURS, 9)) == 1


async def test_what_goes_along_is_seen_by_what_follows(api: Database, owner: Database) -> None:
    """It is seen in the order in which it was given."""
    tenant, id_ = await new_tenant(owner, "tx-order"), new_id()
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, id_, REQUEST)
        assert await executions.get(tx, id_) is not None


async def test_what_fails_after_the_commit_denies_no_change(api: Database, owner: Database) -> None:
    """Whoever asks for its rows hears of it. The connection is as good as before."""
    tenant, id_ = await new_tenant(owner, "tx-behind"), new_id()
    async with api.tenant(tenant) as tx:
        executions.insert_later(tx, id_, REQUEST)
        audit.append(tx, tenant, SUBMITTED)
        told = tx.afterwards("session.ping")
        failing = tx.afterwards("session.bound_statements", milliseconds="many")
    for each in (told, failing):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            await each.one()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, id_) is not None
        assert len(await audit.list_after(tx, 0, OURS, 9)) == 1


@pytest.mark.parametrize("confirmed", [True, False], ids=["after the COMMIT", "before it"])
async def test_a_connection_lost_after_the_commit_denies_no_change(
    api: Database, owner: Database, *, confirmed: bool
) -> None:
    """The control loses it before, and nobody can tell then what is stored."""
    tenant, id_ = await new_tenant(owner, f"tx-lost-{int(confirmed)}"), new_id()
    lost = Later("SELECT pg_terminate_backend(pg_backend_pid())", {})

    async def losing() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, id_, REQUEST)
            (tx._behind if confirmed else tx._ahead).append(lost)

    if confirmed:
        await losing()
        with pytest.raises(psycopg.OperationalError):
            await lost.one()
    else:
        with pytest.raises(Unconfirmed):
            await losing()
    async with api.tenant(tenant) as tx:
        assert (await executions.get(tx, id_) is not None) is confirmed


async def test_what_fails_before_the_commit_is_told_whatever_stands_behind(
    api: Database, owner: Database
) -> None:
    """The control: nothing is stored then, and the end says so."""
    tenant, id_ = await new_tenant(owner, "tx-before"), new_id()

    async def failing() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, id_, REQUEST)
            executions.insert_later(tx, id_, REQUEST)
            tx.afterwards("session.ping")

    with pytest.raises(psycopg.errors.UniqueViolation):
        await failing()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, id_) is None


async def test_a_slot_looks_for_work_if_nobody_can_tell_whether_there_is_some(
    worker: Database, owner: Database
) -> None:
    tenant = await new_tenant(owner, "tx-claimable")
    async with worker.tenant(tenant) as tx:
        claimable = scheduling.claimable_afterwards(tx)
        tx.afterwards("session.bound_statements", milliseconds="many")
    assert await claimable()


@pytest.mark.parametrize("followed", [True, False])
async def test_what_fails_on_the_way_leaves_nothing(
    api: Database, owner: Database, *, followed: bool
) -> None:
    """The statement that carried it raises, or the end does."""
    tenant, id_ = await new_tenant(owner, f"tx-fails-{followed:d}"), new_id()

    async def failing() -> None:
        async with api.tenant(tenant) as tx:
            audit.append(tx, tenant, SUBMITTED)
            executions.insert_later(tx, id_, REQUEST)
            executions.insert_later(tx, id_, REQUEST)
            if followed:
                await executions.get(tx, id_)

    with pytest.raises(psycopg.errors.UniqueViolation):
        await failing()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, id_) is None
        assert not await audit.list_after(tx, 0, OURS, 9)


@pytest.mark.parametrize(
    ("rounds", "told"), [(1, StoreUnavailable), (2, psycopg.errors.ForeignKeyViolation)]
)
async def test_what_fails_only_when_it_is_stored_is_told(
    api: Database, owner: Database, rounds: int, told: type[Exception]
) -> None:
    """A check at the end; in one round trip, without a COMMIT, it costs the connection.

    Many times: the error comes together with the results, or behind them.
    """
    tenant = await new_tenant(owner, f"tx-check-{rounds}")
    key = {
        "key": "k",
        "request_hash": b"h",
        "execution_id": new_id(),
        "sandbox_id": None,
        "object_key": None,
    }

    async def failing() -> None:
        if rounds == 1:
            await api.at_once(tenant, ("idempotency.reserve", key))
        else:
            async with api.tenant(tenant) as tx:
                await tx.run("idempotency.reserve", **key)

    for _ in range(20):
        with pytest.raises(told):
            await failing()
    async with api.tenant(tenant) as tx:
        assert await tx.one("idempotency.find", key="k") is None


async def test_one_round_trip_is_one_transaction(api: Database, owner: Database) -> None:
    """All its statements see one tenant and one transaction; the next one sees neither."""
    tenant = await new_tenant(owner, "tx-implicit")
    (_, rows) = await api.at_once(
        tenant,
        ("audit.append", {"body": audit.body(tenant, SUBMITTED)}),
        ("audit.list", {"after": 0, "limit": 9, **OURS.values()}),
    )
    assert len(rows) == 1
    async with api.no_tenant() as tx:
        assert not await audit.list_after(tx, 0, OURS, 9)


async def test_nothing_follows_the_last(api: Database, owner: Database) -> None:
    """A statement after the end would have no tenant."""
    tenant = await new_tenant(owner, "tx-last")
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, new_id()) is None
    with pytest.raises(RuntimeError, match="has ended"):
        await executions.get(tx, new_id())


async def test_an_exception_undoes_what_was_sent_and_what_was_not(
    api: Database, owner: Database
) -> None:
    """This holds whatever raises it."""
    tenant, sent, unsent = await new_tenant(owner, "tx-undone"), new_id(), new_id()

    async def interrupted() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, sent, REQUEST)
            assert await executions.get(tx, sent) is not None
            executions.insert_later(tx, unsent, REQUEST)
            raise LookupError

    with pytest.raises(LookupError):
        await interrupted()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, sent) is None
        assert await executions.get(tx, unsent) is None


async def test_a_rollback_that_fails_does_not_replace_what_has_failed(
    api: Database, owner: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This matters above all for cancellations; nothing is stored: the connection is closed."""
    tenant, sent = await new_tenant(owner, "tx-rollback"), new_id()

    async def away(_: Connection) -> None:
        raise psycopg.OperationalError

    async def interrupted() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, sent, REQUEST)
            await tx.flush()
            raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "rollback", away)
        with pytest.raises(asyncio.CancelledError):
            await interrupted()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, sent) is None


async def test_records_are_written_last_in_the_order_given(
    api: Database, owner: Database, postgres: Services
) -> None:
    """A transaction that only asked for a record delays nobody; a record with a place is next."""
    tenant = await new_tenant(owner, "tx-records")
    first, second, third = (replace(SUBMITTED, resource_id=each) for each in ("1", "2", "3"))
    async with Database(SecretStr(postgres.api_url), max_size=2) as two, two.tenant(tenant) as tx:
        audit.append(tx, tenant, first)
        assert await executions.get(tx, new_id()) is None
        async with two.tenant(tenant) as other:
            audit.append(other, tenant, replace(SUBMITTED, resource_id="0"))
        audit.append(tx, tenant, second)
        place = await audit.append_now(tx, tenant, third)
    async with api.tenant(tenant) as tx:
        listed = await audit.list_after(tx, 0, OURS, 9)
    assert [json.loads(each.body)["resource_id"] for each in listed] == ["0", "1", "2", "3"]
    assert (place.seq, place.hash) == (listed[-1].seq, listed[-1].hash)


async def test_a_record_that_is_placed_holds_the_chain(
    api: Database, owner: Database, postgres: Services
) -> None:
    """The control: appending at once makes others wait until the end."""
    tenant = await new_tenant(owner, "tx-placed")
    waited = 0.5

    async def other(two: Database) -> None:
        async with two.tenant(tenant) as tx:
            audit.append(tx, tenant, SUBMITTED)

    async with Database(SecretStr(postgres.api_url), max_size=2) as two:
        async with two.tenant(tenant) as tx:
            await audit.append_now(tx, tenant, SUBMITTED)
            task = asyncio.create_task(other(two))
            assert not (await asyncio.wait({task}, timeout=waited))[0]
        await task


@pytest.mark.parametrize("patient", [True, False])
async def test_a_patient_transaction_may_take_longer_than_others(
    api: Database, owner: Database, monkeypatch: pytest.MonkeyPatch, *, patient: bool
) -> None:
    """Deleting a large tenant does. The control is every other statement."""
    tenant = await new_tenant(owner, f"tx-patient-{patient:d}")
    monkeypatch.setattr("runner.store.connection.ANSWER_TIMEOUT_S", 0.3)

    async def slow() -> None:
        async with api.tenant(tenant) as tx:
            if patient:
                tx.patiently(timedelta(seconds=20))
            await tx._execute("SELECT pg_sleep(1)", {})

    if patient:
        await slow()
    else:
        with pytest.raises(StoreUnavailable):
            await slow()
    # The one connection of the pool is as impatient as before.
    with pytest.raises(StoreUnavailable):
        async with api.tenant(tenant) as tx:
            await tx._execute("SELECT pg_sleep(1)", {})


async def test_a_patient_transaction_has_its_bound_too(api: Database, owner: Database) -> None:
    """PostgreSQL itself ends statements that take longer."""
    tenant = await new_tenant(owner, "tx-bound")

    async def slow() -> None:
        async with api.tenant(tenant) as tx:
            tx.patiently(timedelta(milliseconds=200))
            await tx._execute("SELECT pg_sleep(5)", {})

    with pytest.raises(StoreUnavailable, match="QueryCanceled"):
        await slow()


async def test_a_transaction_that_postgresql_gave_up_may_be_tried_again(
    api: Database, owner: Database
) -> None:
    """An operator may bound how long one stands idle. Nothing of it is stored."""
    tenant, id_ = await new_tenant(owner, "tx-idle"), new_id()

    async def too_slow() -> None:
        async with api.tenant(tenant) as tx:
            executions.insert_later(tx, id_, REQUEST)
            await tx.flush()
            await tx._execute("SET LOCAL idle_in_transaction_session_timeout = 50", {})
            await asyncio.sleep(1)
            await executions.get(tx, id_)

    with pytest.raises(StoreUnavailable, match="IdleInTransactionSessionTimeout"):
        await too_slow()
    async with api.tenant(tenant) as tx:
        assert await executions.get(tx, id_) is None


@pytest.mark.parametrize(("way", "at_once"), [("exchange", False), ("pipeline", True)])
async def test_the_statements_of_an_exchange_are_sent_at_its_end(
    postgres: Services, owner: Database, way: str, *, at_once: bool
) -> None:
    """PostgreSQL is woken once for all of them. The control is psycopg's own pipeline."""
    key = 4_711 + at_once

    async def held() -> bool:
        async with owner.no_tenant() as tx:
            cursor = await tx._execute(
                "SELECT count(*) AS n FROM pg_locks WHERE objid = %(key)s", {"key": key}
            )
            row = await cursor.fetchone()
        return row is not None and row["n"] == 1

    async def soon() -> bool:
        for _ in range(20):
            if await held():
                return True
            await asyncio.sleep(0.05)
        return False

    connection = await Connection.connect(postgres.owner_url, autocommit=True, row_factory=dict_row)
    try:
        async with getattr(connection, way)():
            await connection.execute("SELECT pg_advisory_lock(%s)", (key,))
            assert await soon() is at_once
        assert await soon()
    finally:
        await connection.close()


async def test_an_exchange_says_which_statement_failed(postgres: Services) -> None:
    """Also if PostgreSQL answers that one while those behind it are still being sent.

    Many times: that depends on which of the two is faster.
    """
    connection = await Connection.connect(postgres.owner_url, autocommit=True, row_factory=dict_row)

    async def fail() -> None:
        async with connection.exchange():
            await connection.execute("SELECT 1/0")
            for _ in range(300):
                await connection.execute("SELECT length(%s)", ("x" * 100,))

    try:
        for _ in range(20):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await fail()
    finally:
        await connection.close()


@pytest.mark.parametrize(("way", "spoilt"), [("exchange", False), ("pipeline", True)])
async def test_a_failed_exchange_does_not_spoil_its_connection(
    postgres: Services, way: str, *, spoilt: bool
) -> None:
    """A statement behind the failure was about to be prepared. The control is psycopg's pipeline.

    It believes that PostgreSQL has prepared it, and each later use of the connection fails.
    """
    connection = await Connection.connect(postgres.owner_url, autocommit=True, row_factory=dict_row)

    async def both(divisor: int) -> None:
        async with getattr(connection, way)():
            await connection.execute(b"SELECT 1 / %s::integer", (divisor,), prepare=False)
            await connection.execute(b"SELECT 'behind it'")

    try:
        for _ in range(connection.prepare_threshold or 0):
            await both(1)
        with pytest.raises(psycopg.errors.DivisionByZero):
            await both(0)
        for _ in range(2):
            if spoilt:
                with pytest.raises(psycopg.errors.InvalidSqlStatementName):
                    await both(1)
            else:
                await both(1)
    finally:
        await connection.close()
