"""The order of executions across tenants: the next one to claim, and those to reap."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from psycopg.rows import DictRow

from runner.store.db import Database
from runner.store.executions import LIMITS
from runner.store.transaction import Transaction
from runner.words.execution import (
    Claim,
    ExecutionRequest,
    InputFile,
    Program,
    RunSpec,
    StoredObject,
)
from runner.words.sandbox import Isolation, SandboxSpec
from runner.words.trace import TracePlace


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim of a worker, and the request to carry out."""

    claim: Claim
    cancel_requested: bool
    waited_s: float
    """How long it waited in the queue before this attempt."""
    trace: TracePlace | None
    """The place in a trace of the request that submitted it."""
    _row: DictRow
    _files: Sequence[DictRow]

    def request(self) -> ExecutionRequest:
        """Return what the execution asked for."""
        row = self._row
        limits = LIMITS.validate_python(row["limits"])
        bounds = replace(limits.bounds, output_keep=row["output_keep"])
        program = Program(
            argv=tuple(row["argv"]),
            env=row["env"],
            stdin=row["stdin"],
            interpret=row["interpret"],
        )
        files = tuple(map(_input_file, self._files))
        return ExecutionRequest(
            SandboxSpec(row["image"], limits.resources, Isolation(row["isolation"])),
            RunSpec(program, bounds, files, row["secret_env"], tuple(row["artifacts"])),
            size=row["size"],
            egress=tuple(row["egress"]),
            egress_policy=row["egress_policy"],
            metadata=row["metadata"],
            on_worker_loss=row["on_worker_loss"],
            reuse=row["reuse"],
            language=row["language"],
            artifacts_to=row["artifacts_to"],
        )


def _input_file(row: DictRow) -> InputFile:
    if row["object_key"] is None:
        return InputFile(row["path"], row["content"])
    return InputFile(row["path"], StoredObject(row["object_key"], row["size"], row["sha256"]))


def _claimed(claim: Claim, row: DictRow, files: Sequence[DictRow]) -> Claimed:
    asked = row["cancel_requested_at"] is not None
    trace = row["traceparent"] and TracePlace.read(row["traceparent"])
    return Claimed(claim, asked, row["waited_s"] or 0.0, trace, row, files)


async def load(tx: Transaction, claim: Claim) -> Claimed:
    """Load a claimed execution, in a transaction of its tenant."""
    _, (row,), files = await tx.together(
        ("scheduling.take_up", {"execution_id": claim.execution_id}),
        ("executions.load_claimed", {}),
        ("executions.load_claimed_files", {}),
    )
    return _claimed(claim, row, files)


@dataclass(frozen=True, slots=True)
class Left:
    """An execution of a template that another node has the image of: left to that one for now."""

    tenant_id: UUID
    execution_id: UUID


async def claim(
    database: Database, *, node: str, instance: str, lease: timedelta
) -> Claimed | Left | None:
    """Claim the next execution and load it; return None if no tenant may run one now.

    Returns an execution that is left to another node if there is nothing else.
    The transaction begins without a tenant. From the claim on, it belongs to the claimed one's
    tenant.
    """
    (ours,), requests, files = await database.at_once(
        None,
        ("scheduling.claim", {"node": node, "instance": instance, "lease": lease}),
        ("executions.load_claimed", {}),
        ("executions.load_claimed_files", {}),
    )
    if ours["execution_id"] is None:
        one = ours["left_alone"]
        return Left(*map(UUID, one.split())) if one else None
    (row,) = requests
    claim = Claim(ours["execution_id"], ours["tenant_id"], ours["attempt"])
    return _claimed(claim, row, files)


async def claimable(tx: Transaction) -> bool:
    """Return whether a claim would find something."""
    return _claimable(await tx.one("scheduling.claimable"))


def claimable_afterwards(tx: Transaction) -> Callable[[], Awaitable[bool]]:
    """Return a function that tells, after `tx` is stored, whether a claim would find something.

    So a slot that becomes free learns of executions that nobody could claim while it was in use.
    If PostgreSQL could not tell, there may be some: a claim that finds none costs little.
    """
    sent = tx.afterwards("scheduling.claimable")

    async def told() -> bool:
        return sent.failure is not None or _claimable(await sent.one())

    return told


def _claimable(row: DictRow | None) -> bool:
    return bool(row and row["claimable"])


async def expired(tx: Transaction, limit: int) -> list[Claim]:
    """Return attempts whose lease has ended, of any tenant."""
    return [Claim(**row) for row in await tx.all("scheduling.expired", limit=limit)]


async def of_suspended(tx: Transaction, limit: int) -> list[tuple[UUID, UUID]]:
    """Return tenant and id of suspended tenants' executions that still wait or run."""
    rows = await tx.all("scheduling.of_suspended", limit=limit)
    return [(row["tenant_id"], row["execution_id"]) for row in rows]


async def end_leases_of_node(tx: Transaction, *, node: str, instance: str) -> int:
    """End the leases that earlier worker processes of this node left; return how many."""
    row = await tx.one("scheduling.end_leases_of_node", node=node, instance=instance)
    return int(row["ended"]) if row else 0


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """The work that a tenant has waiting, and the work that it has done lately."""

    tenant: str
    tier: str
    suspended: bool
    waiting: int
    active: int
    concurrent: int
    """How many of its executions may run at once."""
    living: int
    """Sandboxes."""
    ended_last_minute: int
    """Executions."""


async def load_by_tenant(tx: Transaction, limit: int) -> list[TenantLoad]:
    """Return the tenants that have work, those with the longest queues first.

    Needs the operator's login.
    """
    rows = await tx.all("scheduling.load_by_tenant", limit=limit)
    return [TenantLoad(**row) for row in rows]
