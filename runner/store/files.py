"""A tenant's files: names and facts, each for an object in the store."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from runner.store.transaction import Transaction
from runner.words.errors import PreconditionFailed

CHANGED = "the file is not what the request expects: read it again"


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to store; its object is in the store already."""

    path: str
    size: int
    sha256: str
    media_type: str
    object_key: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of this tenant."""

    path: str
    size: int
    sha256: str
    media_type: str
    object_key: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Condition:
    """A write's condition on its path: no file (`only_new`), or a file with one of `contents`.

    `contents` are SHA-256 sums. Empty means any content; None means no requirement.
    """

    only_new: bool = False
    contents: frozenset[str] | None = None

    def met_by(self, found: StoredFile | None) -> bool:
        """Return whether the file that is there meets the condition."""
        if found is None:
            return self.contents is None
        if self.only_new:
            return False
        return not self.contents or found.sha256 in self.contents


ALWAYS = Condition()


def demand(condition: Condition, found: StoredFile | None) -> None:
    """Raise PreconditionFailed unless the file that is there meets the condition."""
    if not condition.met_by(found):
        raise PreconditionFailed(CHANGED)


async def put(tx: Transaction, new: NewFile, condition: Condition = ALWAYS) -> StoredFile:
    """Store a file. It replaces one of that name, whose object is then removed.

    Raises PreconditionFailed. If concurrent writers require the same, one of them wins.
    """
    demand(condition, await _locked(tx, new.path))
    row = await tx.one(
        "files.put",
        path=new.path,
        size=new.size,
        sha256=new.sha256,
        media_type=new.media_type,
        object_key=new.object_key,
        expires_at=new.expires_at,
        only_new=condition.only_new,
    )
    if row is None:
        raise PreconditionFailed(CHANGED)
    return StoredFile(**row)


async def get(tx: Transaction, path: str) -> StoredFile | None:
    """Return the file of that name, or None."""
    row = await tx.one("files.get", path=path)
    return StoredFile(**row) if row else None


async def hold(tx: Transaction, paths: Collection[str]) -> dict[str, StoredFile]:
    """Return those of these files that exist, and lock them until the transaction ends."""
    rows = await tx.all("files.hold", paths=list(paths)) if paths else []
    return {row["path"]: StoredFile(**row) for row in rows}


async def list_after(
    tx: Transaction, *, prefix: str, after: str, limit: int
) -> Sequence[StoredFile]:
    """Return files whose names begin with `prefix` and follow `after`, by name."""
    rows = await tx.all("files.list", prefix=prefix, after=after, limit=limit)
    return [StoredFile(**row) for row in rows]


async def delete(tx: Transaction, path: str, condition: Condition = ALWAYS) -> StoredFile | None:
    """Delete a file and return it, or None if there is none. Raises PreconditionFailed."""
    found = await _locked(tx, path)
    if found is None:
        return None
    demand(condition, found)
    await tx.run("files.delete", path=path)
    return found


async def _locked(tx: Transaction, path: str) -> StoredFile | None:
    row = await tx.one("files.lock", path=path)
    return StoredFile(**row) if row else None
