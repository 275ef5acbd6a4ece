"""Rows of sandboxes that live, for clients: made, read, listed, changed, asked to end.

`residents` holds what their node writes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from runner.store.transaction import Later, Transaction
from runner.words.execution import JSON
from runner.words.lives import EndReason, Life, OnShortage, OnTimeout
from runner.words.living import SandboxRequest, StoredSandbox
from runner.words.resources import Resources
from runner.words.sandbox import Isolation

UNCLAIMED = timedelta(seconds=60)
"""The longest wait of a new sandbox for a node: its caller has gone by then."""
FILLING = timedelta(minutes=15)
"""The longest time for which a new sandbox may be given its files. Then its node ends it."""
_RESOURCES = TypeAdapter(Resources)


def insert_later(
    tx: Transaction,
    sandbox_id: UUID,
    request: SandboxRequest,
    *,
    created_by: str,
    filling: bool = False,
) -> Later:
    """Store a new sandbox that no node has yet; with `filling`, it is not whole until `filled`.

    Once the transaction has ended, `inserted` returns it.
    """
    return tx.later(
        "sandboxes.insert",
        sandbox_id=sandbox_id,
        created_by=created_by,
        timeout_s=request.timeout_s,
        on_timeout=request.on_timeout,
        auto_resume=request.auto_resume,
        on_shortage=request.on_shortage,
        max_life_s=request.max_life_s,
        project=request.project,
        image=request.spec.image,
        size=request.size,
        resources=Jsonb(asdict(request.spec.resources)),
        isolation=request.spec.isolation,
        egress=Jsonb([dict(rule) for rule in request.egress]),
        egress_policy=request.egress_policy,
        env=Jsonb(dict(request.env)),
        secret_env=Jsonb(dict(request.secret_env)),
        metadata=Jsonb(dict(request.metadata)),
        unclaimed=UNCLAIMED,
        filling=filling,
        filling_for=FILLING,
        builds=request.spec.builds,
        workdir=request.workdir,
        username=request.user,
    )


async def inserted(insertion: Later) -> StoredSandbox:
    """Return the sandbox that `insert_later` stored."""
    row = await insertion.one()
    if row is None:
        raise RuntimeError("PostgreSQL stored a sandbox and returned none")
    return of_row(row)


async def filled(tx: Transaction, sandbox_id: UUID) -> None:
    """Count a sandbox as whole, and begin its time; one that has ended meanwhile stays as it is."""
    await tx.run("sandboxes.filled", sandbox_id=sandbox_id)


async def get(tx: Transaction, sandbox_id: UUID) -> StoredSandbox | None:
    """Return the sandbox, or None if this tenant has none with that id."""
    row = await tx.one("sandboxes.get", sandbox_id=sandbox_id)
    return of_row(row) if row else None


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """The images of sandboxes to list: one image, or those whose names begin or end so."""

    exactly: str | None = None
    begins: str | None = None
    ends: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxListing:
    """The sandboxes to list. What is None lets all through."""

    limit: int
    beyond: UUID | None = None
    """The last id of the previous page."""
    oldest_first: bool = False
    project: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    states: Sequence[Life] | None = None
    image: ImageFilter = ImageFilter()
    started_from: datetime | None = None
    """When the first of them may have started."""


async def list_some(tx: Transaction, wanted: SandboxListing) -> list[StoredSandbox]:
    """Return sandboxes, newest first unless the listing says otherwise."""
    rows = await tx.all(
        "sandboxes.list_oldest" if wanted.oldest_first else "sandboxes.list",
        beyond=wanted.beyond,
        project=wanted.project,
        metadata=Jsonb(dict(wanted.metadata)) if wanted.metadata else None,
        states=list(wanted.states) if wanted.states else None,
        limit=wanted.limit,
        image=wanted.image.exactly,
        image_begins=wanted.image.begins,
        image_ends=wanted.image.ends,
        started_from=wanted.started_from,
    )
    return [of_row(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A sandbox's node and state. Without a node, none has claimed it."""

    state: Life
    reason: EndReason | None
    detail: str | None
    node: str | None
    auto_resume: bool = False
    kept_as: UUID | None = None
    door: str | None = None
    """Its node's; None if that has not registered."""
    node_removed: bool = False
    """Whether the operator has taken its node out of the deployment."""
    user: str | None = None
    """Its processes' user, if its template names one."""


async def where(tx: Transaction, sandbox_id: UUID) -> Whereabouts | None:
    """Return where a sandbox is, or None if this tenant has none with that id."""
    row = await tx.one("sandboxes.where", sandbox_id=sandbox_id)
    if row is None:
        return None
    return Whereabouts(
        Life(row["state"]),
        _reason(row),
        row["detail"],
        row["node"],
        row["auto_resume"],
        row["kept_as"],
        row["door"],
        row["node_removed"],
        row["username"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeChange:
    """A client's change of its sandbox. Metadata that is None stays as it is."""

    sets_timeout: bool = False
    """Whether its time begins again now: for `timeout_s`, or without end if that is None."""
    timeout_s: float | None = None
    metadata: Mapping[str, str] | None = None
    egress: tuple[Mapping[str, JSON], ...] | None = None
    """Rules in place of all it has; None leaves them as they are."""
    egress_policy: str | None = None
    """The named policy that `egress` comes from, if any."""
    on_shortage: OnShortage | None = None
    """None leaves it as it is."""


async def update(tx: Transaction, sandbox_id: UUID, change: LifeChange) -> StoredSandbox | None:
    """Change a sandbox that lives and return it; None if this tenant has no such sandbox."""
    row = await tx.one(
        "sandboxes.update",
        sandbox_id=sandbox_id,
        sets_timeout=change.sets_timeout,
        timeout_s=change.timeout_s,
        metadata=None if change.metadata is None else Jsonb(dict(change.metadata)),
        egress=None if change.egress is None else Jsonb([dict(rule) for rule in change.egress]),
        egress_policy=change.egress_policy,
        on_shortage=change.on_shortage,
    )
    return of_row(row) if row else None


async def end_unclaimed(tx: Transaction, sandbox_id: UUID, reason: EndReason, detail: str) -> bool:
    """End a sandbox that no node has claimed; return whether there was one to end."""
    return (
        await tx.run("sandboxes.end_unclaimed", sandbox_id=sandbox_id, reason=reason, detail=detail)
        > 0
    )


async def ask_to_stop(tx: Transaction, sandbox_id: UUID) -> bool:
    """Ask a sandbox's node to end it when it next looks; return whether that is new."""
    return await tx.run("sandboxes.ask_to_stop", sandbox_id=sandbox_id) > 0


async def counts(tx: Transaction) -> dict[Life, int]:
    """Return how many sandboxes of all tenants are in each state but `ended`."""
    rows = await tx.all("sandboxes.counts")
    return {Life(row["state"]): row["sandboxes"] for row in rows}


def of_row(row: DictRow) -> StoredSandbox:
    """Return the sandbox of a row with all its columns."""
    return StoredSandbox(
        id=row.pop("sandbox_id"),
        state=Life(row.pop("state")),
        reason=_reason(row),
        on_timeout=OnTimeout(row.pop("on_timeout")),
        on_shortage=OnShortage(row.pop("on_shortage")),
        resources=_RESOURCES.validate_python(row.pop("resources")),
        isolation=Isolation(row.pop("isolation")),
        egress=tuple(row.pop("egress")),
        user=row.pop("username"),
        **{name: value for name, value in row.items() if name != "reason"},
    )


def _reason(row: DictRow) -> EndReason | None:
    return EndReason(row["reason"]) if row["reason"] else None
