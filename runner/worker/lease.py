"""Keeping an attempt ours while it runs, and hearing of a cancellation meanwhile."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from runner.errors import LeaseLost, StoreUnavailable
from runner.models import Claim
from runner.queue.changes import Changes, News
from runner.store import attempts
from runner.store.db import Database

RENEWALS_PER_LEASE = 3
MIN_PAUSE_S = 0.25
"""Between two renewals, however often a cancellation is asked for."""

T = TypeVar("T")
_log = structlog.get_logger("runner.worker")


class LeaseKeeper:
    """Renews one attempt's lease while its work goes on."""

    def __init__(
        self, *, database: Database, changes: Changes, claim: Claim, lease: timedelta
    ) -> None:
        self._database = database
        self._changes = changes
        self._claim = claim
        self._lease = lease
        self._released = asyncio.Event()
        self.cancel_requested = asyncio.Event()

    def release(self) -> None:
        """Renew no more: the result is about to be written, and its own fence decides."""
        self._released.set()

    async def guard(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; cancel it and raise LeaseLost if the lease is lost first."""
        working = asyncio.create_task(work)
        keeping = asyncio.create_task(self._keep())
        released = asyncio.create_task(self._released.wait())
        tasks = (working, keeping, released)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not (working.done() or released.done()):
                working.cancel()
                await asyncio.wait({working})
                await keeping
            return await working
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop()
        safe_until = clock.time() + self._lease.total_seconds()
        # Not its own worker's news: an execution begins and speaks in the time of one renewal.
        wanted = (News.CANCELLING, News.ENDED)
        with self._changes.watch(self._claim.execution_id, *wanted) as watch:
            while True:
                await asyncio.sleep(MIN_PAUSE_S)
                await watch.wait(self._lease.total_seconds() / RENEWALS_PER_LEASE - MIN_PAUSE_S)
                renewing_at = clock.time()
                try:
                    async with self._database.tenant(self._claim.tenant_id) as tx:
                        cancelled = await attempts.renew(tx, self._claim, self._lease)
                    safe_until = renewing_at + self._lease.total_seconds()
                    if cancelled:
                        self.cancel_requested.set()
                except StoreUnavailable as error:
                    # Past the lease another worker may start it: ours has to be dead by then.
                    _log.warning(
                        "lease_not_renewed",
                        execution=str(self._claim.execution_id),
                        error=error.detail,
                    )
                    if clock.time() + self._lease.total_seconds() / RENEWALS_PER_LEASE > safe_until:
                        raise LeaseLost("PostgreSQL was away for as long as the lease") from error
