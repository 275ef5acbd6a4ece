"""Settles an attempt that ends without a result of its own: ends it or queues it again."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog

from runner.audit import events as audit
from runner.base.signing import Signer
from runner.receipts.document import Ran, receipt
from runner.sandbox.guest.sandbox import Sandbox
from runner.store import attempts, receipts, scheduling
from runner.store.attempts import Finish, Stored, Times
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import (
    DockerUnavailable,
    ImageMissing,
    IsolationMissing,
    KeyUnavailable,
    NotReady,
    RunnerError,
    SandboxFault,
    SecretsUnreadable,
    TemplateMissing,
)
from runner.words.execution import JSON, Artifact, Claim, ExecutionRequest, Result, never_ran
from runner.words.states import ACTIVE, Reason, State
from runner.words.text import counted

_HASHED_INLINE = 64 * 1024
"""If the input has more bytes than this, a thread makes the receipt, which hashes the input."""

MOST_GIVEN_BACK = 50
"""How often one execution is given back at most, even if nodes are at fault: it may break them."""
UNKNOWN = Ran(
    node=None,
    sandbox=None,
    isolation=None,
    egress_policy_hash=None,
    output_hashes={},
    runs_before=None,
)
"""The facts of a run whose worker is lost."""
EXPLANATIONS = {
    Reason.WORKER_LOST: "the worker died or was cut off while it held the execution",
    Reason.WORKER_DRAINED: "the worker was stopped and its time to drain ran out",
    Reason.INTERNAL: "the worker failed while it held the execution",
}

_SEEN = "the operator's log and audit log say why"


@dataclass(frozen=True, slots=True)
class Requeue:
    """Run it again; a `free` attempt does not count as a try."""

    why: str
    free: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """End it with this result."""

    result: Result


def decide(stored: Stored, reason: Reason, max_attempts: int) -> Requeue | End | None:
    """Return what to do with an interrupted attempt, or None if it has ended already.

    A program runs again only if it had not begun or the client asked for reruns, and at most
    `max_attempts` times, so that an execution that kills its workers does not go on for ever. If a
    worker drains before the program has begun, that is our doing and does not count.
    """
    if stored.state not in ACTIVE:
        return None
    why = EXPLANATIONS[reason]
    if stored.cancel_requested:
        return End(never_ran(State.CANCELLED, Reason.CANCEL_REQUESTED, f"cancelled; {why}"))
    if stored.state is State.STARTING or stored.retry_asked:
        drained = stored.state is State.STARTING and reason is Reason.WORKER_DRAINED
        free = drained and stored.given_back < MOST_GIVEN_BACK
        if free or stored.tries < max_attempts:
            return Requeue(why, free=free)
        return End(
            never_ran(
                State.SYSTEM_ERROR,
                Reason.ATTEMPTS_EXHAUSTED,
                f"{why}, in the last of {counted(stored.tries, 'attempt')}",
            )
        )
    return End(never_ran(State.SYSTEM_ERROR, reason, why))


def not_started(error: Exception) -> Result:
    """Return the result of an execution whose program could not be started."""
    reason, sentence = told(error)
    return never_ran(State.SYSTEM_ERROR, reason, sentence)


def told(error: Exception) -> tuple[Reason, str]:
    """Return what the tenant learns about a failure before its program began.

    It never includes the details of a fault of ours, which may name paths and addresses of the
    host.
    """
    match error:
        case ImageMissing():
            why = (
                "the worker's host has no image that this worker can use; "
                "on that host, `runner images build` makes those of RUNNER_IMAGES"
            )
            # A template is the tenant's own.
            return Reason.IMAGE_MISSING, error.detail if isinstance(error, TemplateMissing) else why
        case IsolationMissing():
            return Reason.ISOLATION_MISSING, "the worker's host lacks the isolation asked for"
        case KeyUnavailable() | SecretsUnreadable():
            return Reason.SECRET_UNAVAILABLE, f"the tenant's secrets cannot be read; {_SEEN}"
        case SandboxFault() | DockerUnavailable():
            return Reason.SANDBOX_START_FAILED, f"no sandbox could be started; {_SEEN}"
        case NotReady():
            return Reason.INTERNAL, f"a part of the service did not answer; {_SEEN}"
        case _:
            return Reason.INTERNAL, EXPLANATIONS[Reason.INTERNAL]


class Settler:
    """Ends attempts or returns them to the queue, and signs a receipt for each end."""

    def __init__(self, *, database: Database, signer: Signer, max_attempts: int) -> None:
        self._database = database
        self._signer = signer
        self._max_attempts = max_attempts
        self._log = structlog.get_logger("runner.worker")

    async def settle(
        self, claim: Claim, reason: Reason, ran: Ran = UNKNOWN, *, only_expired: bool
    ) -> Requeue | End | None:
        """Decide what to do, write it, and return the decision; None if nothing is to do.

        `ran` holds what the worker knows of the run that it interrupts.
        """
        try:
            return await self._settle(claim, reason, ran, only_expired=only_expired)
        except RunnerError:
            raise
        except Exception:  # noqa: BLE001 - told; an end without a receipt is better than no end
            self._log.exception("receipt_not_made", execution=str(claim.execution_id))
            return await self._settle(claim, reason, None, only_expired=only_expired)

    async def _settle(
        self, claim: Claim, reason: Reason, ran: Ran | None, *, only_expired: bool
    ) -> Requeue | End | None:
        async with self._database.tenant(claim.tenant_id) as tx:
            stored = await attempts.lock(tx, claim.execution_id)
            if stored is None or stored.attempt != claim.attempt:
                return None
            if only_expired and not stored.lease_expired:
                return None
            decision = decide(stored, reason, self._max_attempts)
            match decision:
                case Requeue():
                    await requeue(tx, claim, decision)
                case End(result) if ran is not None:
                    request = (await scheduling.load(tx, claim)).request()
                    finishing = await attempts.finish_with(tx, claim, result)
                    await put_on_record(
                        tx, self._signer, claim, request, result, (), ran, finishing
                    )
                case End(result):
                    await attempts.finish(tx, claim, result)
                    audit.append(tx, claim.tenant_id, ended(claim, result))
        return decision


async def requeue(tx: Transaction, claim: Claim, decision: Requeue) -> None:
    """Put the execution back into its tenant's queue, and record that. Raises LeaseLost."""
    await attempts.requeue(tx, claim, decision.why, free=decision.free)
    facts = {"attempt": claim.attempt, "why": decision.why}
    event = of_execution(claim.execution_id, audit.Action.EXECUTION_REQUEUE, facts)
    audit.append(tx, claim.tenant_id, event)


