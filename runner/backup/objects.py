"""The object store, copied out and in; some objects at once, and none of them held in memory."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from runner.backup import files
from runner.backup.manifest import OBJECTS, BackedObject
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.transaction import Transaction
from runner.words.errors import ObjectMissing

PAGE = 500
AT_ONCE = 8
"""How many objects are copied at once."""
_FIRST = UUID(int=0)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An object that rows refer to; `sha256` is of its content, if a row has it."""

    key: str
    bytes: int
    sha256: str | None = None


async def kept(tx: Transaction) -> AsyncIterator[list[KeptObject]]:
    """Yield the objects that the rows seen by this transaction refer to, in order."""
    after = (_FIRST, "")
    while rows := await tx.all("backup.kept", tenant_id=after[0], object_key=after[1], limit=PAGE):
        yield [KeptObject(row["object_key"], row["bytes"]) for row in rows]
        after = rows[-1]["tenant_id"], rows[-1]["object_key"]


async def kept_now(database: Database) -> AsyncIterator[list[KeptObject]]:
    """Yield what rows refer to page by page, with their hashes; keep no snapshot in between."""
    after = (_FIRST, "")
    while True:
        async with database.no_tenant() as tx:
            rows = await tx.all(
                "backup.kept_now", tenant_id=after[0], object_key=after[1], limit=PAGE
            )
        if not rows:
            return
        yield [KeptObject(row["object_key"], row["bytes"], row["sha256"]) for row in rows]
        after = rows[-1]["tenant_id"], rows[-1]["object_key"]


async def copy_out(store: ObjectStore, some: list[KeptObject], folder: Path) -> list[str]:
    """Copy objects into the folder of a backup, except those that are in it.

    Return the keys of those that are no longer in the store. Raises StoreUnavailable and OSError.
    """

    async def one(wanted: KeptObject) -> str | None:
        place = folder / OBJECTS / wanted.key
        if place.exists() and place.stat().st_size == wanted.bytes:
            return None
        draft = place.with_name(f"{place.name}{files.PARTIAL}")
        files.made(place.parent)
        try:
            with draft.open("wb") as file:
                async for chunk in store.read(wanted.key):
                    file.write(chunk)
                # What has its name is never copied again, even after a loss of power.
                file.flush()
                await asyncio.to_thread(os.fsync, file.fileno())
        except ObjectMissing:
            draft.unlink()
            return wanted.key
        draft.rename(place)
        return None

    return [key for key in await _at_once(one, some) if key is not None]


async def copy_in(store: ObjectStore, some: list[BackedObject], folder: Path) -> None:
    """Copy objects of a backup into a store. Raises StoreUnavailable and OSError."""

    async def one(each: BackedObject) -> None:
        await store.write(each.key, _read(folder / OBJECTS / each.key))

    await _at_once(one, some)


async def digests(store: ObjectStore, some: list[KeptObject]) -> list[str | None]:
    """Return the hash of each object in the store; None for those that are missing."""

    async def one(each: KeptObject) -> str | None:
        sha256 = hashlib.sha256()
        try:
            async for chunk in store.read(each.key):
                sha256.update(chunk)
        except ObjectMissing:
            return None
        return sha256.hexdigest()

    return await _at_once(one, some)


def described(folder: Path, key: str) -> BackedObject:
    """Return what a backup holds of an object, as it is on the disk. Raises OSError."""
    size, sha256 = files.hashed(folder / OBJECTS / key)
    return BackedObject(key=key, bytes=size, sha256=sha256)


def in_pages(each: Iterable[T]) -> Iterator[list[T]]:
    """Yield as many at a time as a page of the database has."""
    page: list[T] = []
    for one in each:
        page.append(one)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


async def _read(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, files.CHUNK):
            yield chunk


S = TypeVar("S")


async def _at_once(work: Callable[[S], Awaitable[T]], some: list[S]) -> list[T]:
    """Do the work for each, a few at once, and return the results in order.

    Raises the first failure by itself, once the others have ended.
    """
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(each: S) -> T:
        async with turns:
            return await work(each)

    tasks = [asyncio.ensure_future(one(each)) for each in some]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
