"""Executions as a client sees them: submitted, read, listed, cancelled, followed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.execution import (
    NOTE,
    OMITTED,
    Artifact,
    Event,
    EventKind,
    Execution,
    ExecutionRequest,
    InputFile,
    Result,
    StoredObject,
    StoredOutput,
    Stream,
    never_ran,
)
from runner.words.resources import Limits
from runner.words.sandbox import Isolation
from runner.words.states import Reason, State
from runner.words.trace import TracePlace

LIMITS = TypeAdapter(Limits)
RESULT = TypeAdapter(Result)


@dataclass(frozen=True, slots=True)
class ExecutionQuery:
    """The executions that a page lists: the newest `limit` that match all of this."""

    limit: int
    before: UUID | None = None
    """The last id of the previous page."""
    project: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[State] | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artifact, the key of its bytes in the store, and the file that it becomes, if any."""

    artifact: Artifact
    object_key: str
    file_path: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the queue. `starts_in_s` is None if nobody knows how fast the queue moves."""

    position: int
    starts_in_s: float | None


def insert_later(
    tx: Transaction,
    execution_id: UUID,
    request: ExecutionRequest,
    trace: TracePlace | None = None,
) -> None:
    """Store a new, queued execution with its files and first event, in the next round trip.

    `trace` is the place in a trace of the request that submits it.
    """
    run, program = request.run, request.run.program
    tx.later(
        "executions.insert",
        execution_id=execution_id,
        language=request.language,
        image=request.sandbox.image,
        size=request.size,
        limits=Jsonb(LIMITS.dump_python(request.limits)),
        isolation=request.sandbox.isolation,
        egress=Jsonb([dict(rule) for rule in request.egress]),
        egress_policy=request.egress_policy,
        secret_env=Jsonb(dict(run.secret_env)),
        metadata=Jsonb(dict(request.metadata)),
        on_worker_loss=request.on_worker_loss,
        argv=list(program.argv),
        env=Jsonb(dict(program.env)),
        stdin=program.stdin,
        project=request.project,
        artifacts=list(run.artifacts),
        artifacts_to=request.artifacts_to,
        interpret=program.interpret,
        reuse=request.reuse,
        output_keep=run.bounds.output_keep,
        traceparent=trace and trace.text,
        paths=[file.path for file in run.files],
        contents=[None if _stored(file) else file.content for file in run.files],
        object_keys=[(held := _stored(file)) and held.object_key for file in run.files],
        sizes=[(held := _stored(file)) and held.size for file in run.files],
        sums=[(held := _stored(file)) and held.sha256 for file in run.files],
    )


def insert_state_event_later(
    tx: Transaction, execution_id: UUID, *, seq: int, attempt: int, data: dict[str, Any]
) -> None:
    """Append a state change as an event, with the `seq` of its update, in the next round trip."""
    tx.later(
        "executions.insert_event",
        execution_id=execution_id,
        seq=seq,
        attempt=attempt,
        kind=EventKind.STATE,
        data=Jsonb(data),
    )


async def get(tx: Transaction, execution_id: UUID) -> Execution | None:
    """Return the execution, or None if this tenant has none with that id."""
    row = await tx.one("executions.get", execution_id=execution_id)
    return _execution(row) if row else None


async def list_newest(tx: Transaction, wanted: ExecutionQuery) -> list[Execution]:
    """Return the wanted executions, newest first."""
    values: dict[str, Any] = {
        "before": wanted.before,
        "project": wanted.project,
        "states": list(wanted.states) if wanted.states else None,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "limit": wanted.limit,
    }
    if not wanted.metadata:
        rows = await tx.all("executions.list", **values)
        return [_execution(row) for row in rows]
    values["metadata"] = Jsonb(dict(wanted.metadata))
    # Search by the rarest condition first: PostgreSQL cannot tell how many rows have a label.
    by_state = wanted.states and await _states_are_rarer(tx, values)
    name = "executions.list_labelled_by_state" if by_state else "executions.list_labelled"
    return [_execution(row) for row in await tx.all(name, **values)]


async def _states_are_rarer(tx: Transaction, values: Mapping[str, Any]) -> bool:
    row = await tx.one(
        "executions.states_are_rarer", states=values["states"], metadata=values["metadata"]
    )
    return bool(row and row["rarer"])


async def cancel(tx: Transaction, execution_id: UUID) -> State | None:
    """Cancel a queued execution at once, or ask the worker to end an active one.

    Returns its earlier state, or None if there is no such execution. An ended one stays as it is.
    """
    row = await tx.one("executions.lock", execution_id=execution_id)
    if row is None:
        return None
    state = State(row["state"])
    if state is State.QUEUED:
        result = never_ran(State.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled while queued")
        ended = await tx.one(
            "executions.cancel_queued",
            execution_id=execution_id,
            attempt=row["attempt"],
            result=Jsonb(RESULT.dump_python(result, mode="json")),
        )
        if ended is None:
            raise RuntimeError("a locked, queued execution changed its state")
        insert_state_event_later(
            tx,
            execution_id,
            seq=ended["seq"],
            attempt=row["attempt"],
            data={"state": result.state, "reason": result.reason, "detail": result.detail},
        )
    else:
        await tx.run("executions.request_cancel", execution_id=execution_id)
    return state


async def events_after(tx: Transaction, execution_id: UUID, after: int, limit: int) -> list[Event]:
    """Return the events that follow number `after`, in order."""
    rows = await tx.all(
        "executions.events_after", execution_id=execution_id, after=after, limit=limit
    )
    return _events(rows)


async def state_changes(tx: Transaction, execution_id: UUID, limit: int) -> list[Event]:
    """Return the events that tell of a new state, in order."""
    return _events(await tx.all("executions.state_changes", execution_id=execution_id, limit=limit))


def _events(rows: Sequence[DictRow]) -> list[Event]:
    return [Event(**{**row, "kind": EventKind(row["kind"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class Whole:
    """An execution with the output and artifacts of its last attempt, once it has ended."""

    execution: Execution
    output: Mapping[Stream, StoredOutput]
    artifacts: Sequence[StoredArtifact]


async def whole(database: Database, tenant_id: UUID, execution_id: UUID) -> Whole | None:
    """Return the execution, as `get` does, with its output and artifacts."""
    wanted = {"execution_id": execution_id}
    rows, pieces, left = await database.at_once(
        tenant_id,
        ("executions.get", wanted),
        ("executions.output_of_ended", wanted),
        ("executions.artifacts", wanted),
    )
    if not rows:
        return None
    return Whole(_execution(rows[0]), joined(pieces), [_artifact(row) for row in left])


async def artifacts(tx: Transaction, execution_id: UUID) -> list[StoredArtifact]:
    """Return the execution's artifacts, ordered by path."""
    rows = await tx.all("executions.artifacts", execution_id=execution_id)
    return [_artifact(row) for row in rows]


