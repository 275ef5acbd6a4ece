"""Wherever a user of a shared connection is cancelled, the connection is left in a known state.

A client that resets its connection cancels the code that serves it, and a lost lease cancels an
execution.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr
from redis.asyncio.connection import AbstractConnection

from runner.api.edge.ratelimit import RateLimiter
from runner.audit import events as audit
from runner.auth.throttle import Throttle
from runner.base.rates import Rate
from runner.embedded.services import Services
from runner.store import executions
from runner.store.connection import Connection
from runner.store.db import Database
from runner.words.errors import RunnerError, TooManyAttempts
from runner.words.ids import new_id
from tests.integration.store.conftest import REQUEST, SUBMITTED, new_tenant
from tests.support.interruption import AGAIN, cancelled_everywhere

PATIENCE_S = 5.0
Use = Callable[[Database, UUID], Coroutine[Any, Any, None]]


@pytest.fixture
async def tenant(owner: Database) -> UUID:
    """Return a new tenant's id."""
    return await new_tenant(owner, f"interrupted-{new_id()}")


@pytest.fixture
async def database(postgres: Services, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Return a pool of one connection: each user gets it as the one before left it.

    It behaves as in a busy loop, in which psycopg also awaits before it sends.
    """
    monkeypatch.setattr(psycopg.waiting, "MAX_BUSY_TIME", 0)
    async with Database(SecretStr(postgres.api_url), max_size=1) as made:
        yield made


async def _write(database: Database, tenant: UUID) -> None:
    """Write an execution and its record; several statements travel together."""
    async with database.tenant(tenant) as tx:
        executions.insert_later(tx, new_id(), REQUEST)
        audit.append(tx, tenant, SUBMITTED)


async def _write_after_reading(database: Database, tenant: UUID) -> None:
    """Read first, so that BEGIN and COMMIT are round trips of their own."""
    async with database.tenant(tenant) as tx:
        await executions.get(tx, new_id())
        await _refused(tx)


async def _refused(tx: Any) -> None:
    await executions.get(tx, new_id())
    raise LookupError("the caller asks for what is not there")


async def _read_in_one_round_trip(database: Database, tenant: UUID) -> None:
    await executions.whole(database, tenant, new_id())


async def _read_a_snapshot(database: Database, tenant: UUID) -> None:
    async with database.tenant(tenant, snapshot=True) as tx:
        await executions.get(tx, new_id())
        await executions.events_after(tx, new_id(), 0, 10)


async def _single_statements(database: Database, tenant: UUID) -> None:
    async with database.statements() as tx:
        await tx.one("session.ping")
        await tx.one("session.ping")


async def _write_and_ask_afterwards(database: Database, tenant: UUID) -> None:
    """Write an execution, and ask in the same round trip for what was stored with it."""
    async with database.tenant(tenant) as tx:
        executions.insert_later(tx, new_id(), REQUEST)
        asked = tx.afterwards("session.ping")
    assert await asked.one() == {"?column?": 1}


async def _one_exchange(database: Database, tenant: UUID) -> None:
    """Read in a transaction that needs no BEGIN and COMMIT."""
    async with database.single(tenant) as tx:
        assert await executions.get(tx, new_id()) is None


USES: list[Use] = [
    _write,
    _write_after_reading,
    _read_in_one_round_trip,
    _read_a_snapshot,
    _single_statements,
    _write_and_ask_afterwards,
    _one_exchange,
]


async def _whole(database: Database, tenant: UUID) -> None:
    """Check that a request of no tenant and one of a tenant get the right answers."""
    async with asyncio.timeout(PATIENCE_S):
        async with database.no_tenant() as tx:
            assert await tx.one("session.ping") == {"?column?": 1}
            assert not await audit.list_after(tx, 0, audit.Filter(), 9)
        async with database.tenant(tenant) as tx:
            assert await executions.get(tx, new_id()) is None


async def _everywhere(database: Database, tenant: UUID, use: Use, again: str) -> int:
    async def work() -> None:
        with contextlib.suppress(LookupError):
            await use(database, tenant)

    return await cancelled_everywhere(work, lambda: _whole(database, tenant), AGAIN[again])


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__.strip("_"))
async def test_the_next_user_of_a_connection_is_served_whenever_the_last_was_cancelled(
    database: Database, tenant: UUID, use: Use, again: str
) -> None:
    """The pool has one connection, so the next request gets it as the cancelled one left it."""
    assert await _everywhere(database, tenant, use, again) > 0


async def test_cut_short_psycopg_s_way_the_connection_answers_the_next_user_wrongly(
    database: Database, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: after a pipeline that was half sent, the next user's statements fail."""
    monkeypatch.setattr(Connection, "wait", psycopg.AsyncConnection.wait)
    monkeypatch.setattr(Connection, "close_unless_known", lambda _: None)
    monkeypatch.setattr(Connection, "exchange", psycopg.AsyncConnection.pipeline)

    async def until_it_is_wrong() -> None:
        # Chance decides whether PostgreSQL's answer or its cancellation comes first.
        while True:
            for use in USES:
                await _everywhere(database, tenant, use, "again 10 later")

    async with asyncio.timeout(120):
        with pytest.raises((psycopg.Error, RunnerError, RuntimeError)):
            await until_it_is_wrong()


async def test_what_was_cancelled_is_stored_whole_or_not_at_all(
    superuser: "psycopg.Connection[Any]", database: Database, tenant: UUID
) -> None:
    """There are as many records as executions, whichever round trip was the last."""
    await _everywhere(database, tenant, _write, "at each await")
    counts = superuser.execute(
        "SELECT (SELECT count(*) FROM executions WHERE tenant_id = %(tenant)s) AS executions, "
        "(SELECT count(*) FROM audit_events WHERE tenant_id = %(tenant)s AND action = %(action)s) "
        "AS records",
        {"tenant": tenant, "action": SUBMITTED.action.value},
    ).fetchone()
    assert counts is not None and counts["executions"] == counts["records"] > 0


async def _rates_everywhere(limiter: RateLimiter, again: str) -> None:
    rate = Rate(per_minute=1000, burst=1000)

    async def whole() -> None:
        async with asyncio.timeout(PATIENCE_S):
            first, other, second = [
                await limiter.hit(rate, "whole", again),
                await limiter.look(rate, "never asked", again),
                await limiter.hit(rate, "whole", again),
            ]
        assert other.tightest.remaining == 1000
        assert first.tightest.remaining - second.tightest.remaining == 1

    await cancelled_everywhere(lambda: limiter.hit(rate, "cut", again), whole, AGAIN[again])


@pytest.mark.parametrize("again", AGAIN)
async def test_a_rate_is_counted_rightly_whenever_the_last_request_was_cancelled(
    postgres: Services, again: str
) -> None:
    """Nobody gets the answer to another's request, and no connection stays occupied."""
    async with RateLimiter(SecretStr(postgres.redis_url)) as limiter:
        await _rates_everywhere(limiter, again)
        assert not limiter._pool._in_use_connections


async def test_a_connection_to_redis_that_stays_open_answers_the_next_user_wrongly(
    postgres: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the next request reads the answer for which the cancelled one did not wait."""

    async def stay(*_: object, **__: object) -> None:
        pass

    async with RateLimiter(SecretStr(postgres.redis_url)) as limiter:
        await limiter.look(Rate(per_minute=1, burst=1), "warm")

        async def until_it_is_wrong() -> None:
            # Chance decides whether Redis' answer comes before the cancellation.
            while True:
                await _rates_everywhere(limiter, "once")

        with monkeypatch.context() as patched:
            patched.setattr(AbstractConnection, "disconnect", stay)
            async with asyncio.timeout(60):
                with pytest.raises((AssertionError, RunnerError)):
                    await until_it_is_wrong()


@pytest.mark.parametrize("again", AGAIN)
async def test_a_login_is_counted_rightly_whenever_the_last_one_was_cancelled(
    postgres: Services, again: str
) -> None:
    """The test cancels more logins than there are connections; the next one is still counted."""
    async with Throttle(SecretStr(postgres.redis_url)) as throttle:

        async def whole() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await throttle.to_be_told("192.0.2.1")

        numbers = iter(range(10_000))

        with contextlib.suppress(TooManyAttempts):
            await cancelled_everywhere(
                lambda: throttle.attempt("192.0.2.2", f"{again}-{next(numbers)}"),
                whole,
                AGAIN[again],
            )
        assert not throttle._pool._in_use_connections
