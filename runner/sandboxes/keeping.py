"""Keeps the files of a sandbox's workspace: sealed, in the object store, and on record.

An archive goes from the sandbox into the store as it comes: nothing of it is gathered. Its size
shows only at the end, so as much of the tenant's storage is reserved as the sandbox's disk can
fill, or as is left, and the reservation is corrected then.
"""

from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias
from uuid import UUID

from runner.audit.events import Action, Outcome
from runner.auth.caller import TenantActor
from runner.base.tasks import uninterrupted
from runner.quotas.standing import snapshot_refusal
from runner.sandboxes.measured import Measured
from runner.sandboxes.place import NO_SANDBOX
from runner.secrets.envelope import new_key, snapshot_of
from runner.secrets.streams import sealed, sealed_size
from runner.secrets.vault import Vault
from runner.store import ledger, objects, quotas, sandboxes, snapshots
from runner.store.db import Database
from runner.store.idempotency import KeyUse, Once
from runner.store.ledger import Room
from runner.store.objects import ObjectStore
from runner.store.snapshots import SnapshotFacts, StoredSnapshot
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NodeAway, NotFound
from runner.words.ids import new_id
from runner.words.living import StoredSandbox

KIND = "snapshot"
LONGEST_S = 4000.0
"""Seconds after which nobody takes a snapshot any more: longer than any request may take."""
_MIB = 2**20
_HEADERS = 64 * _MIB
"""The bytes of a full disk's archive beyond the disk's size: a header for each small file."""

Archive: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterable[bytes]]]
"""Opens the archive of a sandbox's workspace, to be read once."""


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
class SnapshotKeeper:
    """Keeps files. A client has that done through the API, and a node does it on its own."""

    database: Database
    objects: ObjectStore
    vault: Vault

    async def keep(
        self,
        actor: TenantActor,
        sandbox_id: UUID,
        archive: Archive,
        *,
        name: str | None,
        metadata: Mapping[str, str],
        lasts_s: float | None = None,
        once: Once | None = None,
    ) -> StoredSnapshot:
        """Keep what is in an archive of a sandbox's workspace.

        It expires after `lasts_s` seconds, or sooner if the tenant's quota says so. If the
        idempotency key was used before, returns the earlier snapshot. Raises NodeAway while that is
        still being taken, and Conflict if the key belongs to another request. Raises what opening
        and reading the archive raises, QuotaExceeded, StorageFull, and KeyUnavailable if this
        deployment has no key to seal it with. If it fails, nothing is kept.
        """
        begun = await self._begin(actor, sandbox_id, once)
        if isinstance(begun, StoredSnapshot):
            return begun
        sandbox, object_key = begun.sandbox, begun.object_key
        try:
            measured = Measured(begun.room)
            async with archive() as chunks:
                passing = measured.passing(chunks)
                content = sealed(passing, begun.own_key, bound_to=begun.bound_to)
                await self.objects.write(object_key, content)
            new = SnapshotFacts(
                id=begun.id,
                sandbox_id=sandbox_id,
                name=name,
                metadata=metadata,
                created_by=actor.by.actor,
                spec=sandbox.spec,
                size=sandbox.size,
                archive_bytes=measured.size,
                sha256=measured.sha256,
                sealed_key=begun.sealed_key,
                object_key=object_key,
            )
            return await self._store(actor, new, lasts_s)
        except BaseException:
            await uninterrupted(self._give_up(actor, object_key, once))
            raise

    async def _begin(
        self, actor: TenantActor, sandbox_id: UUID, once: Once | None
    ) -> "_Begun | StoredSnapshot":
        """Reserve room for a snapshot, or return the one that the key was used for."""
        id_, own_key = new_id(), new_key()
        object_key = objects.new_key(actor.tenant_id, "snapshots")
        bound_to = snapshot_of(actor.tenant_id, id_)
        async with self.database.tenant(actor.tenant_id) as tx:
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
                    tx, actor.tenant_id, own_key.hex(), bound_to=bound_to
                )
                return _Begun(id_, sandbox, object_key, own_key, bound_to, sealed_key, room)
            if once is not None:
                await once.release(tx, object_key=object_key)
            facts = refused.facts
            actor.record(tx, Action.SNAPSHOT_CREATE, KIND, metadata=facts, outcome=Outcome.DENIED)
        raise refused

    async def _store(
        self, actor: TenantActor, new: SnapshotFacts, lasts_s: float | None
    ) -> StoredSnapshot:
        async with self.database.tenant(actor.tenant_id) as tx:
            if not await ledger.keep_as(tx, new.object_key, sealed_size(new.archive_bytes)):
                raise Conflict("the snapshot was given up in the meantime; take it again")
            stored = await snapshots.insert(tx, new, lasts_s=lasts_s)
            actor.record(tx, Action.SNAPSHOT_CREATE, KIND, str(new.id), facts_of(stored))
        return stored

    async def _give_up(self, actor: TenantActor, object_key: str, once: Once | None) -> None:
        async with self.database.tenant(actor.tenant_id) as tx:
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


def facts_of(stored: StoredSnapshot) -> dict[str, object]:
    """Return what the audit log holds of a snapshot."""
    return {
        "sandbox": str(stored.sandbox_id),
        "bytes": stored.archive_bytes,
        "sha256": stored.sha256,
    }
