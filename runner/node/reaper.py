"""The reaper, which keeps every execution moving: it settles dead attempts and rings again."""

from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.duties import for_each
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.settle import Requeue, Settler, of_execution
from runner.queue.changes import Changes, News
from runner.queue.doorbell import Doorbell
from runner.store import executions, scheduling
from runner.store.db import Database
from runner.words.errors import QueueUnavailable
from runner.words.execution import Claim
from runner.words.ids import PLATFORM_TENANT
from runner.words.states import ENDED, Reason, State

BATCH = 100


class Reaper:
    """Three sweeps, each a single pass that may be repeated by any number of workers."""

    def __init__(
        self,
        *,
        database: Database,
        doorbell: Doorbell,
        changes: Changes,
        settler: Settler,
        policy: ExecutionPolicy,
        slots: int,
    ) -> None:
        self._database = database
        self._doorbell = doorbell
        self._changes = changes
        self._settler = settler
        self._policy = policy
        self._slots = slots
        self._inherited = False
        self._log = structlog.get_logger("runner.worker")

    async def inherit(self) -> None:
        """End the leases that earlier worker processes of this node left: they are dead."""
        async with self._database.no_tenant() as tx:
            ended = await scheduling.end_leases_of_node(
                tx, node=self._policy.node, instance=self._policy.instance
            )
        self._log.info("leases_inherited", ended=ended)

    async def reap(self) -> None:
        """Settle every attempt whose lease has run out, at first those of this node's past."""
        if not self._inherited:
            await self.inherit()
            self._inherited = True
        async with self._database.statements() as tx:
            dead = await scheduling.expired(tx, BATCH)
        await for_each(dead, self._settle)

    async def end_suspended(self) -> None:
        """Cancel what suspended tenants have waiting or running, however late it was accepted."""
        async with self._database.statements() as tx:
            found = await scheduling.of_suspended(tx, BATCH)
        await for_each(found, self._cancel)

    async def _cancel(self, found: tuple[UUID, UUID]) -> None:
        tenant_id, execution_id = found
        async with self._database.tenant(tenant_id) as tx:
            state = await executions.cancel(tx, execution_id)
            if state is not None and state not in ENDED:
                audit.append(tx, tenant_id, _cancelled(execution_id, state))
        self._changes.announce(execution_id, News.ENDED)

    async def reconcile(self) -> None:
        """Ring again if something can run now and no ring is on its way."""
        if await self._doorbell.waiting():
            return
        async with self._database.statements() as tx:
            claimable = await scheduling.claimable(tx)
        if claimable:
            self._log.info("rung_again", slots=self._slots)
            for _ in range(self._slots):
                # Whose turn it is says PostgreSQL: the ring names nobody.
                await self._doorbell.ring(PLATFORM_TENANT, PLATFORM_TENANT)

    async def _settle(self, claim: Claim) -> None:
        decision = await self._settler.settle(claim, Reason.WORKER_LOST, only_expired=True)
        if decision is None:
            return
        self._log.warning(
            "attempt_reaped",
            tenant=str(claim.tenant_id),
            execution=str(claim.execution_id),
            attempt=claim.attempt,
            requeued=isinstance(decision, Requeue),
        )
        self._changes.announce(claim.execution_id, News.ENDED)
        if isinstance(decision, Requeue):
            try:
                await self._doorbell.ring(claim.tenant_id, claim.execution_id)
            except QueueUnavailable as error:
                # `reconcile` rings again; the other dead attempts do not wait for Redis.
                self._log.warning("not_rung", why=error.detail)


def _cancelled(execution_id: UUID, state: State) -> audit.AuditEvent:
    facts = {"state": state.value, "why": "the tenant is suspended"}
    return of_execution(execution_id, audit.Action.EXECUTION_CANCEL, facts)
