"""Rows of sandboxes that live, for their node. Every change is fenced.

A change names the worker process that holds the sandbox. If another process of the node, the
reaper or the API came first, it changes nothing and raises LeaseLost. So a sandbox ends once, with
one reason. Only the database's clock gives times.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.types.json import Jsonb

from runner.store.db import Database
from runner.store.sandboxes import of_row
from runner.store.transaction import Transaction
from runner.words.errors import LeaseLost
from runner.words.execution import JSON
from runner.words.lives import EndReason, Life, before
from runner.words.living import StoredSandbox
from runner.words.sandbox import SandboxSpec

LOST = "the sandbox ended, or another process of its node holds it"


@dataclass(frozen=True, slots=True)
class SandboxHold:
    """A worker process's exclusive right to one sandbox while its lease lasts."""

    tenant_id: UUID
    sandbox_id: UUID
    instance: str


@dataclass(frozen=True, slots=True)
class HeldSandbox:
    """A sandbox that any process of a node holds or held."""

    tenant_id: UUID
    sandbox_id: UUID
    state: Life
    instance: str | None = None
    """The process; None if no node has claimed it."""
    node: str | None = None


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A sandbox that was taken over, and what an earlier process noted to find it again."""

    sandbox: StoredSandbox
    guest: Mapping[str, JSON] | None = field(repr=False)
    """None if it was not running yet."""
    masks: bytes | None = field(default=None, repr=False)
    """The values that must be masked in it, sealed."""


@dataclass(frozen=True, slots=True)
class LifeTimes:
    """The times at which a sandbox was made, began and ended, by the database's clock."""

    created_at: datetime
    started_at: datetime | None
    ended_at: datetime


async def claim(
    tx: Transaction, sandbox_id: UUID, *, node: str, instance: str, lease: timedelta
) -> StoredSandbox:
    """Claim a new sandbox of this transaction's tenant for a node. Raises LeaseLost."""
    row = await tx.one(
        "sandboxes.claim", sandbox_id=sandbox_id, node=node, instance=instance, lease=lease
    )
    if row is None:
        raise LeaseLost("there is no such sandbox that waits for a node")
    return of_row(row)


async def start(
    tx: Transaction,
    hold: SandboxHold,
    guest: Mapping[str, JSON],
    *,
    cpu_s: float | None = None,
    record: str | None = None,
) -> datetime:
    """Record that it takes commands, and how to find it again; return when. Raises LeaseLost.

    Also raises LeaseLost if somebody has asked to stop it meanwhile: end it then. Its use counts
    from now on: the `cpu_s` that its container has used before are not charged to the tenant.
    The audit `record` is stored with the change, or not at all.
    """
    row = await tx.one(
        "sandboxes.start",
        sandbox_id=hold.sandbox_id,
        instance=hold.instance,
        guest=Jsonb(dict(guest)),
        cpu_s=cpu_s,
        record=record,
    )
    if row is None:
        raise LeaseLost(LOST)
    started_at: datetime = row["started_at"]
    return started_at


async def begin(
    tx: Transaction,
    hold: SandboxHold,
    spec: SandboxSpec,
    guest: Mapping[str, JSON],
    *,
    node: str,
    lease: timedelta,
    cpu_s: float | None,
    record: str,
) -> tuple[StoredSandbox, datetime]:
    """Claim and start a new sandbox in one statement, for which a container was made ahead.

    Returns it, and since when it takes commands.

    Its row must ask for what was made: a container of this spec, without secrets and without a way
    out. Otherwise nothing changes, and this raises LeaseLost. See `claim` and `start`.
    """
    row = await tx.one(
        "sandboxes.begin",
        sandbox_id=hold.sandbox_id,
        node=node,
        instance=hold.instance,
        lease=lease,
        image=spec.image,
        resources=Jsonb(asdict(spec.resources)),
        isolation=spec.isolation,
        guest=Jsonb(dict(guest)),
        cpu_s=cpu_s,
        record=record,
    )
    if row is None:
        raise LeaseLost("there is no such sandbox that waits for a node")
    return of_row(row), row["started_at"]


