"""Submitting: an order is stored once, queued, and its end waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.egress.policy import Policy, rule_from_json
from runner.executions.admission import Admission
from runner.executions.order import Offer, Order, resolve
from runner.executions.read import Seen, read
from runner.queue.changes import Changes, News
from runner.queue.doorbell import Doorbell
from runner.quotas.tiers import Standing, Waiting, ceiling, refusal
from runner.store import egress_policies, executions, files, projects, quotas
from runner.store.db import Database
from runner.store.executions import KeyUse
from runner.store.tenants import Tenant
from runner.store.transaction import Transaction
from runner.tenants.policies import ceilings
from runner.words.errors import Conflict, Invalid, NotFound, QueueUnavailable, QuotaExceeded
from runner.words.execution import ExecutionRequest, StoredObject
from runner.words.ids import new_id
from runner.words.resources import Limits
from runner.words.sandbox import Isolation

LOOK_AGAIN_S = 1.0
"""Hints of a change may be lost with Redis: look by ourselves this often."""

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class Once:
    """An idempotency key, and the fingerprint of what is submitted under it.

    `same` tells whether the fingerprint of the key's first use is of the same submission.
    """

    key: str
    fingerprint: bytes
    same: Callable[[bytes], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Submitting:
    """What submitting takes: the parts of the process, and what the deployment has to offer."""

    database: Database
    doorbell: Doorbell
    changes: Changes
    admission: Admission
    sizes: Mapping[str, Limits]
    images: Mapping[str, frozenset[str]]
    isolations: tuple[Isolation, ...]
    egress_ceiling: Policy

    async def submit(
        self, caller: Caller, order: Order, *, once: Once | None = None, wait_s: float = 0.0
    ) -> Seen:
        """Store an order and queue it; return it when it has ended, or `wait_s` is over.

        Ask `doorbell.require` before: without the queue nothing is accepted. Under an idempotency
        key that was used before, the earlier execution is returned. Raises Conflict if that was for
        another submission, Invalid, QuotaExceeded and Overloaded.
        """
        new = new_id()
        waiting = await self.admission.look()
        with self.changes.watch(new, News.ENDED) as watch:
            id_ = await self._accept(caller, order, once, new, waiting)
            deadline = asyncio.get_running_loop().time() + wait_s
            if id_ == new:
                await self._ring(caller, id_)
                # It cannot have ended before a worker heard of it: there is nothing to read yet.
                await watch.wait(min(wait_s, LOOK_AGAIN_S))
            while True:
                seen = await read(self.database, caller, id_)
                left = deadline - asyncio.get_running_loop().time()
                if seen.has_ended or left <= 0:
                    return seen
                await watch.wait(min(left, LOOK_AGAIN_S))

    async def _accept(
        self, caller: Caller, order: Order, once: Once | None, new: UUID, waiting: Waiting
    ) -> UUID:
        """Return the id of the execution: the new one, or that of the key's first use."""
        try:
            used = await self._store(caller, order, once, new, waiting)
        except QuotaExceeded as refused:
            facts = {"quota": refused.quota, "limit": refused.limit, "used": refused.used}
            async with self.database.tenant(caller.tenant_id) as tx:
                caller.record(
                    tx, Action.EXECUTION_SUBMIT, "execution", metadata=facts, outcome=Outcome.DENIED
                )
            raise
        if once is None or used is None:
            return new
        if not await once.same(used.request_hash):
            raise Conflict("this Idempotency-Key was used for another request")
        return used.execution_id

    async def _store(
        self, caller: Caller, order: Order, once: Once | None, new: UUID, waiting: Waiting
    ) -> KeyUse | None:
        """Store the execution; if its idempotency key was used before, return that use instead."""
        async with self.database.tenant(caller.tenant_id) as tx:
            # From here to the end of the transaction, so that the last place is given away once.
            tenant, standing = await quotas.alone(tx)
            if tenant is None:
                raise NotFound("the tenant of this key no longer exists")
            if once is not None and (
                used := await executions.reserve_key(tx, once.key, once.fingerprint, new)
            ):
                return used
            settled = await _in_project(tx, order)
            wanted = resolve(settled, await self._offer(tx, tenant, standing, settled))
            if refused := refusal(standing, egress=bool(wanted.egress)):
                raise refused
            self.admission.require(waiting, standing.queued)
            executions.insert_later(tx, new, _naming(wanted, new))
            for path in sorted(order.keys):
                caller.record(tx, Action.FILE_READ, "file", path, {"execution": str(new)})
            facts = {
                "image": wanted.sandbox.image,
                "size": wanted.size,
                "language": wanted.language,
                "isolation": wanted.sandbox.isolation.value,
            }
            caller.record(tx, Action.EXECUTION_SUBMIT, "execution", str(new), facts)
        return None

    async def _offer(
        self, tx: Transaction, tenant: Tenant, standing: Standing, order: Order
    ) -> Offer:
        policy = order.egress_policy and await egress_policies.get(tx, order.egress_policy)
        return Offer(
            sizes=self.sizes,
            images=self.images,
            isolations=self.isolations,
            max_limits=ceiling(tenant.terms.max_limits, standing.quotas, self.sizes),
            required_isolation=tenant.terms.required_isolation,
            reuse=tenant.terms.reuse,
            egress_ceilings=ceilings(self.egress_ceiling, tenant.terms),
            egress_policy=tuple(map(rule_from_json, policy.rules)) if policy else None,
            stored={
                path: StoredObject(each.object_key, each.size, each.sha256)
                for path, each in (await files.hold(tx, order.keys)).items()
            },
        )

    async def _ring(self, caller: Caller, id_: UUID) -> None:
        try:
            await self.doorbell.ring(caller.tenant_id, id_)
        except QueueUnavailable as error:
            # It is stored, and the worker's reconciler rings again for what waits without a ring.
            _log.warning("ring_lost", execution=str(id_), detail=error.detail)


async def _in_project(tx: Transaction, order: Order) -> Order:
    """Return the order with its project's settings where it says nothing itself."""
    if order.project is None:
        return order
    project = await projects.get(tx, order.project)
    if project is None:
        raise Invalid(f"there is no project {order.project!r}", "project")
    return replace(order, egress_policy=order.egress_policy or project.egress_policy)


def _naming(wanted: ExecutionRequest, id_: UUID) -> ExecutionRequest:
    """Return the request with its id in place of the word for it."""
    if wanted.artifacts_to is None:
        return wanted
    return replace(wanted, artifacts_to=wanted.artifacts_to.replace("{execution_id}", str(id_)))
