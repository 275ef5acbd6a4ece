"""One attempt at an execution, as its worker writes it. Every change is fenced.

A change names its attempt. If another attempt, a cancellation or the reaper came first, the change
touches nothing and raises LeaseLost. So an execution gets exactly one result, even from late
workers. Only the database's clock gives times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.types.json import Jsonb

from runner.store import ledger, usage
from runner.store.db import Database
from runner.store.executions import RESULT, StoredArtifact, insert_state_event_later, joined
from runner.store.transaction import Later, Transaction
from runner.words.errors import LeaseLost
from runner.words.execution import JSON, Claim, EventKind, Result, StoredOutput, Stream
from runner.words.states import ACTIVE, State, may_change


@dataclass(frozen=True, slots=True)
class Stored:
    """An active attempt as the reaper reads it, with its row locked."""

    state: State
    attempt: int
    cancel_requested: bool
    retry_asked: bool
    lease_expired: bool
    given_back: int = 0

    @property
    def tries(self) -> int:
        """How many attempts count; those that were returned for a fault of the node do not."""
        return self.attempt - self.given_back


@dataclass(frozen=True, slots=True)
class Begun:
    """The start of a program: how long ago it was, and its audit record."""

    ago: timedelta
    record: str


async def start(database: Database, claim: Claim, lease: timedelta, begun: Begun) -> int:
    """Record at once that the program runs; return its event's number, even if repeated.

    Raises LeaseLost.
    """
    started = {
        "execution_id": claim.execution_id,
        "attempt": claim.attempt,
        "lease": lease,
        "began_ago": begun.ago,
        "began": begun.record,
    }
    (rows,) = await database.at_once(claim.tenant_id, ("executions.start_running", started))
    if not rows:
        raise LeaseLost("the execution was taken over before its program started")
    return int(rows[0]["seq"])


async def renew(tx: Transaction, claim: Claim, lease: timedelta) -> bool:
    """Extend the lease; return whether a cancellation was asked for. Raises LeaseLost."""
    row = await tx.one(
        "executions.renew_lease",
        execution_id=claim.execution_id,
        attempt=claim.attempt,
        lease=lease,
    )
    if row is None:
        raise LeaseLost("the lease ended before it was renewed")
    return bool(row["cancel_requested"])


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened while a program ran: some output, or an egress decision."""

    kind: EventKind
    chunk: bytes = b""
    data: Mapping[str, JSON] = field(default_factory=dict)


def output_of(entries: Sequence[Entry]) -> dict[Stream, StoredOutput]:
    """Return the output that is read back once these entries are all that is stored."""
    streams = {stream.value for stream in Stream}
    return joined(
        [
            {"kind": each.kind.value, "data": each.data, "chunk": each.chunk}
            for each in entries
            if each.kind.value in streams
        ]
    )


async def append_events(
    tx: Transaction, claim: Claim, entries: Sequence[Entry], *, after: int
) -> bool:
    """Append entries after event `after`; return whether this call appended them.

    False means that an earlier call did, whose commit was never confirmed. Raises LeaseLost.
    """
    last = after + len(entries)
    written = await tx.run(
        "executions.append_events",
        execution_id=claim.execution_id,
        attempt=claim.attempt,
        after=after,
        **_columns(entries),
    )
    if written != len(entries):
        row = await tx.one("executions.position", execution_id=claim.execution_id)
        if row is None or (row["state"], row["attempt"], row["event_seq"]) != (
            State.RUNNING,
            claim.attempt,
            last,
        ):
            raise LeaseLost("the execution was taken over while it ran")
    return written == len(entries)


def _columns(entries: Sequence[Entry]) -> dict[str, list[object]]:
    return {
        "kinds": [entry.kind.value for entry in entries],
        "data": [Jsonb(dict(entry.data)) for entry in entries],
        "chunks": [entry.chunk for entry in entries],
    }


async def requeue(tx: Transaction, claim: Claim, why: str, *, free: bool = False) -> None:
    """Put the execution back into its tenant's queue; a `free` attempt does not count as a try.

    Raises LeaseLost.
    """
    # Lock the execution's row before the day's row, as when an execution ends. In a different
    # order, two transactions could deadlock.
    row = await tx.one(
        "executions.requeue", execution_id=claim.execution_id, attempt=claim.attempt, free=free
    )
    if row is None:
        raise LeaseLost("the execution was taken over before it was queued again")
    usage.record_requeued_later(tx, claim, row["started_at"])
    insert_state_event_later(
        tx,
        claim.execution_id,
        seq=row["seq"],
        attempt=claim.attempt,
        data={"state": State.QUEUED, "detail": why},
    )


