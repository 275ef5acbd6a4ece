"""The ledger of stored objects: which there are, and how much of its storage a tenant uses.

An object is reserved here before its first byte is written, and kept when something refers to it.
So the quota holds before the store is full, concurrent uploads cannot both take the last place,
and a crash leaves nothing that is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from runner.store.transaction import Transaction
from runner.words.errors import StorageFull, StoreUnavailable


@dataclass(frozen=True, slots=True)
class Removable:
    """An object that is to go."""

    object_key: str
    bytes: int


async def reserve(tx: Transaction, object_key: str, size: int) -> None:
    """Count an object that is about to be written. Raises StorageFull; undo by rolling back.

    Locks the tenant's sum until the transaction ends: what is compared is exact. May be repeated
    when a commit was not confirmed.
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


async def keep(tx: Transaction, object_keys: Sequence[str]) -> bool:
    """Say that these are written; something must refer to each by the end of the transaction.

    False if one was given up meanwhile: then it may be gone already.
    """
    if not object_keys:
        return True
    return await tx.run("ledger.keep", object_keys=list(object_keys)) == len(object_keys)


async def give_up(tx: Transaction, object_key: str) -> None:
    """Say that this will not be written to its end: its place is free, and the worker tidies."""
    await tx.run("ledger.give_up", object_key=object_key)


async def known(tx: Transaction, object_keys: Sequence[str]) -> set[str]:
    """Return which of these there should be, or may be yet."""
    rows = await tx.all("ledger.known", object_keys=list(object_keys))
    return {row["object_key"] for row in rows}


async def take_removable(
    tx: Transaction, *, grace: timedelta, abandoned: timedelta, limit: int
) -> list[Removable]:
    """Lock and return objects doomed for longer than `grace`, or written for `abandoned`."""
    rows = await tx.all("ledger.take_removable", grace=grace, abandoned=abandoned, limit=limit)
    return [Removable(**row) for row in rows]


async def forget(tx: Transaction, object_keys: Sequence[str]) -> None:
    """Take objects off the ledger that are no longer in the store."""
    await tx.run("ledger.forget", object_keys=list(object_keys))
