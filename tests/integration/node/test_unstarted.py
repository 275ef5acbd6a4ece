"""An attempt is returned to the queue once, even if PostgreSQL does not confirm it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr

from runner.embedded.services import Services
from runner.node.breaker import Breaker
from runner.node.runs.lease import LeaseKeeper
from runner.node.runs.unstarted import Returns
from runner.queue.changes import Changes
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import StoreUnavailable, Unconfirmed
from tests.integration.store.conftest import Claimed


class Unconfirming:
    """A database whose first commit happens, and is not confirmed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._confirms = False

    @asynccontextmanager
    async def tenant(self, tenant_id: UUID) -> AsyncIterator[Transaction]:
        """Open a transaction."""
        async with self._database.tenant(tenant_id) as tx:
            yield tx
        if not self._confirms:
            self._confirms = True
            raise Unconfirmed("injected")


async def test_an_unconfirmed_give_back_is_no_lost_lease(
    postgres: Services,
    worker: Database,
    claimed: Claimed,
    superuser: Any,
) -> None:
    """It is in the queue again, and nobody is told of a late result."""
    claim = await claimed("given-back")

    async def whole() -> None:
        pass

    async with Changes(SecretStr(postgres.redis_url)) as changes:
        keeper = LeaseKeeper(
            database=worker,
            changes=changes,
            claim=claim,
            lease=timedelta(minutes=1),
            asked_at=0.0,
        )
        keeper.cancel_requested.set()  # So that it is given back without a pause.
        returns = Returns(
            database=cast("Database", Unconfirming(worker)),
            changes=changes,
            breaker=Breaker(whole),
            max_attempts=3,
        )
        assert await returns.give_back(claim, keeper, StoreUnavailable("away")) is None
    row = superuser.execute(
        "SELECT state, given_back FROM executions WHERE execution_id = %s", [claim.execution_id]
    ).fetchone()
    assert row == {"state": "queued", "given_back": 1}