@dataclass(frozen=True, slots=True)
class Times:
    """The times at which an execution was submitted, began and ended, by the database's clock.

    Also the time at which somebody asked to cancel it, if anybody did.
    """

    created_at: datetime
    started_at: datetime | None
    ended_at: datetime
    cancel_requested_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rest:
    """Entries that are not written yet, and the event that they follow."""

    entries: Sequence[Entry] = ()
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an execution, which is being written."""

    _sent: Later

    async def times(self) -> Times:
        """Return the times, once a later statement has been sent. Raises LeaseLost."""
        row = await self._sent.one()
        if row is None:
            raise LeaseLost("the execution already ended or belongs to another attempt")
        return Times(**row)


async def finish(
    tx: Transaction, claim: Claim, result: Result, artifacts: Sequence[StoredArtifact] = ()
) -> Times:
    """Write the only result of the execution that is accepted. Raises LeaseLost."""
    finishing = await finish_with(tx, claim, result, artifacts)
    await tx.flush()
    return await finishing.times()


async def finish_with(
    tx: Transaction,
    claim: Claim,
    result: Result,
    artifacts: Sequence[StoredArtifact] = (),
    rest: Rest = Rest(),
    begun: Begun | None = None,
) -> Finish:
    """Write the result as `finish` does, after the rest, in the round trip of the next statement.

    If the start is not recorded yet, this also records it, with its audit record. Read the times
    before the transaction ends: they tell whether the result is accepted. Raises LeaseLost.
    """
    end = {
        "state": result.state,
        "reason": result.reason,
        "detail": result.detail,
        "exit_code": result.exit_code,
        "signal": result.signal,
    }
    entries = [*rest.entries, Entry(EventKind.STATE, data=end)]
    sources = [source for source in sorted(ACTIVE) if may_change(source, result.state)]
    if begun is not None:
        # Go through RUNNING, from which every end is allowed.
        entries.insert(0, Entry(EventKind.STATE, data={"state": State.RUNNING}))
        sources = [State.STARTING]
        tx.append_record(begun.record)
    sent = tx.later(
        "executions.finish",
        execution_id=claim.execution_id,
        attempt=claim.attempt,
        state=result.state,
        sources=sources,
        result=Jsonb(RESULT.dump_python(result, mode="json")),
        after=rest.after,
        began_ago=begun and begun.ago,
        **_columns(entries),
        **usage.columns(result, artifacts),
    )
    if not await ledger.keep(tx, [stored.object_key for stored in artifacts]):
        raise LeaseLost("an artifact was given up before the result was written")
    for stored in artifacts:
        tx.later(
            "executions.insert_artifact",
            execution_id=claim.execution_id,
            path=stored.artifact.path,
            size=stored.artifact.size,
            sha256=stored.artifact.sha256,
            media_type=stored.artifact.media_type,
            object_key=stored.object_key,
        )
    return Finish(sent)


async def is_finished_with(tx: Transaction, claim: Claim, result: Result) -> bool:
    """Return whether exactly this result is stored: an unconfirmed commit may have happened."""
    row = await tx.one("executions.position", execution_id=claim.execution_id)
    return (
        row is not None
        and row["attempt"] == claim.attempt
        and row["result"] == RESULT.dump_python(result, mode="json")
    )


async def is_running(tx: Transaction, claim: Claim) -> bool:
    """Return whether this attempt's start is recorded; waits for a transaction that writes it."""
    stored = await lock(tx, claim.execution_id)
    return stored is not None and (stored.attempt, stored.state) == (claim.attempt, State.RUNNING)


async def lock(tx: Transaction, execution_id: UUID) -> Stored | None:
    """Lock the execution's row and return its state; None if it no longer exists."""
    row = await tx.one("executions.lock", execution_id=execution_id)
    if row is None:
        return None
    return Stored(
        state=State(row["state"]),
        attempt=row["attempt"],
        cancel_requested=row["cancel_requested_at"] is not None,
        retry_asked=row["on_worker_loss"] == "retry",
        lease_expired=row["lease_expired"],
        given_back=row["given_back"],
    )
