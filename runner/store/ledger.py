"""The ledger of stored objects: which exist, and how much of its storage a tenant uses.

An object is reserved here before its first byte is written, and kept once something refers to it.
So the quota is checked before the store is full, concurrent uploads cannot both take the last
place, and a crash leaves no object that nobody knows of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from runner.store.transaction import Transaction
from runner.words.errors import StorageFull, StoreUnavailable


@dataclass(frozen=True, slots=True)
class Removable:
    """An object to remove."""

    object_key: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """The most bytes that a new object may have: its own limit, or what is left of another."""

    limit: str
    allowed: int
    used: int
    most: int

    @property
    def bytes(self) -> int:
        """Its most bytes."""
        return min(self.most, self.allowed - self.used)

    def full(self, asked: int) -> StorageFull:
        """Return the refusal of so many bytes."""
        return StorageFull(self.limit, self.allowed, used=self.used, asked=asked)


async def reserve(tx: Transaction, object_key: str, size: int) -> None:
    """Count an object that is about to be written. Raises StorageFull; a rollback undoes it.

    Locks the tenant's sum until the transaction ends, so that the comparison is exact. You may
    repeat it if a commit was not confirmed.
    """
    await tx.run("ledger.reserve", object_key=object_key, bytes=size)
    row = await tx.one("ledger.standing")
    if row is None:
        raise StoreUnavailable("no quotas are published: `runner migrate` does that")
    may = row["storage_bytes"]
    if row["bytes"] > may:
        raise StorageFull("storage_bytes", may, used=row["bytes"] - size, asked=size)
    may = row["stored_objects"]
    if row["objects"] > may:
        raise StorageFull("stored_objects", may, used=row["objects"] - 1, asked=1)


async def reserve_room(
    tx: Transaction, object_key: str, most: int, *, snapshot: bool = True
) -> Room:
    """Count an object whose size shows only at its end; return how large it may become.

    That is `most`, or what is left of the tenant's storage and, for a snapshot, of its snapshots.
    Raises StorageFull if nothing is, or if another one has taken it at the same moment. `keep_as`
    corrects the size.
    """
    row = await tx.one("ledger.standing")
    if row is None:
        raise StoreUnavailable("no quotas are published: `runner migrate` does that")
    rooms = [Room("storage_bytes", row["storage_bytes"], row["bytes"] or 0, most)]
    if snapshot:
        of_snapshots = row["of_snapshots"] or 0
        rooms.insert(0, Room("snapshot_bytes", row["snapshot_bytes"], of_snapshots, most))
    room = min(rooms, key=lambda each: each.bytes)
    if room.bytes <= 0:
        raise room.full(1)
    await reserve(tx, object_key, room.bytes)
    # The row is locked since then: the sum is what it will be.
    now = await tx.one("ledger.standing")
    if snapshot and now is not None and now["of_snapshots"] > now["snapshot_bytes"]:
        raise room.full(room.bytes)
    return room


async def keep_as(tx: Transaction, object_key: str, size: int) -> bool:
    """Say that an object is written, and how large it is: at most what was reserved.

    Returns False if it was given up meanwhile.
    """
    row = await tx.one("ledger.keep_as", object_key=object_key, bytes=size)
    return bool(row and row["kept"])


async def keep(tx: Transaction, object_keys: Sequence[str]) -> bool:
    """Mark these as written; something must refer to each by the end of the transaction.

    Returns False if one was given up meanwhile: it may have been removed already.
    """
    if not object_keys:
        return True
    return await tx.run("ledger.keep", object_keys=list(object_keys)) == len(object_keys)


async def give_up(tx: Transaction, object_key: str) -> None:
    """Mark an object as given up: its space is free, and the worker removes its bytes."""
    await tx.run("ledger.give_up", object_key=object_key)


async def written_s(tx: Transaction, object_key: str) -> float | None:
    """Return for how many seconds an object has been written; None if it is no longer."""
    row = await tx.one("ledger.written", object_key=object_key)
    return row["seconds"] if row else None


async def known(tx: Transaction, object_keys: Sequence[str]) -> set[str]:
    """Return those that should exist, or may exist yet."""
    rows = await tx.all("ledger.known", object_keys=list(object_keys))
    return {row["object_key"] for row in rows}


async def take_removable(
    tx: Transaction, *, grace: timedelta, abandoned: timedelta, limit: int
) -> list[Removable]:
    """Lock and return objects to remove: doomed for `grace`, or being written for `abandoned`."""
    rows = await tx.all("ledger.take_removable", grace=grace, abandoned=abandoned, limit=limit)
    return [Removable(**row) for row in rows]


async def forget(tx: Transaction, object_keys: Sequence[str]) -> None:
    """Remove objects from the ledger that are no longer in the store."""
    await tx.run("ledger.forget", object_keys=list(object_keys))
