"""The recipe of one execution, from the claim to its one result.

claim, with the request → get a sandbox → place files → run, recording output → collect
artifacts → write result, artifacts and audit event in one transaction → dispose of the sandbox.
Whatever interrupts it, the attempt is settled: by this process if it can, else by the reaper.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.base.signing import Signer
from runner.base.tasks import cancelled
from runner.node.breaker import Breaker
from runner.node.runs.artifacts import ArtifactFiler
from runner.node.runs.attempt import Attempt
from runner.node.runs.egress import Egress
from runner.node.runs.finish import Finisher
from runner.node.runs.inputs import upload
from runner.node.runs.lease import LeaseKeeper
from runner.node.runs.recorder import Recorder, cut_off, until_stored
from runner.node.runs.secrets import Secrets
from runner.node.runs.settle import UNKNOWN, Settler, began, late, not_started
from runner.node.runs.start import Start
from runner.node.runs.unstarted import Returns
from runner.node.stock.disposal import Disposals
from runner.node.stock.sandboxes import Sandboxes
from runner.node.traffic import Traffic
from runner.queue.changes import Changes, News
from runner.sandbox.guest.artifacts import NOTHING, CollectedFiles
from runner.sandbox.guest.outcome import classify, result_of
from runner.sandbox.guest.process import RunTerms, RunWatch
from runner.sandbox.guest.sandbox import Sandbox
from runner.store import attempts, quotas, scheduling
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.scheduling import Claimed
from runner.words.errors import (
    ImageMissing,
    Invalid,
    IsolationMissing,
    KeyUnavailable,
    LeaseLost,
    NotReady,
    SandboxFault,
)
from runner.words.execution import Claim, Program, Result, never_ran
from runner.words.states import Reason, State

CANCELLED_HOLDS_S = 1.0
"""For how long a slot is held, counted from its claim, by what is cancelled before that."""


@dataclass(frozen=True, slots=True)
class ExecutionPolicy:
    """What the deployment fixes for every execution."""

    node: str
    instance: str
    lease: timedelta
    max_attempts: int
    flood_bytes: int
    max_artifacts: int


class Executor:
    """Runs executions, one call each; many calls may be under way at once."""

    def __init__(
        self,
        *,
        database: Database,
        objects: ObjectStore,
        changes: Changes,
        sandboxes: Sandboxes,
        disposals: Disposals,
        egress: Egress,
        secrets: Secrets,
        signer: Signer,
        settler: Settler,
        policy: ExecutionPolicy,
        traffic: Traffic,
        breaker: Breaker,
    ) -> None:
        self._database = database
        self._objects = objects
        self._changes = changes
        self._sandboxes = sandboxes
        self._disposals = disposals
        self._egress = egress
        self._secrets = secrets
        self._finisher = Finisher(
            database=database, changes=changes, signer=signer, node=policy.node
        )
        self._settler = settler
        self._policy = policy
        self._traffic = traffic
        self._breaker = breaker
        self._returns = Returns(
            database=database,
            changes=changes,
            breaker=breaker,
            max_attempts=policy.max_attempts,
        )
        self._log = structlog.get_logger("runner.worker")
        self._draining = asyncio.Event()
        self._running: set[asyncio.Task[bool]] = set()

    async def run_next(self) -> bool:
        """Claim the execution whose turn it is and run it; return whether there may be another."""
        await self._breaker.whole()
        if self._draining.is_set():
            return False
        asked_at = time.monotonic()
        claimed = await scheduling.claim(
            self._database,
            node=self._policy.node,
            instance=self._policy.instance,
            lease=self._policy.lease,
        )
        if claimed is None:
            return False
        if self._draining.is_set():
            # `drain` began while the claim was under way, and waits for none that begins now.
            await self._break_off(claimed.claim, None, Reason.WORKER_DRAINED)
            return False
        task = asyncio.create_task(self._execute(claimed, asked_at))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task})
        return task.cancelled() or task.result()

    async def drain(self, patience_s: float) -> None:
        """Claim nothing more; after `patience_s` seconds interrupt and settle what still runs."""
        self._draining.set()
        self._breaker.stop()
        if self._running:
            await asyncio.wait(set(self._running), timeout=patience_s)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        await self._disposals.drain()

    async def _execute(self, claimed: Claimed, asked_at: float) -> bool:
        """Bring it to its end; return whether another may wait to be claimed."""
        claim = claimed.claim
        log = self._log.bind(
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
        attempt: Attempt | None = None
        try:
            request = claimed.request()
            recorder = Recorder(
                database=self._database,
                changes=self._changes,
                claim=claim,
                bounds=request.run.bounds,
            )
            attempt = Attempt(claim, request, recorder)
            if claimed.cancel_requested:
                keeper.cancel_requested.set()
            with self._traffic.passing():
                async with AsyncExitStack() as afterwards:
                    return await keeper.guard(self._attempt(attempt, keeper, afterwards))
        except LeaseLost as error:
            log.warning("lease_lost", detail=error.detail)
            await self._audit_late(claim, error.detail)
        except asyncio.CancelledError:
            await self._break_off(claim, attempt, Reason.WORKER_DRAINED)
            raise
        except Exception:
            log.exception("attempt_failed")
            await self._break_off(claim, attempt, Reason.INTERNAL)
        finally:
            if attempt is not None:
                await attempt.recorder.stop()
        return True

    async def _attempt(
        self, attempt: Attempt, keeper: LeaseKeeper, afterwards: AsyncExitStack
    ) -> bool:
        try:
            result = await self._in_sandbox(attempt, keeper, afterwards)
        except (ImageMissing, IsolationMissing) as error:
            result = not_started(error)
        except Exception as error:
            if isinstance(error, LeaseLost) or attempt.begun:
                raise
            if cancelled():
                # It was not the start that failed: the worker drains, or has lost its lease.
                raise asyncio.CancelledError from error
            ending = await self._returns.give_back(attempt.claim, keeper, error)
            if ending is None:
                return True
            result = ending
        keeper.release()
        return await self._finisher.finish(attempt, result)

    async def _in_sandbox(
        self, attempt: Attempt, keeper: LeaseKeeper, afterwards: AsyncExitStack
    ) -> Result:
        claimed_at = time.monotonic()
        sandbox = await self._sandboxes.claim(attempt.claim, attempt.request)
        # The client has its result before the container is gone.
        afterwards.push_async_callback(self._disposals.later, sandbox)
        keeper.fence(sandbox)
        attempt.sandbox, attempt.runs_before = sandbox, sandbox.runs
        result = await self._run(attempt, sandbox, keeper)
        if result.state is State.CANCELLED:
            # Nobody waits for it, and it holds its tenant's slot until all of it is gone: or
            # submitting and cancelling would keep the host busy with containers for nothing.
            afterwards.pop_all()
            await self._disposals.now(sandbox)
            await asyncio.sleep(claimed_at + CANCELLED_HOLDS_S - time.monotonic())
        return result

    async def _run(self, attempt: Attempt, sandbox: Sandbox, keeper: LeaseKeeper) -> Result:
        claim, request, recorder = attempt.claim, attempt.request, attempt.recorder

        start = attempt.start = Start(
            lambda: audit.body(claim.tenant_id, began(claim, self._policy.node, sandbox))
        )

        async def record_start() -> None:
            recorder.begin(await until_stored(lambda: self._record_start(claim, start)))
            self._changes.announce(claim.execution_id)

        try:
            secret_env = await self._secrets.environment(claim, request.run)
            await recorder.hide(secret_env.values())
            if (refusal := await upload(sandbox, request.run.files, self._objects)) is not None:
                return refusal
            left = await until_stored(lambda: self._egress_left(claim)) if request.egress else 0
            async with (
                self._egress.open(claim, request, sandbox, recorder, left) as way_out,
                start.recorded(record_start, ahead=bool(request.egress)),
            ):
                attempt.way_out = way_out
                ending = await sandbox.run(
                    _reaching(request.run.program, {**way_out.environment, **secret_env}),
                    RunTerms(request.run.bounds, self._policy.flood_bytes),
                    RunWatch(start.begin, recorder.add, keeper.cancel_requested),
                    bridge=way_out.bridge,
                )
                verdict = classify(ending)
                attempt.ended(result_of(ending, verdict, sandbox, NOTHING))
            again = request.reuse and not ending.oom_killed
            collected = await self._collect(attempt, sandbox, again=again)
            result = result_of(ending, verdict, sandbox, collected)
        except Invalid as error:
            result = never_ran(State.FAILED, _REFUSALS[error.field], error.detail)
        except KeyUnavailable as error:
            self._log.warning(
                "secrets_not_opened", execution=str(claim.execution_id), why=error.detail
            )
            result = not_started(error)
        except SandboxFault as error:
            if not attempt.begun:
                raise
            # Its own figures are not to be had, or not to be believed; the clock's are.
            result = never_ran(State.SYSTEM_ERROR, Reason.SANDBOX_PROTOCOL, error.detail)
            result = replace(result, usage=attempt.used())
        await recorder.close(cut=cut_off(result))
        result = recorder.settled(result)
        attempt.result = _masked(replace(result, egress=attempt.way_out.usage), recorder.masker)
        return attempt.result

    async def _collect(self, attempt: Attempt, sandbox: Sandbox, *, again: bool) -> CollectedFiles:
        request = attempt.request
        filer = ArtifactFiler(
            database=self._database,
            objects=self._objects,
            claim=attempt.claim,
            filed=attempt.artifacts,
            masker=attempt.recorder.masker,
            file_prefix=request.artifacts_to,
        )
        collected = await sandbox.collect(
            max_files=self._policy.max_artifacts,
            max_bytes=request.sandbox.resources.disk_mb * 2**20,
            sink=filer,
            again=again,
        )
        return replace(collected, refused=(*collected.refused, *filer.refused))

    async def _egress_left(self, claim: Claim) -> int:
        async with self._database.tenant(claim.tenant_id) as tx:
            return (await quotas.standing(tx)).egress_left

    async def _record_start(self, claim: Claim, start: Start) -> int:
        return await attempts.start(self._database, claim, self._policy.lease, start.begun())

    async def _break_off(self, claim: Claim, attempt: Attempt | None, reason: Reason) -> None:
        """End the attempt here, or give it back; by its own result if its program has one."""
        try:
            async with asyncio.timeout(self._policy.lease.total_seconds()):
                if attempt is not None and (result := attempt.broken_off(reason)) is not None:
                    await attempt.recorder.close(cut=cut_off(result))
                    await self._finisher.finish(attempt, attempt.recorder.settled(result))
                    return
                known = attempt.ran(self._policy.node, {}) if attempt else UNKNOWN
                await self._settler.settle(claim, reason, known, only_expired=False)
        except Exception:  # noqa: BLE001 - told; whatever it is, the reaper is what is left
            # The lease runs out by itself and the reaper settles it then.
            self._log.exception("left_to_reaper", execution=str(claim.execution_id))
        self._changes.announce(claim.execution_id, News.ENDED)

    async def _audit_late(self, claim: Claim, why: str) -> None:
        try:
            async with self._database.tenant(claim.tenant_id) as tx:
                audit.append(tx, claim.tenant_id, late(claim, why))
        except NotReady as error:
            self._log.warning("late_result_not_audited", why=error.detail)


_REFUSALS = {"egress": Reason.EGRESS_NOT_OPENED, "secret_env": Reason.SECRET_UNAVAILABLE}


def _reaching(program: Program, environment: Mapping[str, str]) -> Program:
    """Return the program with the way out in its environment; its own settings win."""
    return replace(program, env={**environment, **program.env})


def _masked(result: Result, masker: Masker) -> Result:
    refused = tuple(map(masker.text, result.artifacts_refused))
    return replace(result, detail=masker.text(result.detail), artifacts_refused=refused)