async def change(
    tx: Transaction, hold: SandboxHold, target: Life, *, record: str | None = None
) -> None:
    """Give it a state other than `ended`, from one that the table of lives allows, or itself.

    It may be stored again, because the caller may not know whether it was stored. The audit
    `record` is stored with the change, or not at all.

    Raises LeaseLost if another holds it, or if `target` does not follow its state.
    """
    changed = await tx.run(
        "sandboxes.change",
        sandbox_id=hold.sandbox_id,
        instance=hold.instance,
        target=target,
        sources=[*before(target), target],
        record=record,
    )
    if not changed:
        raise LeaseLost(f"{LOST}, or is in no state that {target.value} may follow")


async def count_anew(tx: Transaction, hold: SandboxHold) -> datetime | None:
    """Begin the time of a resumed sandbox again; return when it will be up.

    Returns None if it has no limit. Raises LeaseLost.
    """
    row = await tx.one("sandboxes.count_anew", sandbox_id=hold.sandbox_id, instance=hold.instance)
    if row is None:
        raise LeaseLost(LOST)
    expires_at: datetime | None = row["expires_at"]
    return expires_at


async def take_over(
    tx: Transaction, held: HeldSandbox, *, node: str, instance: str, lease: timedelta
) -> TakenOver | None:
    """Take what an earlier process of this node held; None if it has ended meanwhile."""
    row = await tx.one(
        "sandboxes.take_over",
        sandbox_id=held.sandbox_id,
        node=node,
        earlier=held.instance,
        instance=instance,
        lease=lease,
    )
    if row is None:
        return None
    guest, masks = row.pop("guest"), row.pop("masks")
    return TakenOver(of_row(row), guest, masks)


async def keep_masks(tx: Transaction, hold: SandboxHold, masks: bytes) -> None:
    """Store what must be masked in it, sealed, for a later process. Raises LeaseLost."""
    kept = await tx.run(
        "sandboxes.keep_masks",
        sandbox_id=hold.sandbox_id,
        instance=hold.instance,
        masks=masks,
    )
    if not kept:
        raise LeaseLost(LOST)


async def end(
    tx: Transaction,
    hold: SandboxHold,
    reason: EndReason,
    detail: str,
    *,
    kept_as: UUID | None = None,
) -> LifeTimes:
    """Write the one end of the sandbox, and the snapshot that holds the files of an evicted one.

    Raises LeaseLost if it has an end.
    """
    row = await tx.one(
        "sandboxes.end",
        sandbox_id=hold.sandbox_id,
        instance=hold.instance,
        reason=reason,
        detail=detail,
        kept_as=kept_as,
    )
    if row is None:
        raise LeaseLost(LOST)
    return LifeTimes(**row)


async def end_expired(
    tx: Transaction, sandbox_id: UUID, reason: EndReason, detail: str
) -> LifeTimes | None:
    """End a sandbox, of whichever node, whose lease has run out; None if it has not."""
    row = await tx.one("sandboxes.end_expired", sandbox_id=sandbox_id, reason=reason, detail=detail)
    return LifeTimes(**row) if row else None


async def renew(
    database: Database, *, node: str, instance: str, lease: timedelta
) -> dict[UUID, Life]:
    """Extend the leases of all that this process holds; return their states, by id.

    It no longer holds a sandbox that is not in the answer. One that is `stopping` was asked to end.
    """
    (rows,) = await database.at_once(
        None, ("sandboxes.renew", {"node": node, "instance": instance, "lease": lease})
    )
    return {row["sandbox_id"]: Life(row["state"]) for row in rows}


async def of_node(tx: Transaction, node: str) -> list[HeldSandbox]:
    """Return all sandboxes that may live on a node, of any tenant."""
    return [
        HeldSandbox(row["tenant_id"], row["sandbox_id"], Life(row["state"]), row["instance"], node)
        for row in await tx.all("sandboxes.of_node", node=node)
    ]


async def expired(tx: Transaction, limit: int) -> list[HeldSandbox]:
    """Return sandboxes whose lease has ended, of any tenant and node."""
    rows = await tx.all("sandboxes.expired", limit=limit)
    return [HeldSandbox(**{**row, "state": Life(row["state"])}) for row in rows]


async def of_suspended(tx: Transaction, node: str, limit: int) -> Sequence[tuple[UUID, UUID]]:
    """Return tenant and id of suspended tenants' sandboxes on a node."""
    rows = await tx.all("sandboxes.of_suspended", node=node, limit=limit)
    return [(row["tenant_id"], row["sandbox_id"]) for row in rows]
