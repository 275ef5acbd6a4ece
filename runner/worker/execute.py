"""The recipe of one execution, from the claim to its one result.

claim, with the request → get a sandbox → place files → run, recording output → collect
artifacts → write result, artifacts and audit event in one transaction → dispose of the sandbox.
Whatever interrupts it, the attempt is settled: by this process if it can, else by the reaper.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from runner.audit import events as audit
from runner.errors import (
    Invalid,
    KeyUnavailable,
    LeaseLost,
    NotReady,
    RunnerError,
    SandboxFault,
)
from runner.masking import Masker
from runner.models import JSON, Claim, ExecutionRequest, Program, Result, Usage
from runner.queue.changes import Changes, News
from runner.receipts.document import Ran, receipt
from runner.sandbox.outcome import classify, result_of
from runner.sandbox.sandbox import Sandbox
from runner.signing import Signer
from runner.states import Reason, State
from runner.store import attempts, quotas, receipts, scheduling
from runner.store.db import Database
from runner.store.executions import StoredArtifact, never_ran
from runner.store.objects import ObjectStore
from runner.store.scheduling import Claimed
from runner.worker.artifacts import ArtifactFiler, make_files
from runner.worker.disposal import Disposals
from runner.worker.egress import Egress, WayOut
from runner.worker.inputs import upload
from runner.worker.lease import LeaseKeeper
from runner.worker.recorder import Recorder, until_stored
from runner.worker.sandboxes import Sandboxes
from runner.worker.secrets import Secrets
from runner.worker.settle import began, ended, late, not_started, settle
from runner.worker.start import Start
from runner.worker.traffic import Traffic

CANCELLED_HOLDS_S = 1.0
"""For how long a slot is held, counted from its claim, by what is cancelled before that."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the deployment fixes for every execution."""

    node: str
    instance: str
    lease: timedelta
    max_attempts: int
    flood_bytes: int
    max_artifacts: int


