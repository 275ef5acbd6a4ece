"""A tenant's own files. An upload reserves its space, is stored, and gets its name last."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.store import files, ledger
from runner.store.db import Database
from runner.store.files import Condition, NewFile, StoredFile
from runner.store.objects import new_key
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NotFound

NO_FILE = "no such file"
KIND = "file"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is about to be uploaded, as the request announces it: `size` at most."""

    path: str
    size: int
    media_type: str
    expires_at: datetime | None
    condition: Condition


@dataclass(frozen=True, slots=True)
class Received:
    """The bytes of an object that was written."""

    sha256: str
    size: int


async def write(
    database: Database,
    caller: Caller,
    upload: Upload,
    receive: Callable[[str], Awaitable[Received]],
) -> StoredFile:
    """Store a file under a name. Readers see the earlier file or the whole new one.

    `receive` writes the object with that key, of at most the announced size. The space is reserved
    before that, and freed if it fails. Raises StorageFull, PreconditionFailed, and Conflict if the
    upload was given up in the meantime.
    """
    key = new_key(caller.tenant_id, "files")
    async with database.tenant(caller.tenant_id) as tx:
        files.demand(upload.condition, await files.get(tx, upload.path))
        await ledger.reserve(tx, key, upload.size)
    try:
        got = await receive(key)
        new = NewFile(upload.path, got.size, got.sha256, upload.media_type, key, upload.expires_at)
        async with database.tenant(caller.tenant_id) as tx:
            return await _name(tx, caller, new, upload.condition)
    except BaseException:
        await uninterrupted(_give_up(database, caller, key))
        raise


async def adopt(tx: Transaction, caller: Caller, new: Sequence[NewFile]) -> list[StoredFile]:
    """Give names to objects that are stored already, such as artifacts."""
    stored = [await files.put(tx, each) for each in new]
    for each in stored:
        _record(tx, caller, Action.FILE_WRITE, each)
    return stored


async def list_after(
    tx: Transaction, *, prefix: str, after: str, limit: int
) -> Sequence[StoredFile]:
    """Return files by name: those whose names begin with `prefix` and follow `after`."""
    return await files.list_after(tx, prefix=prefix, after=after, limit=limit)


async def look(tx: Transaction, path: str) -> StoredFile:
    """Return a file without its content, so nothing is recorded. Raises NotFound."""
    found = await files.get(tx, path)
    if found is None:
        raise NotFound(NO_FILE)
    return found


async def read(tx: Transaction, caller: Caller, path: str) -> StoredFile:
    """Return a file whose content the caller will read, and record that. Raises NotFound."""
    found = await look(tx, path)
    _record(tx, caller, Action.FILE_READ, found)
    return found


async def delete(tx: Transaction, caller: Caller, path: str, condition: Condition) -> None:
    """Delete a file. Executions that were submitted with it still get it.

    Raises NotFound and PreconditionFailed.
    """
    gone = await files.delete(tx, path, condition)
    if gone is None:
        raise NotFound(NO_FILE)
    _record(tx, caller, Action.FILE_DELETE, gone)


async def _name(tx: Transaction, caller: Caller, new: NewFile, condition: Condition) -> StoredFile:
    if not await ledger.keep_as(tx, new.object_key, new.size):
        raise Conflict("the upload was given up in the meantime; send it again")
    stored = await files.put(tx, new, condition)
    _record(tx, caller, Action.FILE_WRITE, stored)
    return stored


async def _give_up(database: Database, caller: Caller, key: str) -> None:
    async with database.tenant(caller.tenant_id) as tx:
        await ledger.give_up(tx, key)


def _record(tx: Transaction, caller: Caller, action: Action, stored: StoredFile) -> None:
    facts = {"size": stored.size, "sha256": stored.sha256}
    caller.record(tx, action, KIND, stored.path, facts)
