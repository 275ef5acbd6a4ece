"""Snapshots: the files of a sandbox's workspace, sealed and kept in the object store.

An archive goes from the sandbox through the node's door into the store as it comes: nothing of it
is gathered. Its size shows only at the end, so as much of the tenant's storage is reserved as the
sandbox's disk can fill, or as is left, and the reservation is corrected then.
"""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass, field
from uuid import UUID

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.quotas.tiers import snapshot_refusal
from runner.sandboxes.measured import Measured
from runner.sandboxes.place import NO_SANDBOX
from runner.sandboxes.use import Using
from runner.secrets.envelope import Unopened, new_key, snapshot_of
from runner.secrets.streams import opened, sealed, sealed_size
from runner.secrets.vault import Vault
from runner.store import ledger, objects, quotas, sandboxes, snapshots
from runner.store.db import Database
from runner.store.idempotency import KeyUse, Once
from runner.store.ledger import Room
from runner.store.objects import ObjectStore
from runner.store.snapshots import SnapshotFacts, StoredSnapshot
from runner.store.transaction import Transaction
from runner.words.errors import (
    Conflict,
    NodeAway,
    NotFound,
    StoreUnavailable,
)
from runner.words.execution import JSON
from runner.words.ids import new_id
from runner.words.living import StoredSandbox
from runner.words.sandbox import WORKSPACE

NO_SNAPSHOT = "no such snapshot"
KIND = "snapshot"
LONGEST_S = 4000.0
"""Seconds after which nobody takes a snapshot any more: longer than any request may take."""
_MIB = 2**20
_HEADERS = 64 * _MIB
"""What the archive of a full disk may take beyond the disk's size: a header for each small file."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A snapshot that is about to be taken: room is reserved for it."""

    id: UUID
    sandbox: StoredSandbox
    object_key: str
    own_key: bytes = field(repr=False)
    bound_to: bytes
    sealed_key: bytes = field(repr=False)
    room: Room


