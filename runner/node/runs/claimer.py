"""Claims executions and runs them, one in each call, until the node drains."""

import asyncio
import time

import structlog

from runner.node.breaker import Breaker
from runner.node.gate import Gate
from runner.node.runs.execute import Executor
from runner.node.runs.interrupted import Interruptions
from runner.node.runs.policy import ExecutionPolicy
from runner.queue.doorbell import Doorbell
from runner.store import scheduling
from runner.store.db import Database
from runner.store.scheduling import Left
from runner.words.errors import QueueUnavailable
from runner.words.states import Reason

AGAIN_S = 0.05
"""How long after it left an execution to another node this node rings for it again. Redis gives a
ring to whoever has waited longest, so after at most one for each node the other one hears it."""
_log = structlog.get_logger("runner.worker")


class Claimer:
    """Claims one execution in each call; many calls may run at the same time."""

    def __init__(
        self,
        *,
        database: Database,
        breaker: Breaker,
        gate: Gate,
        executor: Executor,
        interruptions: Interruptions,
        policy: ExecutionPolicy,
        doorbell: Doorbell,
    ) -> None:
        self._doorbell = doorbell
        self._database = database
        self._breaker = breaker
        self._gate = gate
        self._executor = executor
        self._interruptions = interruptions
        self._policy = policy
        self._draining = asyncio.Event()
        self._running: set[asyncio.Task[bool]] = set()

    @property
    def running(self) -> int:
        """How many executions run now."""
        return len(self._running)

    async def run_next(self) -> bool:
        """Claim the next execution and run it; return whether there may be another."""
        await self._breaker.whole()
        await self._gate.opened()
        if self._draining.is_set():
            return False
        asked_at = time.monotonic()
        claimed = await scheduling.claim(
            self._database,
            node=self._policy.node,
            instance=self._policy.instance,
            lease=self._policy.lease,
        )
        if isinstance(claimed, Left):
            await self._ring_again(claimed)
            return False
        if claimed is None:
            return False
        if self._draining.is_set():
            # `drain` began during the claim, and does not wait for executions that begin now.
            await self._interruptions.break_off(claimed.claim, None, Reason.WORKER_DRAINED)
            return False
        task = asyncio.create_task(self._executor.execute(claimed, asked_at))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task})
        return task.cancelled() or task.result()

    async def _ring_again(self, left: Left) -> None:
        """Give back the ring that came here, and not to the node that the execution is left to.

        Each look gives its own back, as each wakes a slot there. This one's slot waits meanwhile,
        so as many rings as this node has slots go round, and others are that node's to hear.
        """
        await asyncio.sleep(AGAIN_S)
        try:
            await self._doorbell.ring(left.tenant_id, left.execution_id)
        except QueueUnavailable as error:
            # The reconciler rings once Redis is back.
            _log.warning("not_rung", execution=str(left.execution_id), why=error.detail)

    async def drain(self, patience_s: float) -> None:
        """Stop claiming; after `patience_s` seconds, interrupt and settle what still runs."""
        self._draining.set()
        self._breaker.stop()
        self._gate.stop()
        if self._running:
            await asyncio.wait(set(self._running), timeout=patience_s)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
