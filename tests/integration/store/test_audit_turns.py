"""Verifying long logs takes neither the connections nor the time of other tenants."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.api.turns import Turns
from runner.audit import chain, checkpoints
from runner.audit import events as audit
from runner.audit.events import Filter
from runner.embedded.services import Services
from runner.store.db import Database
from runner.words.errors import Overloaded, StoreUnavailable
from runner.words.ids import new_id

CONNECTIONS = 3
AT_ONCE = 10
Turn: TypeAlias = Callable[[UUID], AbstractAsyncContextManager[None]]


@pytest.fixture
async def pool(postgres: Services) -> AsyncIterator[Database]:
    """Return a small pool of the API's role."""
    async with Database(SecretStr(postgres.api_url), max_size=CONNECTIONS) as database:
        yield database


async def with_a_log(database: Database, records: int = 3) -> UUID:
    """Return a tenant with a log."""
    tenant = new_id()
    event = audit.AuditEvent("key:a", audit.Action.EXECUTION_SUBMIT, audit.Outcome.SUCCESS)
    for _ in range(records):
        async with database.tenant(tenant) as tx:
            audit.append(tx, tenant, event)
    return tenant


async def another_tenant_reads(
    pool: Database,
    worker: Database,
    superuser: "psycopg.Connection[Any]",
    turn: Turn,
    *,
    under_way: int,
) -> int:
    """Return what another tenant reads while one has its log verified many times at once.

    Verification is stopped where it reads the receipts, so that all that began stays under way.
    """
    waiting = "SELECT 1 FROM pg_locks WHERE relation = 'receipts'::regclass AND NOT granted"
    loud, other = await with_a_log(worker), await with_a_log(worker)

    async def verify() -> checkpoints.Checked:
        async with turn(loud):
            return await checkpoints.verify_log(pool, loud, ())

    with superuser.transaction():
        superuser.execute("LOCK TABLE receipts IN ACCESS EXCLUSIVE MODE")
        verifying = [asyncio.create_task(verify()) for _ in range(AT_ONCE)]
        async with asyncio.timeout(60):
            while superuser.execute(waiting).rowcount < under_way:  # noqa: ASYNC110 - tells nobody
                await asyncio.sleep(0.02)
        try:
            async with pool.tenant(other) as tx:
                seen = len(await audit.list_after(tx, 0, Filter(), 100))
        except StoreUnavailable:
            await asyncio.gather(*(_ended(each) for each in verifying))
            raise
    found = await asyncio.gather(*verifying)
    assert all(each.verdict.fault is None for each in found)
    return seen


async def _ended(task: "asyncio.Task[object]") -> None:
    task.cancel()
    await asyncio.wait({task})


async def test_one_tenant_that_verifies_much_leaves_connections_to_the_others(
    pool: Database, worker: Database, superuser: "psycopg.Connection[Any]"
) -> None:
    turns = Turns("verifying", most=2, within_s=60)
    reads = another_tenant_reads(pool, worker, superuser, turns.turn, under_way=1)
    assert await reads == 3


async def test_without_turns_it_takes_them_all(
    pool: Database, worker: Database, superuser: "psycopg.Connection[Any]"
) -> None:
    """The control."""
    with pytest.raises(StoreUnavailable, match="PoolTimeout"):
        await another_tenant_reads(
            pool, worker, superuser, lambda _: nullcontext(), under_way=CONNECTIONS
        )


async def test_a_connection_is_given_back_between_the_pages_of_a_log(
    api: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool of one connection serves another request while a log is being verified."""
    monkeypatch.setattr(chain, "PAGE", 1)
    tenant = await with_a_log(worker, 30)
    order = []

    async def verify() -> None:
        assert (await chain.verify(api, tenant)).records == 30
        order.append("verified")

    async def read() -> None:
        async with api.tenant(tenant) as tx:
            await audit.list_after(tx, 0, Filter(), 1)
        order.append("read")

    await asyncio.gather(verify(), read())
    assert order == ["read", "verified"]


async def test_places_are_shared_by_tenants_and_waiting_for_one_has_an_end() -> None:
    """A tenant has one turn, however often it asks; a wait that is too long is refused."""
    turns = Turns("verifying", most=2, within_s=0.1)
    first, second, third = new_id(), new_id(), new_id()
    async with turns.turn(first):
        with pytest.raises(Overloaded, match=r"got none within 0\.1 s"):
            async with turns.turn(first):
                pass
        async with turns.turn(second):
            with pytest.raises(Overloaded) as refused:
                async with turns.turn(third):
                    pass
        async with turns.turn(third):
            pass
    assert refused.value.retry_after_s == 10
    async with turns.turn(first):
        pass