async def artifact(tx: Transaction, execution_id: UUID, path: str) -> StoredArtifact | None:
    """Return one artifact by its path, or None."""
    row = await tx.one("executions.artifact", execution_id=execution_id, path=path)
    return _artifact(row) if row else None


async def queue_place(tx: Transaction, execution_id: UUID) -> Place | None:
    """Return where a queued execution stands, or None if it is not queued."""
    row = await tx.one("executions.queue_place", execution_id=execution_id)
    if row is None or row["position"] is None:
        return None
    position, interval = int(row["position"]), row["interval_s"]
    return Place(position, None if interval is None else round((position + 1) * interval, 3))


def _stored(file: InputFile) -> StoredObject | None:
    return file.content if isinstance(file.content, StoredObject) else None


def joined(pieces: Sequence[DictRow]) -> dict[Stream, StoredOutput]:
    """Return the output of each stream that these events add up to."""
    whole = {stream: bytearray() for stream in Stream}
    gaps: dict[Stream, int] = {}
    noted = dict.fromkeys(Stream, 0)
    for row in pieces:
        stream = Stream(row["kind"])
        if OMITTED in row["data"]:
            gaps[stream] = len(whole[stream])
        if NOTE in row["data"]:
            noted[stream] += len(row["chunk"])
        whole[stream] += row["chunk"]
    return {
        stream: StoredOutput(bytes(raw), gaps.get(stream), noted[stream])
        for stream, raw in whole.items()
    }


def _artifact(row: DictRow) -> StoredArtifact:
    key = row.pop("object_key")
    return StoredArtifact(artifact=Artifact(**row), object_key=key)


def _execution(row: DictRow) -> Execution:
    result = row.pop("result")
    return Execution(
        id=row.pop("execution_id"),
        state=State(row.pop("state")),
        limits=LIMITS.validate_python(row.pop("limits")),
        isolation=Isolation(row.pop("isolation")),
        egress=tuple(row.pop("egress")),
        result=RESULT.validate_python(result) if result else None,
        **row,
    )
