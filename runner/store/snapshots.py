"""Rows of snapshots: the files of a sandbox, kept as an object."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from runner.store.transaction import Transaction
from runner.words.resources import Resources
from runner.words.sandbox import Isolation, SandboxSpec

_RESOURCES = TypeAdapter(Resources)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """A snapshot to store; its object is in the store already."""

    id: UUID
    sandbox_id: UUID
    """The sandbox whose files these are. It may be gone."""
    name: str | None
    metadata: Mapping[str, str]
    created_by: str
    spec: SandboxSpec
    size: str
    archive_bytes: int
    sha256: str
    """Of the archive before it was sealed."""
    sealed_key: bytes = field(repr=False)
    object_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSnapshot(SnapshotFacts):
    """A snapshot of this tenant."""

    created_at: datetime
    expires_at: datetime | None


async def insert(
    tx: Transaction, new: SnapshotFacts, *, lasts_s: float | None = None
) -> StoredSnapshot:
    """Store a snapshot, for `lasts_s` seconds or as long as the tenant's quota permits."""
    row = await tx.one(
        "snapshots.insert",
        snapshot_id=new.id,
        sandbox_id=new.sandbox_id,
        name=new.name,
        metadata=Jsonb(dict(new.metadata)),
        created_by=new.created_by,
        image=new.spec.image,
        size=new.size,
        resources=Jsonb(asdict(new.spec.resources)),
        isolation=new.spec.isolation,
        bytes=new.archive_bytes,
        sha256=new.sha256,
        sealed_key=new.sealed_key,
        object_key=new.object_key,
        lasts_s=lasts_s,
    )
    if row is None:
        raise RuntimeError("PostgreSQL stored a snapshot and returned nothing")
    return _of_row(row)


async def get(tx: Transaction, snapshot_id: UUID) -> StoredSnapshot | None:
    """Return the snapshot, or None if this tenant has none with that id, or it has expired."""
    row = await tx.one("snapshots.get", snapshot_id=snapshot_id)
    return _of_row(row) if row else None


async def of_object(tx: Transaction, object_key: str) -> StoredSnapshot | None:
    """Return the snapshot that an object holds; None if there is none, or it has expired."""
    row = await tx.one("snapshots.of_object", object_key=object_key)
    return _of_row(row) if row else None


async def list_newest(
    tx: Transaction,
    *,
    before: UUID | None,
    limit: int,
    of: UUID | None = None,
    name: str | None = None,
) -> list[StoredSnapshot]:
    """Return snapshots, newest first; `before` is the last id of the previous page.

    Those that have expired are not among them.
    With `of`, only those of that sandbox; with `name`, only those of that name.
    """
    rows = await tx.all("snapshots.list", before=before, of=of, name=name, limit=limit)
    return [_of_row(row) for row in rows]


async def delete(tx: Transaction, snapshot_id: UUID) -> StoredSnapshot | None:
    """Forget a snapshot, and let go of its object; return what it was, if there was one."""
    row = await tx.one("snapshots.delete", snapshot_id=snapshot_id)
    return _of_row(row) if row else None


def _of_row(row: DictRow) -> StoredSnapshot:
    resources = _RESOURCES.validate_python(row.pop("resources"))
    spec = SandboxSpec(row.pop("image"), resources, Isolation(row.pop("isolation")))
    return StoredSnapshot(
        id=row.pop("snapshot_id"), spec=spec, archive_bytes=row.pop("bytes"), **row
    )
