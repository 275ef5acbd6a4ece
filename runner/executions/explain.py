"""The explanation of an execution's wait, refusal or end: its timeline, from stored facts alone.

The times are those of the database's clock. The node and the sandbox of a start come from the
tenant's own audit log. What other tenants do shows only as a place in the queue.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.executions.meanings import MEANINGS
from runner.executions.read import find
from runner.store import executions, quotas, tenants
from runner.store.db import Database
from runner.store.executions import Place
from runner.words.execution import Event, Execution
from runner.words.explanation import (
    ExplainedEnd,
    Explanation,
    Hindrance,
    Source,
    Stage,
    StageName,
    Wait,
)
from runner.words.states import ENDED, State
from runner.words.text import counted

KIND = "execution"
MOST_CHANGES = 200
"""More changes of state than any execution makes: attempts are bounded, and each makes three."""


@dataclass(frozen=True, slots=True)
class QueueStanding:
    """The place of a queued execution in its tenant, and of its tenant among the others."""

    place: Place | None
    suspended: bool
    active: int
    concurrent: int


async def explain(database: Database, caller: Caller, execution_id: UUID) -> Explanation:
    """Return what has happened to an execution, and why. Raises NotFound."""
    async with database.tenant(caller.tenant_id, snapshot=True) as tx:
        execution = await find(tx, execution_id)
        changes = await executions.state_changes(tx, execution_id, MOST_CHANGES)
        starts = await audit.newest_of(
            tx, KIND, str(execution_id), (Action.EXECUTION_START,), MOST_CHANGES
        )
        turn = None
        if execution.state is State.QUEUED:
            standing = await quotas.standing(tx)
            tenant = await tenants.get(tx)
            turn = QueueStanding(
                await executions.queue_place(tx, execution_id),
                suspended=tenant is not None and tenant.suspended_at is not None,
                active=standing.active,
                concurrent=standing.quotas.concurrent,
            )
    return explained(execution, changes, [json.loads(each.body) for each in starts.records], turn)


def explained(
    execution: Execution,
    changes: Sequence[Event],
    starts: Sequence[Mapping[str, Any]],
    turn: QueueStanding | None,
) -> Explanation:
    """Return the explanation of an execution from its changes and the records of its starts."""
    told = {each["metadata"]["attempt"]: each["metadata"] for each in starts}
    stages = _timed(sorted(_stages(execution, changes, told), key=lambda each: each.at))
    since = next((each.at for each in reversed(stages)), execution.created_at)
    return Explanation(
        id=execution.id,
        kind="execution",
        state=execution.state.value,
        stages=stages,
        wait=None if turn is None else waiting(turn, since),
        end=_end(execution),
    )


def waiting(turn: QueueStanding, since: datetime) -> Wait:
    """Return why an execution waits: the first of its hindrances that would go on without others.

    A tenant that is suspended, or runs as many executions as it may, waits wherever it stands.
    """
    position = None if turn.place is None else turn.place.position
    if turn.suspended:
        why, detail = Hindrance.TENANT_SUSPENDED, "the operator has suspended this tenant"
    elif turn.active >= turn.concurrent:
        why = Hindrance.QUOTA
        runs = counted(turn.active, "execution")
        detail = f"this tenant runs {runs}, and may run {turn.concurrent} at once"
    elif position:
        why = Hindrance.QUEUE
        run = "runs" if position == 1 else "run"
        detail = f"{counted(position, 'execution')} {run} before it"
    else:
        why = Hindrance.NO_FREE_WORKER
        detail = "it is next, and no worker has been free to take it"
    return Wait(
        why,
        detail,
        since,
        position=position,
        starts_in_s=None if turn.place is None else turn.place.starts_in_s,
        active=turn.active,
        concurrent=turn.concurrent,
    )


def _stages(
    execution: Execution, changes: Sequence[Event], told: Mapping[int, Mapping[str, Any]]
) -> Iterator[Stage]:
    for change in changes:
        attempt = change.attempt
        match State(change.data["state"]):
            case State.QUEUED if attempt == 0:
                yield Stage(StageName.SUBMITTED, change.at)
            case State.QUEUED:
                detail = change.data.get("detail")
                yield Stage(StageName.QUEUED_AGAIN, change.at, attempt=attempt, detail=detail)
            case State.STARTING:
                yield Stage(StageName.CLAIMED, change.at, attempt=attempt)
            case State.RUNNING:
                yield _started(execution, change, told.get(attempt, {}))
            case _:
                at = execution.ended_at or change.at
                yield Stage(StageName.ENDED, at, attempt=attempt or None)
    if execution.cancel_requested_at is not None:
        yield Stage(StageName.STOP_REQUESTED, execution.cancel_requested_at)


def _started(execution: Execution, change: Event, facts: Mapping[str, Any]) -> Stage:
    # The event may have been written with the end; the row says when the last attempt began.
    last = change.attempt == execution.attempt and execution.started_at is not None
    at = execution.started_at if last else None
    return Stage(
        StageName.STARTED,
        at or change.at,
        attempt=change.attempt,
        node=facts.get("node"),
        sandbox=facts.get("sandbox"),
        source=_source(facts),
    )


def _source(facts: Mapping[str, Any]) -> Source | None:
    if facts.get("sandbox_runs_before"):
        return "reused"
    if "sandbox_from_stock" not in facts:
        return None
    return "stock" if facts["sandbox_from_stock"] else "fresh"


def _timed(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages, each with the seconds since the one before."""
    return (
        *stages[:1],
        *(
            replace(each, after_s=(each.at - before.at).total_seconds())
            for before, each in pairwise(stages)
        ),
    )


def _end(execution: Execution) -> ExplainedEnd | None:
    if execution.result is None or execution.state not in ENDED:
        return None
    result = execution.result
    return ExplainedEnd(result.reason.value, result.detail, MEANINGS[result.reason])
