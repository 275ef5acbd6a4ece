"""Forwarding: every chain to every sink, in order, at least once.

The database stores how far each sink has got. A worker claims a batch until its lease ends, and
moves the cursor only after the sink has taken the batch. If a worker dies in between, the batch is
sent again, never lost. If a sink fails, the worker tries again for ever, after longer and longer
pauses.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from runner.audit.chain import Link
from runner.audit.delivery import MAX_RECORDS, Batch, Deliver, Undelivered
from runner.store.db import Database
from runner.words.errors import RunnerError

IDLE_S = 1.0
DELIVERY_S = 25.0
LEASE = timedelta(seconds=45)
"""Longer than a delivery may take, with some time for the database."""
SLOWEST = timedelta(minutes=5)
TENANTS_AT_ONCE = 4
TENANT = "tenant"
"""The sink that each tenant has of its own; every other one is the deployment's."""

NEWEST = 2**63 - 1
"""Above every record's number: send all there are."""
_log = structlog.get_logger("runner.audit")


@dataclass(frozen=True, slots=True)
class Claimed:
    """A tenant's cursor at a sink, for this worker alone until its lease ends."""

    tenant_id: UUID
    seq: int
    failures: int
    claim: UUID


class Forwarder:
    """Delivers to each sink for ever: one batch at a time, or a few at once to tenants' sinks."""

    def __init__(self, database: Database, sinks: Mapping[str, Deliver]) -> None:
        self._database = database
        self._sinks = sinks

    def lines(self) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
        """Yield work to repeat for ever, with the name of the sink that it serves."""
        for sink in self._sinks:
            for _ in range(TENANTS_AT_ONCE if sink == TENANT else 1):
                yield sink, partial(self._deliver_all, sink)

    async def _deliver_all(self, sink: str) -> None:
        while await self.deliver_next(sink):
            pass

    async def deliver_next(self, sink: str) -> bool:
        """Deliver one batch; return whether there was one. Raises NotReady."""
        async with self._database.statements() as tx:
            row = await tx.one("audit.claim_delivery", sink=sink, lease=LEASE)
        if row is None:
            return False
        claimed = Claimed(**row)
        async with self._database.tenant(claimed.tenant_id) as tx:
            rows = await tx.all("audit.chain", after=claimed.seq, last=NEWEST, limit=MAX_RECORDS)
        batch = Batch(claimed.tenant_id, tuple(Link(**row) for row in rows))
        try:
            await self._deliver(sink, batch, after=claimed.seq)
        except Undelivered as error:
            await self._failed(sink, claimed, error)
        else:
            await self._settle("audit.delivered", sink, claimed, seq=batch.last)
        return True

    async def _deliver(self, sink: str, batch: Batch, *, after: int) -> None:
        if not batch.links or batch.first != after + 1:
            raise Undelivered("the log is not whole", f"record {after + 1} is missing")
        try:
            async with asyncio.timeout(DELIVERY_S):
                await self._sinks[sink](batch)
        except TimeoutError:
            raise Undelivered("it did not answer in time") from None
        except Undelivered:
            raise
        except RunnerError as error:
            raise Undelivered("we could not prepare the delivery", error.detail) from error
        except Exception as error:
            # A batch that meets a fault of ours must not hold up other tenants' batches.
            _log.exception("delivery_fault", sink=sink, tenant=str(batch.tenant))
            raise Undelivered("a fault of ours; the operator's log has it") from error

    async def _failed(self, sink: str, claimed: Claimed, error: Undelivered) -> None:
        wait = min(timedelta(seconds=2 ** min(claimed.failures, 16)), SLOWEST)
        _log.warning(
            "delivery_failed",
            sink=sink,
            tenant=str(claimed.tenant_id),
            after=claimed.seq,
            failures=claimed.failures + 1,
            retry_s=wait.total_seconds(),
            why=error.detail,
        )
        await self._settle("audit.undelivered", sink, claimed, wait=wait, problem=error.problem)

    async def _settle(self, query: str, sink: str, claimed: Claimed, **values: Any) -> None:
        async with self._database.tenant(claimed.tenant_id) as tx:
            if not await tx.run(query, sink=sink, claim=claimed.claim, **values):
                _log.info("delivery_overtaken", sink=sink, tenant=str(claimed.tenant_id))