@dataclass(frozen=True, slots=True)
class Snapshots:
    """Use cases on snapshots."""

    database: Database
    using: Using
    objects: ObjectStore
    vault: Vault

    async def take(
        self,
        caller: Caller,
        sandbox_id: UUID,
        *,
        name: str | None,
        metadata: Mapping[str, str],
        lasts_s: float | None = None,
        once: Once | None = None,
    ) -> StoredSnapshot:
        """Keep what is in a running sandbox's workspace. Its processes go on meanwhile.

        It expires after `lasts_s` seconds, or sooner if the tenant's quota says so. If the
        idempotency key was used before, returns the earlier snapshot. Raises NodeAway while that is
        still being taken, and Conflict if the key belongs to another request. Raises what `Using`
        raises, QuotaExceeded, StorageFull, and KeyUnavailable if this deployment has no key to seal
        it with. If it fails, nothing is kept.
        """
        begun = await self._begin(caller, sandbox_id, once)
        if isinstance(begun, StoredSnapshot):
            return begun
        sandbox, object_key = begun.sandbox, begun.object_key
        try:
            measured = Measured(begun.room)
            async with self.using.pack_folder(caller, sandbox_id, WORKSPACE) as stream:
                passing = measured.passing(stream.chunks())
                content = sealed(passing, begun.own_key, bound_to=begun.bound_to)
                await self.objects.write(object_key, content)
            new = SnapshotFacts(
                id=begun.id,
                sandbox_id=sandbox_id,
                name=name,
                metadata=metadata,
                created_by=caller.actor,
                spec=sandbox.spec,
                size=sandbox.size,
                archive_bytes=measured.size,
                sha256=measured.sha256,
                sealed_key=begun.sealed_key,
                object_key=object_key,
            )
            return await self._keep(caller, new, lasts_s)
        except BaseException:
            await uninterrupted(self._give_up(caller, object_key, once))
            raise

    async def _begin(
        self, caller: Caller, sandbox_id: UUID, once: Once | None
    ) -> "_Begun | StoredSnapshot":
        """Reserve room for a snapshot, or return the one that the key was used for."""
        id_, own_key = new_id(), new_key()
        object_key = objects.new_key(caller.tenant_id, "snapshots")
        bound_to = snapshot_of(caller.tenant_id, id_)
        async with self.database.tenant(caller.tenant_id) as tx:
            # A key that was freed may be another request's by now: then look that one up.
            while once is not None and (used := await once.reserve(tx, object_key=object_key)):
                if (earlier := await _earlier(tx, once, used)) is not None:
                    return earlier
            sandbox = await sandboxes.get(tx, sandbox_id)
            if sandbox is None:
                raise NotFound(NO_SANDBOX)
            refused = snapshot_refusal(await quotas.standing(tx))
            if refused is None:
                most = sealed_size(sandbox.resources.disk_mb * _MIB + _HEADERS)
                room = await ledger.reserve_room(tx, object_key, most)
                sealed_key = await self.vault.seal(
                    tx, caller.tenant_id, own_key.hex(), bound_to=bound_to
                )
                return _Begun(id_, sandbox, object_key, own_key, bound_to, sealed_key, room)
            if once is not None:
                await once.release(tx, object_key=object_key)
            facts = refused.facts
            caller.record(tx, Action.SNAPSHOT_CREATE, KIND, metadata=facts, outcome=Outcome.DENIED)
        raise refused

    async def read(self, caller: Caller, snapshot_id: UUID) -> StoredSnapshot:
        """Return a snapshot. Raises NotFound."""
        async with self.database.tenant(caller.tenant_id) as tx:
            found = await snapshots.get(tx, snapshot_id)
        if found is None:
            raise NotFound(NO_SNAPSHOT)
        return found

    async def list_newest(
        self,
        caller: Caller,
        *,
        before: UUID | None,
        limit: int,
        of: UUID | None = None,
        name: str | None = None,
    ) -> list[StoredSnapshot]:
        """Return snapshots, newest first; `before` is the last id of the previous page.

        With `of`, only those of that sandbox; with `name`, only those of that name.
        """
        async with self.database.tenant(caller.tenant_id) as tx:
            return await snapshots.list_newest(tx, before=before, limit=limit, of=of, name=name)

    async def delete(self, caller: Caller, snapshot_id: UUID) -> None:
        """Forget a snapshot; its object is removed a little later. Raises NotFound."""
        async with self.database.tenant(caller.tenant_id) as tx:
            gone = await snapshots.delete(tx, snapshot_id)
            if gone is None:
                raise NotFound(NO_SNAPSHOT)
            caller.record(tx, Action.SNAPSHOT_DELETE, KIND, str(snapshot_id), _facts(gone))

    async def restore(self, caller: Caller, sandbox_id: UUID, snapshot: StoredSnapshot) -> None:
        """Write a snapshot's files into a running sandbox's workspace.

        Raises Conflict if the object is not what was kept; some of the files may then be there.
        That its key was opened is on record before, and if nothing became of it, that, too.
        """
        bound_to = snapshot_of(caller.tenant_id, snapshot.id)
        facts: dict[str, JSON] = {"sandbox": str(sandbox_id), "bytes": snapshot.archive_bytes}
        async with self.database.tenant(caller.tenant_id) as tx:
            key = await self.vault.unseal(
                tx, caller.tenant_id, snapshot.sealed_key, bound_to=bound_to
            )
            caller.record(tx, Action.SNAPSHOT_RESTORE, KIND, str(snapshot.id), facts)
        stored = self.objects.read(snapshot.object_key)
        content = _checked(opened(stored, bytes.fromhex(key), bound_to=bound_to), snapshot)
        try:
            await self.using.unpack_folder(caller, sandbox_id, WORKSPACE, content, parents=False)
        except BaseException as error:
            why = {**facts, "error": type(error).__name__}
            await uninterrupted(self._not_restored(caller, snapshot, why))
            raise

    async def _not_restored(
        self, caller: Caller, snapshot: StoredSnapshot, facts: Mapping[str, JSON]
    ) -> None:
        async with self.database.tenant(caller.tenant_id) as tx:
            caller.record(
                tx,
                Action.SNAPSHOT_RESTORE,
                KIND,
                str(snapshot.id),
                facts,
                outcome=Outcome.FAILURE,
            )

    async def _keep(
        self, caller: Caller, new: SnapshotFacts, lasts_s: float | None
    ) -> StoredSnapshot:
        async with self.database.tenant(caller.tenant_id) as tx:
            if not await ledger.keep_as(tx, new.object_key, sealed_size(new.archive_bytes)):
                raise Conflict("the snapshot was given up in the meantime; take it again")
            stored = await snapshots.insert(tx, new, lasts_s=lasts_s)
            caller.record(tx, Action.SNAPSHOT_CREATE, KIND, str(new.id), _facts(stored))
        return stored

    async def _give_up(self, caller: Caller, object_key: str, once: Once | None) -> None:
        async with self.database.tenant(caller.tenant_id) as tx:
            await ledger.give_up(tx, object_key)
            if once is not None:
                await once.release(tx, object_key=object_key)


async def _earlier(tx: Transaction, once: Once, used: KeyUse) -> StoredSnapshot | None:
    """Return the snapshot that a key was used for; None, with the key freed, if there is none."""
    object_key = await once.require_same(used, used.object_key)
    if (found := await snapshots.of_object(tx, object_key)) is not None:
        return found
    written_s = await ledger.written_s(tx, object_key)
    if written_s is not None and written_s < LONGEST_S:
        raise NodeAway("this snapshot is still being taken: try again in a moment")
    # It was deleted since, or the process that took it has died.
    await once.release(tx, object_key=object_key)
    return None


async def _checked(chunks: AsyncIterable[bytes], snapshot: StoredSnapshot) -> AsyncIterator[bytes]:
    """Yield the archive. Raises Conflict where it is not the one that was kept."""
    digest = hashlib.sha256()
    try:
        async for chunk in chunks:
            digest.update(chunk)
            yield chunk
    except Unopened:
        raise _damaged(snapshot) from None
    except StoreUnavailable as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise _damaged(snapshot) from error
        raise
    if digest.hexdigest() != snapshot.sha256:
        raise _damaged(snapshot)


def _damaged(snapshot: StoredSnapshot) -> Conflict:
    return Conflict(
        f"the snapshot {snapshot.id} is damaged: its object is missing or has changed since it was "
        "written, so nothing can be made from it. Delete it"
    )


def _facts(stored: StoredSnapshot) -> dict[str, object]:
    return {
        "sandbox": str(stored.sandbox_id),
        "bytes": stored.archive_bytes,
        "sha256": stored.sha256,
    }