async def put_on_record(
    tx: Transaction,
    signer: Signer,
    claim: Claim,
    request: ExecutionRequest,
    result: Result,
    artifacts: Sequence[Artifact],
    ran: Ran,
    finishing: Finish,
) -> Times:
    """Append the audit record of an execution's end, and sign its receipt; return its times.

    Raises LeaseLost.
    """
    head = await audit.append_now(tx, claim.tenant_id, ended(claim, result))
    times = await finishing.times()
    make = partial(receipt, claim, request, result, artifacts, ran, times, head)
    large = request.run.input_bytes > _HASHED_INLINE
    body = await asyncio.to_thread(make) if large else make()
    receipts.insert_later(tx, claim.execution_id, signer.sign(receipts.KIND, body))
    return times


def of_execution(
    execution_id: UUID,
    action: audit.Action,
    facts: Mapping[str, JSON],
    outcome: audit.Outcome = audit.Outcome.SUCCESS,
) -> audit.AuditEvent:
    """Return an audit event of the worker about an execution."""
    return audit.AuditEvent(
        actor="system:worker",
        action=action,
        outcome=outcome,
        resource_type="execution",
        resource_id=str(execution_id),
        metadata=facts,
    )


def began(claim: Claim, node: str, sandbox: Sandbox, *, from_stock: bool) -> audit.AuditEvent:
    """Return the audit event of an attempt's start in its sandbox."""
    facts: dict[str, JSON] = {
        "attempt": claim.attempt,
        "node": node,
        "sandbox": sandbox.id,
        "sandbox_runs_before": sandbox.runs,
        "sandbox_from_stock": from_stock,
        "image_digest": sandbox.identity.image_digest,
        "profile_hash": sandbox.identity.profile_hash,
    }
    return of_execution(claim.execution_id, audit.Action.EXECUTION_START, facts)


def ended(claim: Claim, result: Result) -> audit.AuditEvent:
    """Return the audit event of an execution's end."""
    succeeded = result.state is State.SUCCEEDED
    outcome = audit.Outcome.SUCCESS if succeeded else audit.Outcome.FAILURE
    facts: dict[str, JSON] = {
        "attempt": claim.attempt,
        "state": result.state.value,
        "reason": result.reason.value,
        "exit_code": result.exit_code,
        "signal": result.signal,
        "image_digest": result.image_digest,
        "profile_hash": result.profile_hash,
    }
    return of_execution(claim.execution_id, audit.Action.EXECUTION_END, facts, outcome)


def late(claim: Claim, why: str) -> audit.AuditEvent:
    """Return the audit event of an attempt whose result came too late."""
    facts = {"attempt": claim.attempt, "why": why}
    action, outcome = audit.Action.EXECUTION_LATE_RESULT, audit.Outcome.DENIED
    return of_execution(claim.execution_id, action, facts, outcome)
