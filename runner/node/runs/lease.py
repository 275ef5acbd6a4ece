"""Renews the lease of a running attempt, and notices requests to cancel it.

Once the lease is over, another worker may start the execution again. So the sandbox must be dead by
then, whatever PostgreSQL, the network or a busy event loop do: its watchdog knows that time.
"""

import asyncio
import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import structlog

from runner.queue.changes import Changes, News
from runner.sandbox.guest.sandbox import Sandbox
from runner.store import attempts
from runner.store.db import Database
from runner.words.errors import LeaseLost, StoreUnavailable
from runner.words.execution import Claim

RENEWALS_PER_LEASE = 3
MIN_PAUSE_S = 0.25
"""Shortest pause between two renewals, however often somebody asks for a cancellation."""
RETRY_S = 1.0
"""Longest pause between a failed renewal and the next try."""
MAX_MARGIN_S = 3.0
"""At most this long before the lease ends, the sandbox is ended; Docker may need the time."""

T = TypeVar("T")
_log = structlog.get_logger("runner.worker")


class LeaseKeeper:
    """Renews one attempt's lease while its work goes on."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        claim: Claim,
        lease: timedelta,
        asked_at: float,
    ) -> None:
        """`asked_at` is when the claim was requested, on the clock of `time.monotonic`."""
        self._database = database
        self._changes = changes
        self._claim = claim
        self._lease = lease
        self._safe_until = asked_at + lease.total_seconds()
        self._sandbox: Sandbox | None = None
        self._released = asyncio.Event()
        self.cancel_requested = asyncio.Event()

    def fence(self, sandbox: Sandbox) -> None:
        """End what runs in the sandbox before another worker may start it."""
        self._sandbox = sandbox
        sandbox.end_by(self._fence)

    def release(self) -> None:
        """Let the sandbox outlive the lease: it runs nothing more, and its result is being stored.

        The lease is still renewed, so that no reaper ends a program whose result is being written.
        Losing the lease no longer cancels the work: the write names its attempt, and is refused if
        another attempt owns the execution. Work that repeats after this must limit its repetitions.
        Raises LeaseLost if the sandbox was ended because of its lease: then there is no result.
        """
        self._released.set()
        if self._sandbox is not None:
            self._sandbox.end_by(None)

    @property
    def _fence(self) -> float:
        margin = min(MAX_MARGIN_S, self._lease.total_seconds() / RENEWALS_PER_LEASE / 2)
        return self._safe_until - margin

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
        pause = wait = self._lease.total_seconds() / RENEWALS_PER_LEASE
        # Ignore this worker's own news: an execution begins and writes output between two renewals.
        wanted = (News.CANCELLING, News.ENDED)
        with self._changes.watch(self._claim.execution_id, *wanted) as watch:
            while True:
                await asyncio.sleep(min(MIN_PAUSE_S, wait))
                await watch.wait(max(0.0, wait - MIN_PAUSE_S))
                try:
                    await self._renew(pause / 2)
                    wait = pause
                except (StoreUnavailable, TimeoutError) as error:
                    _log.warning(
                        "lease_not_renewed",
                        execution=str(self._claim.execution_id),
                        error=str(error) or "no answer in time",
                    )
                    # A stall may end while the lease still lasts, so ask again soon.
                    wait = min(RETRY_S, pause / 10)
                    if time.monotonic() + wait >= self._fence:
                        # After the lease, another worker may start it, so ours must be dead by
                        # then.
                        raise LeaseLost("PostgreSQL was away for as long as the lease") from error

    async def _renew(self, patience_s: float) -> None:
        asked_at = time.monotonic()
        # A stalled network answers nothing, and the lease does not wait for it.
        async with (
            asyncio.timeout(min(patience_s, self._fence - asked_at)),
            self._database.tenant(self._claim.tenant_id) as tx,
        ):
            cancelled = await attempts.renew(tx, self._claim, self._lease)
        self._safe_until = asked_at + self._lease.total_seconds()
        # A released sandbox may already wait for its tenant, or serve it again.
        if self._sandbox is not None and not self._released.is_set():
            self._sandbox.end_by(self._fence)
        if cancelled:
            self.cancel_requested.set()
