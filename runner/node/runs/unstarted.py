"""Settles an attempt that failed before its program began: returns it to the queue, or ends it.

Nothing of the program ran, so it is safe to run it. A failure of the node or of an unavailable part
costs the execution none of its few attempts; any other failure costs one.
"""

import asyncio
from contextlib import suppress

import structlog

from runner.audit import events as audit
from runner.node.breaker import Breaker
from runner.node.runs.lease import LeaseKeeper
from runner.node.runs.recorder import AWAY_S, until_stored
from runner.node.runs.settle import (
    MOST_GIVEN_BACK,
    Requeue,
    not_started,
    of_execution,
    requeue,
    told,
)
from runner.queue.changes import Changes
from runner.store import attempts
from runner.store.attempts import Stored
from runner.store.db import Database
from runner.words.errors import DockerUnavailable, LeaseLost, NotReady, RunnerError, SetupError
from runner.words.execution import Claim, Result, never_ran
from runner.words.states import ACTIVE, Reason, State

LONGEST_PAUSE_S = 10.0


def decide(stored: Stored, error: Exception, *, ours: bool, max_attempts: int) -> Result | None:
    """Return how the execution ends, or None if it goes back to the queue.

    `ours` says that the node or an unavailable part is at fault, and not the request.
    """
    if stored.cancel_requested:
        return never_ran(State.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled before it began")
    if (stored.given_back < MOST_GIVEN_BACK) if ours else (stored.tries < max_attempts):
        return None
    return not_started(error)


def given_back(stored: Stored, claim: Claim) -> bool:
    """Return whether the attempt is in the queue again: an unconfirmed commit may have happened."""
    return (stored.attempt, stored.state) == (claim.attempt, State.QUEUED)


class Returns:
    """Returns attempts to the queue, each after a pause."""

    def __init__(
        self, *, database: Database, changes: Changes, breaker: Breaker, max_attempts: int
    ) -> None:
        self._database = database
        self._changes = changes
        self._breaker = breaker
        self._max_attempts = max_attempts
        self._log = structlog.get_logger("runner.worker")

    async def give_back(self, claim: Claim, keeper: LeaseKeeper, error: Exception) -> Result | None:
        """Put the execution back into its queue, or return how it ends. Raises LeaseLost."""
        detail = error.detail if isinstance(error, RunnerError) else type(error).__name__
        self._log.warning(
            "attempt_not_started",
            tenant=str(claim.tenant_id),
            execution=str(claim.execution_id),
            attempt=claim.attempt,
            why=detail,
            exc_info=None if isinstance(error, RunnerError) else error,
        )
        ours = isinstance(error, NotReady | SetupError)
        asks_node = not ours or isinstance(error, DockerUnavailable)
        broken = asks_node and await self._breaker.blames_node()
        if not broken:
            # It keeps its slot meanwhile, so that a tenant gains nothing by executions that cannot
            # start.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s(claim)):
                    await keeper.cancel_requested.wait()
        keeper.release()

        tries = 0

        async def write() -> Result | None:
            nonlocal tries
            tries += 1
            async with self._database.tenant(claim.tenant_id) as tx:
                stored = await attempts.lock(tx, claim.execution_id)
                if tries > 1 and stored is not None and given_back(stored, claim):
                    return None
                if stored is None or (stored.attempt, stored.state in ACTIVE) != (
                    claim.attempt,
                    True,
                ):
                    raise LeaseLost("the execution was taken over before its program started")
                free = ours or broken
                end = decide(stored, error, ours=free, max_attempts=self._max_attempts)
                if end is None:
                    _, why = told(error)
                    await requeue(tx, claim, Requeue(why, free=free))
                return end

        end = await until_stored(write, patience_s=AWAY_S)
        self._changes.announce(claim.execution_id)
        await self._tell_operator(claim, detail)
        return end

    async def _tell_operator(self, claim: Claim, detail: str) -> None:
        """Record in the deployment's own audit log what the tenant's must not hold."""
        facts = {"attempt": claim.attempt, "tenant": str(claim.tenant_id), "why": detail}
        action, outcome = audit.Action.EXECUTION_REQUEUE, audit.Outcome.FAILURE
        event = of_execution(claim.execution_id, action, facts, outcome)
        try:
            await audit.append_platform(self._database, event)
        except NotReady as error:
            self._log.warning("failed_start_not_audited", why=error.detail)


def pause_s(claim: Claim) -> float:
    """Return how many seconds to keep an attempt before it is returned, by its number."""
    return min(2.0 ** min(claim.attempt - 1, 10), LONGEST_PAUSE_S)
