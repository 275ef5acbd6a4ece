"""The recipe of one execution, from the claim to its one result.

claim, with the request → get a sandbox → place files → run, recording output → collect
artifacts → write result, artifacts and audit event in one transaction → dispose of the sandbox.
Whatever interrupts it, the attempt is settled: by this process if it can, else by the reaper.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from runner.base.tasks import cancelled
from runner.base.telemetry import traced
from runner.base.tracing import SpanTracer
from runner.node.measures import ExecutionStage, Measures
from runner.node.runs.attempt import Attempt, StageTimes
from runner.node.runs.finish import Finisher
from runner.node.runs.interrupted import Interruptions
from runner.node.runs.lease import LeaseKeeper
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.program import Programs
from runner.node.runs.recorder import Recorder
from runner.node.runs.settle import not_started
from runner.node.runs.spans import record_attempt
from runner.node.runs.unstarted import Returns
from runner.node.stock.disposal import Disposals
from runner.node.stock.sandboxes import Need, Sandboxes
from runner.node.traffic import Traffic
from runner.queue.changes import Changes
from runner.store.db import Database
from runner.store.scheduling import Claimed
from runner.words.errors import ImageMissing, IsolationMissing, LeaseLost
from runner.words.execution import Result
from runner.words.states import Reason, State

CANCELLED_HOLDS_S = 1.0
"""For how long a slot is held, counted from its claim, by what is cancelled before that."""

_log = structlog.get_logger("runner.worker")


@dataclass(frozen=True, slots=True)
class Endings:
    """The parts that end attempts."""

    finisher: Finisher
    """Those whose program has ended."""
    returns: Returns
    """Those that failed before their program began."""
    interruptions: Interruptions
    """Those that go no further here."""


class Executor:
    """Runs executions that were claimed, one in each call."""

    def __init__(
        self,
        *,
        database: Database,
        changes: Changes,
        sandboxes: Sandboxes,
        disposals: Disposals,
        programs: Programs,
        endings: Endings,
        traffic: Traffic,
        measures: Measures,
        tracer: SpanTracer,
        policy: ExecutionPolicy,
    ) -> None:
        self._database = database
        self._changes = changes
        self._sandboxes = sandboxes
        self._disposals = disposals
        self._programs = programs
        self._endings = endings
        self._traffic = traffic
        self._measures = measures
        self._tracer = tracer
        self._policy = policy

    async def execute(self, claimed: Claimed, asked_at: float) -> bool:
        """Bring it to its end; return whether another may wait to be claimed."""
        with traced(claimed.trace):
            return await self._execute(claimed, asked_at)

    async def _execute(self, claimed: Claimed, asked_at: float) -> bool:
        claim, times = claimed.claim, StageTimes(asked_at)
        log = _log.bind(
            tenant=str(claim.tenant_id), execution=str(claim.execution_id), attempt=claim.attempt
        )
        keeper = LeaseKeeper(
            database=self._database,
            changes=self._changes,
            claim=claim,
            lease=self._policy.lease,
            asked_at=asked_at,
        )
        self._changes.announce(claim.execution_id)
        self._measures.spent(ExecutionStage.WAIT, claimed.waited_s)
        attempt: Attempt | None = None
        try:
            request = claimed.request()
            recorder = Recorder(
                database=self._database,
                changes=self._changes,
                claim=claim,
                bounds=request.run.bounds,
            )
            attempt = Attempt(claim, request, recorder, times)
            if claimed.cancel_requested:
                keeper.cancel_requested.set()
            with self._traffic.passing():
                async with AsyncExitStack() as afterwards:
                    return await keeper.guard(self._attempt(attempt, keeper, afterwards))
        except LeaseLost as error:
            log.warning("lease_lost", detail=error.detail)
            self._measures.lost_lease()
            await self._endings.interruptions.lost(claim, error.detail)
        except asyncio.CancelledError:
            await self._endings.interruptions.break_off(claim, attempt, Reason.WORKER_DRAINED)
            raise
        except Exception:
            log.exception("attempt_failed")
            await self._endings.interruptions.break_off(claim, attempt, Reason.INTERNAL)
        finally:
            if attempt is not None:
                await attempt.recorder.stop()
                record_attempt(self._tracer, claimed, attempt, self._policy.node)
        return True

    async def _attempt(
        self, attempt: Attempt, keeper: LeaseKeeper, afterwards: AsyncExitStack
    ) -> bool:
        try:
            result = await self._in_sandbox(attempt, keeper, afterwards)
        except (ImageMissing, IsolationMissing) as error:
            _log.warning(
                "attempt_not_started", execution=str(attempt.claim.execution_id), why=error.detail
            )
            result = not_started(error)
        except Exception as error:
            if isinstance(error, LeaseLost) or attempt.begun:
                raise
            if cancelled():
                # It was not the start that failed: the worker drains, or has lost its lease.
                raise asyncio.CancelledError from error
            ending = await self._endings.returns.give_back(attempt.claim, keeper, error)
            if ending is None:
                return True
            result = ending
        keeper.release()
        attempt.settled, times = result, attempt.times
        times.collected = time.monotonic()
        more = await self._endings.finisher.finish(attempt, result)
        times.finished = time.monotonic()
        self._measures.spent(ExecutionStage.FINISH, times.finished - times.collected)
        self._measures.ended(result.state, result.reason)
        return more

    async def _in_sandbox(
        self, attempt: Attempt, keeper: LeaseKeeper, afterwards: AsyncExitStack
    ) -> Result:
        claimed_at = time.monotonic()
        sandbox = await self._sandboxes.claim(Need.of(attempt.claim, attempt.request))
        # The client has its result before the container is gone.
        afterwards.push_async_callback(self._disposals.later, sandbox)
        sandbox.container.assign(str(attempt.claim.tenant_id))
        keeper.fence(sandbox)
        attempt.times.sandbox = time.monotonic()
        attempt.sandbox, attempt.runs_before = sandbox, sandbox.runs
        attempt.from_stock = sandbox.started_at < claimed_at
        self._measures.used(attempt.source)
        result = await self._programs.run(attempt, sandbox, keeper.cancel_requested)
        if attempt.start is not None and attempt.start.at is not None:
            self._measures.spent(ExecutionStage.START, attempt.start.at - claimed_at)
            self._measures.spent(ExecutionStage.RUN, result.usage.wall_s)
        if result.state is State.CANCELLED:
            # Nobody waits for it, and it holds its tenant's slot until all of it is gone: or
            # submitting and cancelling would keep the host busy with containers for nothing.
            afterwards.pop_all()
            await self._disposals.now(sandbox)
            await asyncio.sleep(claimed_at + CANCELLED_HOLDS_S - time.monotonic())
        return result