@dataclass(slots=True)
class _Attempt:
    """One attempt, as far as it has come."""

    claim: Claim
    request: ExecutionRequest
    recorder: Recorder
    egress_left: int
    """Bytes that the tenant may still send and be sent today."""
    artifacts: list[StoredArtifact] = field(default_factory=list)
    sandbox: Sandbox | None = None
    runs_before: int = 0
    way_out: WayOut = field(default_factory=WayOut)
    start: Start | None = None


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
        policy: Policy,
        traffic: Traffic,
    ) -> None:
        self._database = database
        self._objects = objects
        self._changes = changes
        self._sandboxes = sandboxes
        self._disposals = disposals
        self._egress = egress
        self._secrets = secrets
        self._signer = signer
        self._policy = policy
        self._traffic = traffic
        self._log = structlog.get_logger("runner.worker")
        self._draining = False
        self._running: set[asyncio.Task[bool]] = set()

    async def run_next(self) -> bool:
        """Claim the execution whose turn it is and run it; return whether there may be another."""
        if self._draining:
            return False
        async with self._database.no_tenant() as tx:
            claimed = await scheduling.claim(
                tx,
                node=self._policy.node,
                instance=self._policy.instance,
                lease=self._policy.lease,
            )
        if claimed is None:
            return False
        task = asyncio.create_task(self._execute(claimed))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await asyncio.wait({task})
        return task.cancelled() or task.result()

    async def drain(self, patience_s: float) -> None:
        """Claim nothing more; after `patience_s` seconds interrupt and settle what still runs."""
        self._draining = True
        if self._running:
            await asyncio.wait(set(self._running), timeout=patience_s)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        await self._disposals.drain()

    async def _execute(self, claimed: Claimed) -> bool:
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
        )
        self._changes.announce(claim.execution_id)
        try:
            async with AsyncExitStack() as afterwards:
                afterwards.enter_context(self._traffic.passing())
                return await keeper.guard(self._attempt(claimed, keeper, afterwards))
        except LeaseLost as error:
            log.warning("lease_lost", detail=error.detail)
            await self._audit_late(claim, error.detail)
        except asyncio.CancelledError:
            await self._settle(claim, Reason.WORKER_DRAINED)
            raise
        except Exception:
            log.exception("attempt_failed")
            await self._settle(claim, Reason.INTERNAL)
        return True

    async def _attempt(
        self, claimed: Claimed, keeper: LeaseKeeper, afterwards: AsyncExitStack
    ) -> bool:
        claimed_at = time.monotonic()
        claim, request = claimed.claim, claimed.request()
        if claimed.cancel_requested:
            keeper.cancel_requested.set()
        recorder = Recorder(database=self._database, changes=self._changes, claim=claim)
        egress_left = await until_stored(lambda: self._egress_left(claim)) if request.egress else 0
        attempt = _Attempt(claim, request, recorder, egress_left)
        try:
            sandbox = await self._sandboxes.claim(claim, request)
        except (SandboxFault, NotReady) as error:
            result = not_started(error)
        else:
            # The client has its result before the container is gone.
            afterwards.push_async_callback(self._disposals.later, sandbox)
            attempt.sandbox, attempt.runs_before = sandbox, sandbox.runs
            result = await self._run(attempt, sandbox, keeper)
            if result.state is State.CANCELLED:
                # Nobody waits for it, and it holds its tenant's slot until all of it is gone: or
                # submitting and cancelling would keep the host busy with containers for nothing.
                afterwards.pop_all()
                await self._disposals.now(sandbox)
                await asyncio.sleep(claimed_at + CANCELLED_HOLDS_S - time.monotonic())
        keeper.release()
        return await self._finish(attempt, result)

    async def _run(self, attempt: _Attempt, sandbox: Sandbox, keeper: LeaseKeeper) -> Result:
        claim, request, recorder = attempt.claim, attempt.request, attempt.recorder

        start = attempt.start = Start(
            lambda: audit.body(claim.tenant_id, began(claim, self._policy.node, sandbox))
        )

        async def record_start() -> None:
            recorder.begin(await until_stored(lambda: self._record_start(claim, start)))
            self._changes.announce(claim.execution_id)

        try:
            secret_env = await self._secrets.environment(claim, request)
            await recorder.hide(secret_env.values())
            if (refusal := await upload(sandbox, request, self._objects)) is not None:
                return refusal
            async with (
                self._egress.open(
                    claim, request, sandbox, recorder, attempt.egress_left
                ) as way_out,
                start.recorded(record_start, ahead=bool(request.egress)),
            ):
                attempt.way_out = way_out
                ending = await sandbox.run(
                    _reaching(request.program, {**way_out.environment, **secret_env}),
                    limits=request.limits,
                    flood_bytes=self._policy.flood_bytes,
                    on_started=start.begin,
                    on_output=recorder.add,
                    cancel=keeper.cancel_requested,
                    bridge=way_out.bridge,
                )
            filer = ArtifactFiler(
                database=self._database,
                objects=self._objects,
                claim=claim,
                filed=attempt.artifacts,
                masker=recorder.masker,
                file_prefix=request.artifacts_to,
            )
            collected = await sandbox.collect(
                max_files=self._policy.max_artifacts,
                max_bytes=request.limits.disk_mb * 2**20,
                sink=filer,
                again=request.reuse and not ending.oom_killed,
            )
            result = result_of(ending, classify(ending), sandbox, collected)
            result = replace(result, artifacts_refused=(*result.artifacts_refused, *filer.refused))
        except Invalid as error:
            result = never_ran(State.FAILED, _REFUSALS[error.field], error.detail)
        except KeyUnavailable as error:
            result = never_ran(State.SYSTEM_ERROR, Reason.SECRET_UNAVAILABLE, error.detail)
        except SandboxFault as error:
            result = never_ran(State.SYSTEM_ERROR, Reason.SANDBOX_PROTOCOL, error.detail)
            if start.at is not None:
                # Its own figures are not to be had, or not to be believed; the clock's are.
                ran_for = round(time.monotonic() - start.at, 6)
                result = replace(result, usage=Usage(wall_s=ran_for))
        await recorder.close()
        return _masked(replace(result, egress=attempt.way_out.usage), recorder.masker)

    async def _egress_left(self, claim: Claim) -> int:
        async with self._database.tenant(claim.tenant_id) as tx:
            return (await quotas.standing(tx)).egress_left

    async def _record_start(self, claim: Claim, start: Start) -> int:
        async with self._database.tenant(claim.tenant_id) as tx:
            return await attempts.start(tx, claim, self._policy.lease, start.begun())

    async def _finish(self, attempt: _Attempt, result: Result) -> bool:
        claim = attempt.claim
        tries = 0

        async def write() -> bool:
            nonlocal tries
            tries += 1
            async with self._database.tenant(claim.tenant_id) as tx:
                if tries > 1 and await attempts.is_finished_with(tx, claim, result):
                    return True
                begun = attempt.start.unrecorded() if attempt.start else None
                finishing = await attempts.finish_with(
                    tx, claim, result, attempt.artifacts, attempt.recorder.rest, begun
                )
                made = await make_files(tx, claim, attempt.artifacts)
                # All records last: the chain's head, which they lock, is locked after any row.
                if begun is not None:
                    audit.append_made(tx, begun.record)
                for event in (*attempt.recorder.rest_audited, *made):
                    await audit.append(tx, claim.tenant_id, event)
                head = await audit.place(tx, claim.tenant_id, ended(claim, result))
                times = await finishing.times()
                signed = self._signer.sign(
                    receipts.KIND, self._receipt(attempt, result, times, head)
                )
                await receipts.insert(tx, claim.execution_id, signed)
                claimable = scheduling.claimable_afterwards(tx)
            return await claimable()

        more = await until_stored(write)
        self._changes.announce(claim.execution_id, News.ENDED)
        return more

    def _receipt(
        self, attempt: _Attempt, result: Result, times: attempts.Times, head: audit.Place
    ) -> dict[str, JSON]:
        sandbox = attempt.sandbox
        ran = Ran(
            node=self._policy.node,
            sandbox=sandbox.id if sandbox else None,
            isolation=sandbox.isolation if sandbox else None,
            egress_policy_hash=attempt.way_out.policy_hash,
            output_hashes=attempt.recorder.hashes(),
            runs_before=attempt.runs_before,
        )
        kept = [each.artifact for each in attempt.artifacts]
        return receipt(attempt.claim, attempt.request, result, kept, ran, times, head)

    async def _settle(self, claim: Claim, reason: Reason) -> None:
        try:
            async with self._database.tenant(claim.tenant_id) as tx:
                await settle(
                    tx, claim, reason, max_attempts=self._policy.max_attempts, only_expired=False
                )
        except RunnerError as error:
            # The lease runs out by itself and the reaper settles it then.
            self._log.warning("left_to_reaper", execution=str(claim.execution_id), why=error.detail)
        self._changes.announce(claim.execution_id, News.ENDED)

    async def _audit_late(self, claim: Claim, why: str) -> None:
        try:
            async with self._database.tenant(claim.tenant_id) as tx:
                await audit.append(tx, claim.tenant_id, late(claim, why))
        except NotReady as error:
            self._log.warning("late_result_not_audited", why=error.detail)


_REFUSALS = {"egress": Reason.EGRESS_NOT_OPENED, "secret_env": Reason.SECRET_UNAVAILABLE}


def _reaching(program: Program, environment: Mapping[str, str]) -> Program:
    """Return the program with the way out in its environment; its own settings win."""
    return replace(program, env={**environment, **program.env})


def _masked(result: Result, masker: Masker) -> Result:
    refused = tuple(map(masker.text, result.artifacts_refused))
    return replace(result, detail=masker.text(result.detail), artifacts_refused=refused)
