"""Snapshots: the files of a sandbox's workspace, taken, read, deleted and put into a sandbox."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.sandboxes.keeping import KIND, SnapshotKeeper, facts_of
from runner.sandboxes.use import Using
from runner.secrets.envelope import Unopened, snapshot_of
from runner.secrets.streams import opened
from runner.secrets.vault import Vault
from runner.store import snapshots
from runner.store.db import Database
from runner.store.idempotency import Once
from runner.store.objects import ObjectStore
from runner.store.snapshots import StoredSnapshot
from runner.words.errors import Conflict, NotFound, StoreUnavailable
from runner.words.execution import JSON
from runner.words.sandbox import WORKSPACE

NO_SNAPSHOT = "no such snapshot"


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

        Raises what `SnapshotKeeper.keep` and `Using` raise.
        """

        @asynccontextmanager
        async def archive() -> AsyncIterator[AsyncIterator[bytes]]:
            async with self.using.pack_folder(caller, sandbox_id, WORKSPACE) as stream:
                yield stream.chunks()

        keeper = SnapshotKeeper(self.database, self.objects, self.vault)
        return await keeper.keep(
            caller.acting,
            sandbox_id,
            archive,
            name=name,
            metadata=metadata,
            lasts_s=lasts_s,
            once=once,
        )

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
            caller.record(tx, Action.SNAPSHOT_DELETE, KIND, str(snapshot_id), facts_of(gone))

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
