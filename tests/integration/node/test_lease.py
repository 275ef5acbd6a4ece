"""A lease is given up in time, whatever happens to the connection to PostgreSQL."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from runner.embedded.services import Services
from runner.node.runs.lease import LeaseKeeper
from runner.queue.changes import Changes
from runner.sandbox.guest.sandbox import Sandbox
from runner.store.db import Database
from runner.words.errors import LeaseLost, StoreUnavailable
from tests.integration.store.conftest import Claimed
from tests.support.networks import POSTGRES, Network

pytestmark = pytest.mark.alone

LEASE = timedelta(seconds=3)


@pytest.fixture
async def network() -> Network:
    """Return a network that carries everything."""
    return Network()


@pytest.fixture
async def far_away(
    postgres: Services,
    network: Network,
    tmp_path: Path,
) -> AsyncIterator[Database]:
    """Return a worker's pool, at the other end of the network."""
    real = postgres.postgres.sockets
    async with network.to(real / POSTGRES, tmp_path / POSTGRES):
        url = postgres.worker_url.replace(str(real), str(tmp_path))
        async with Database(SecretStr(url), max_size=2) as database:
            yield database


async def test_a_lease_is_given_up_in_time_when_the_network_stalls(
    postgres: Services,
    far_away: Database,
    network: Network,
    claimed: Claimed,
) -> None:
    """No answer and no reset ever comes; the lease ends by our own clock."""
    claim = await claimed("stalled")
    async with Changes(SecretStr(postgres.redis_url)) as changes:
        asked_at = time.monotonic()
        keeper = LeaseKeeper(
            database=far_away, changes=changes, claim=claim, lease=LEASE, asked_at=asked_at
        )
        network.open.clear()
        with pytest.raises(LeaseLost):
            await keeper.guard(asyncio.sleep(60))
    assert time.monotonic() - asked_at < LEASE.total_seconds() + 0.5


async def test_a_stall_that_ends_before_the_lease_costs_nothing(
    postgres: Services,
    far_away: Database,
    network: Network,
    claimed: Claimed,
) -> None:
    """A renewal that gets no answer is repeated soon, for as long as the lease lasts."""
    claim = await claimed("stalled-briefly")
    async with Changes(SecretStr(postgres.redis_url)) as changes:
        keeper = LeaseKeeper(
            database=far_away,
            changes=changes,
            claim=claim,
            lease=2 * LEASE,
            asked_at=time.monotonic(),
        )
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, network.open.clear)
        loop.call_later(4.4, network.open.set)
        await keeper.guard(asyncio.sleep(1.75 * LEASE.total_seconds()))


class Fenced:
    """The part of a sandbox that concerns its lease."""

    def __init__(self) -> None:
        self.until: float | None = None

    def end_by(self, until: float | None) -> None:
        """Note when it is to be ended."""
        self.until = until


async def test_a_released_sandbox_lives_on_while_the_lease_is_renewed(
    postgres: Services,
    far_away: Database,
    claimed: Claimed,
    superuser: Any,
) -> None:
    """It may serve again; no reaper takes the execution while its result is written."""
    claim = await claimed("released")
    sandbox = Fenced()
    until = "SELECT lease_until FROM executions WHERE execution_id = %s"

    async def work() -> None:
        keeper.fence(cast("Sandbox", sandbox))
        assert sandbox.until is not None
        keeper.release()
        await asyncio.sleep(LEASE.total_seconds() / 2)

    before = superuser.execute(until, [claim.execution_id]).fetchone()
    async with Changes(SecretStr(postgres.redis_url)) as changes:
        keeper = LeaseKeeper(
            database=far_away,
            changes=changes,
            claim=claim,
            lease=LEASE,
            asked_at=time.monotonic(),
        )
        await keeper.guard(work())
    assert superuser.execute(until, [claim.execution_id]).fetchone() != before
    assert sandbox.until is None


async def test_a_statement_that_is_never_answered_fails_by_our_own_bound(
    far_away: Database, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL's own time-out does not reach us; the next connection does."""
    monkeypatch.setattr("runner.store.connection.ANSWER_TIMEOUT_S", 0.5)
    async with far_away.statements() as tx:
        await tx.one("session.ping")
    network.open.clear()
    with pytest.raises(StoreUnavailable):
        async with far_away.statements() as tx:
            await tx.one("session.ping")
    network.open.set()
    async with far_away.statements() as tx:
        assert await tx.one("session.ping")
