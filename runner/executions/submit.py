"""Submits an order: stores it once, queues it, and waits for its end."""

import asyncio
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.executions.admission import Admission
from runner.executions.notices import EndNotices
from runner.executions.order import Offer, Order, resolve
from runner.executions.read import Seen, read
from runner.queue.changes import Changes, News, Watch
from runner.queue.doorbell import Doorbell
from runner.quotas.standing import RunStanding, refusal
from runner.quotas.waiting import Waiting
from runner.sandboxes.catalogue import Catalogue, policy_in
from runner.store import executions, files, quotas
from runner.store.db import Database
from runner.store.idempotency import KeyUse, Once
from runner.store.tenants import Tenant
from runner.store.transaction import Transaction
from runner.words.errors import NotFound, QueueUnavailable, QuotaExceeded
from runner.words.execution import ExecutionRequest, StoredObject
from runner.words.ids import new_id

LOOK_AGAIN_S = 1.0
"""Announcements may be lost with Redis, so read PostgreSQL at least this often."""

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class Submitting:
    """The parts of the process that submitting needs, and what the deployment offers."""

    database: Database
    doorbell: Doorbell
    changes: Changes
    admission: Admission
    catalogue: Catalogue
    notices: EndNotices

    async def submit(
        self, caller: Caller, order: Order, *, once: Once | None = None, wait_s: float = 0.0
    ) -> Seen:
        """Store an order and queue it; return the execution once it has ended or `wait_s` is over.

        Call `doorbell.require` first: without the queue, nothing is accepted. If the idempotency
        key was used before, this returns the earlier execution. Raises Conflict if that was another
        submission, Invalid, QuotaExceeded and Overloaded.
        """
        new = new_id()
        waiting = await self.admission.look()
        with self.changes.watch(new, News.ENDED) as watch:
            id_, wanted = await self._accept(caller, order, once, new, waiting)
            deadline = asyncio.get_running_loop().time() + wait_s
            if id_ == new:
                await self._ring(caller, id_)
                # It cannot have ended before a worker heard of it, so do not read it yet.
                await watch.wait(min(wait_s, LOOK_AGAIN_S))
            while True:
                seen = self._noticed(caller, id_, wanted, watch) if wanted else None
                seen = seen or await read(self.database, caller, id_)
                left = deadline - asyncio.get_running_loop().time()
                if seen.has_ended or left <= 0:
                    return seen
                await watch.wait(min(left, LOOK_AGAIN_S))

    async def _accept(
        self, caller: Caller, order: Order, once: Once | None, new: UUID, waiting: Waiting
    ) -> tuple[UUID, ExecutionRequest | None]:
        """Return the new execution's id and request, or the id for which the key was used first."""
        try:
            stored = await self._store(caller, order, once, new, waiting)
        except QuotaExceeded as refused:
            facts = {"quota": refused.quota, "limit": refused.limit, "used": refused.used}
            async with self.database.tenant(caller.tenant_id) as tx:
                caller.record(
                    tx, Action.EXECUTION_SUBMIT, "execution", metadata=facts, outcome=Outcome.DENIED
                )
            raise
        if isinstance(stored, ExecutionRequest):
            return new, stored
        if once is None:
            raise RuntimeError("an idempotency key was used before, but none was given")
        return await once.require_same(stored, stored.execution_id), None

    def _noticed(
        self, caller: Caller, id_: UUID, request: ExecutionRequest, watch: Watch
    ) -> Seen | None:
        """Return the ended execution as its worker tells it, or None: then read it."""
        if watch.notice is None:
            return None
        notice = self.notices.opened(caller.tenant_id, id_, watch.notice)
        return notice.seen(caller.tenant_id, id_, request) if notice else None

    async def _store(
        self, caller: Caller, order: Order, once: Once | None, new: UUID, waiting: Waiting
    ) -> KeyUse | ExecutionRequest:
        """Store the execution and return it; if its idempotency key was used before, that use."""
        async with self.database.tenant(caller.tenant_id) as tx:
            # Lock the quotas until the transaction ends, so that the last place is given away once.
            tenant, standing = await quotas.alone_to_run(tx)
            if tenant is None:
                raise NotFound("the tenant of this key no longer exists")
            if once is not None and (used := await once.reserve(tx, execution_id=new)):
                return used
            policy = await policy_in(tx, order.project, order.egress_policy)
            settled = replace(order, egress_policy=policy)
            wanted = resolve(settled, await self._offer(tx, tenant, standing, settled))
            if refused := refusal(standing, egress=bool(wanted.egress)):
                raise refused
            self.admission.require(waiting, standing.queued)
            wanted = _naming(wanted, new)
            executions.insert_later(tx, new, wanted, caller.trace)
            for path in sorted(order.keys):
                caller.record(tx, Action.FILE_READ, "file", path, {"execution": str(new)})
            facts = {
                "image": wanted.sandbox.image,
                "size": wanted.size,
                "language": wanted.language,
                "isolation": wanted.sandbox.isolation.value,
            }
            caller.record(tx, Action.EXECUTION_SUBMIT, "execution", str(new), facts)
        return wanted

    async def _offer(
        self, tx: Transaction, tenant: Tenant, standing: RunStanding, order: Order
    ) -> Offer:
        return Offer(
            await self.catalogue.offer(tx, tenant, standing, order.egress_policy, order.image),
            reuse=tenant.terms.reuse,
            stored={
                path: StoredObject(each.object_key, each.size, each.sha256)
                for path, each in (await files.hold(tx, order.keys)).items()
            },
        )

    async def _ring(self, caller: Caller, id_: UUID) -> None:
        try:
            await self.doorbell.ring(caller.tenant_id, id_)
        except QueueUnavailable as error:
            # It is stored, and the worker's reconciler rings again for executions without a ring.
            _log.warning("ring_lost", execution=str(id_), detail=error.detail)


def _naming(wanted: ExecutionRequest, id_: UUID) -> ExecutionRequest:
    """Return the request with its id in place of the placeholder for it."""
    if wanted.artifacts_to is None:
        return wanted
    return replace(wanted, artifacts_to=wanted.artifacts_to.replace("{execution_id}", str(id_)))
