"""Ends the rows of sandboxes that nobody holds any more, because their lease has run out.

A lease may also have run out because PostgreSQL was away and nobody could renew it. Other nodes'
sandboxes then live on, and their nodes get the length of a whole lease to say so.
"""

import time
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

import structlog

from runner.base.duties import for_each
from runner.node.residents.ending import EndRecords
from runner.receipts.sandbox_document import Lived
from runner.store import residents
from runner.store.db import Database
from runner.store.residents import HeldSandbox
from runner.words.lives import EndReason

BATCH = 100

_log = structlog.get_logger("runner.worker")


class SandboxReaper:
    """Ends sandboxes without a valid lease, whichever node they were on."""

    def __init__(
        self, database: Database, ends: EndRecords, *, node: str, lease: timedelta
    ) -> None:
        self._database = database
        self._ends = ends
        self._node = node
        self._lease_s = lease.total_seconds()
        self._answers_since: float | None = None

    def heard(self, *, answers: bool) -> None:
        """Learn whether PostgreSQL answers; called several times in each lease."""
        if not answers:
            self._answers_since = None
        elif self._answers_since is None:
            self._answers_since = time.monotonic()

    async def reap(self, spared: Collection[UUID]) -> None:
        """End rows whose nodes did not come back, or never came, except the spared ones."""
        async with self._database.statements() as tx:
            expired = await residents.expired(tx, BATCH)
        ended = [each for each in expired if each.sandbox_id not in spared and self._is_over(each)]
        await for_each(ended, self._end)

    def _is_over(self, held: HeldSandbox) -> bool:
        """Return whether its node, if any, has had the chance to renew the lease."""
        if held.node is None or held.node == self._node:
            return True
        since = self._answers_since
        return since is not None and time.monotonic() >= since + self._lease_s

    async def _end(self, held: HeldSandbox) -> None:
        reason, detail = EndReason.LOST, f"its node {held.node} did not come back"
        if held.node is None:
            reason, detail = EndReason.START_FAILED, "no node made it live in time"
        async with self._database.tenant(held.tenant_id) as tx:
            times = await residents.end_expired(tx, held.sandbox_id, reason, detail)
            if times is None:
                return
            await self._ends.write(tx, (held.tenant_id, held.sandbox_id), reason, times, Lived())
        _log.warning("sandbox_reaped", sandbox=str(held.sandbox_id), reason=reason.value)
