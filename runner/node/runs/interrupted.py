"""Settles interrupted attempts: the worker drains or failed, or the attempt is no longer ours."""

import asyncio

import structlog

from runner.audit import events as audit
from runner.node.runs.attempt import Attempt
from runner.node.runs.finish import Finisher
from runner.node.runs.output import cut_off
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.settle import UNKNOWN, Settler, late
from runner.queue.changes import Changes, News
from runner.store.db import Database
from runner.words.errors import NotReady
from runner.words.execution import Claim
from runner.words.states import Reason

_log = structlog.get_logger("runner.worker")


class Interruptions:
    """Settles attempts that were interrupted, by this process if it can."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        finisher: Finisher,
        settler: Settler,
        policy: ExecutionPolicy,
    ) -> None:
        self._database = database
        self._changes = changes
        self._finisher = finisher
        self._settler = settler
        self._policy = policy

    async def break_off(self, claim: Claim, attempt: Attempt | None, reason: Reason) -> None:
        """End the attempt, with its program's result if there is one, or return it to the queue."""
        try:
            async with asyncio.timeout(self._policy.lease.total_seconds()):
                if attempt is not None and (result := attempt.broken_off(reason)) is not None:
                    await attempt.recorder.close(cut=cut_off(result))
                    await self._finisher.finish(attempt, attempt.recorder.settled(result))
                    return
                known = attempt.ran(self._policy.node, {}) if attempt else UNKNOWN
                await self._settler.settle(claim, reason, known, only_expired=False)
        except Exception:  # noqa: BLE001 - told; whatever it is, the reaper is what is left
            # The lease expires by itself, and then the reaper settles the attempt.
            _log.exception("left_to_reaper", execution=str(claim.execution_id))
        self._changes.announce(claim.execution_id, News.ENDED)

    async def lost(self, claim: Claim, why: str) -> None:
        """Record that another worker owns the attempt by now, so that its result is not wanted."""
        try:
            async with self._database.tenant(claim.tenant_id) as tx:
                audit.append(tx, claim.tenant_id, late(claim, why))
        except NotReady as error:
            _log.warning("late_result_not_audited", why=error.detail)
