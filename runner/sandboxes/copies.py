"""Sandboxes that begin with files: from a snapshot, or from a sandbox that runs."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import KIND, ended, gone, took_commands
from runner.sandboxes.snapshots import Snapshots
from runner.store.db import Database
from runner.store.idempotency import Once
from runner.store.sandboxes import FILLING
from runner.store.snapshots import StoredSnapshot
from runner.tenants import files
from runner.words.errors import Invalid, NodeAway, NotFound, RunnerError
from runner.words.ids import new_id
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import StoredSandbox
from runner.words.sandbox import WORKSPACE


@dataclass(frozen=True, slots=True)
class ForkTerms:
    """The differences of a copy from its source; a field that is None stays as in the source."""

    timeout_s: float | None
    on_timeout: OnTimeout | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Beginning:
    """The files that a sandbox begins with: a snapshot's, and others by their paths in it."""

    snapshot: UUID | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    stored: Mapping[str, str] = field(default_factory=dict)
    """Names of the tenant's stored files, by the path that each gets."""

    def __bool__(self) -> bool:
        return bool(self.snapshot or self.contents or self.stored)


@dataclass(frozen=True, slots=True)
class Copies:
    """Use cases that make sandboxes with files in them."""

    database: Database
    living: LivingSandboxes
    snapshots: Snapshots

    async def create(
        self, caller: Caller, order: LivingOrder, begins: Beginning, *, once: Once | None = None
    ) -> StoredSandbox:
        """Make a sandbox that begins with files, and return it once they are there.

        Image, resources and isolation are the snapshot's where the order leaves them out. Raises
        what `LivingSandboxes.create` raises, Invalid if there is no such snapshot or stored file,
        Conflict if the snapshot is damaged, and FileRefused. If it fails, no sandbox stays.
        """
        snapshot = None
        if begins.snapshot is not None:
            snapshot = await self._snapshot(caller, begins.snapshot)
            order = _like(order, snapshot)
        stored = await self._stored(caller, begins.stored)

        async def fill(sandbox_id: UUID) -> None:
            if snapshot is not None:
                await self.snapshots.restore(caller, sandbox_id, snapshot)
            using = self.snapshots.using
            for path, content in begins.contents.items():
                await using.write_file(caller, sandbox_id, path, _once(content))
            for path, key in stored.items():
                chunks = self.snapshots.objects.read(key)
                await using.write_file(caller, sandbox_id, path, chunks)

        return await self.living.create(caller, order, once=once, fill=fill)

    async def _snapshot(self, caller: Caller, snapshot_id: UUID) -> StoredSnapshot:
        try:
            return await self.snapshots.read(caller, snapshot_id)
        except NotFound as error:
            raise Invalid(error.detail, "snapshot") from None

    async def _stored(self, caller: Caller, wanted: Mapping[str, str]) -> dict[str, str]:
        """Return the keys of stored files' objects, by the path that each gets."""
        keys: dict[str, str] = {}
        if not wanted:
            return keys
        async with self.database.tenant(caller.tenant_id) as tx:
            for path, name in wanted.items():
                try:
                    keys[path] = (await files.read(tx, caller, name)).object_key
                except NotFound:
                    raise Invalid(f"there is no stored file {name!r}", "files") from None
        return keys

    async def fork(
        self,
        caller: Caller,
        sandbox_id: UUID,
        terms: ForkTerms,
        *,
        count: int,
        once: Once | None = None,
    ) -> list[StoredSandbox]:
        """Make sandboxes like a running one, with the files that are in its workspace.

        Their processes are their own: none of the source's goes on in them. Of the time that the
        source may live at most, they have what is left. Either all of them are made, or none stays,
        even if this is cancelled. If the idempotency key was used before, returns the earlier
        copies as they are; raises NodeAway while they are still being made.
        """
        keys = [None if once is None else once.part(number) for number in range(count)]
        if earlier := await self._earlier(caller, [each for each in keys if each]):
            return earlier
        source = await self.living.read(caller, sandbox_id)
        if source.state is Life.ENDED:
            raise ended(source)
        await self.snapshots.using.places.locate(caller, sandbox_id)
        order = _as(source, terms)
        making = [asyncio.create_task(self._copy(caller, source, order, each)) for each in keys]
        try:
            made = await asyncio.gather(*making)
            async with self.database.tenant(caller.tenant_id) as tx:
                facts = {"made": [str(each.id) for each in made]}
                caller.record(tx, Action.SANDBOX_FORK, KIND, str(sandbox_id), facts)
        except BaseException as error:
            await uninterrupted(self._unmake(caller, sandbox_id, making, keys, error))
            raise
        return made

    async def _earlier(self, caller: Caller, keys: Sequence[Once]) -> list[StoredSandbox]:
        """Return the copies that were made with these keys; none if they are to be made."""
        made: list[tuple[Once, StoredSandbox]] = []
        async with self.database.tenant(caller.tenant_id) as tx:
            uses = [(key, await key.find(tx)) for key in keys]
        for key, used in uses:
            if used is not None:
                id_ = await key.require_same(used, used.sandbox_id)
                made.append((key, await self.living.read(caller, id_)))
        if len(made) == len(keys) and not any(each.was_never_whole for _, each in made):
            return [took_commands(each) for _, each in made]
        young = datetime.now(UTC) - FILLING
        if any(each.created_at > young for _, each in made):
            raise NodeAway("these copies are still being made: try again in a moment")
        # The process that made them has died: nobody was told of any.
        await self._end(caller, made)
        return []

    async def _end(self, caller: Caller, made: Sequence[tuple[Once | None, StoredSandbox]]) -> None:
        for key, each in made:
            with suppress(RunnerError):
                await self.living.kill(caller, each.id)
            if key is not None:
                with suppress(RunnerError):
                    await self.living.free(caller, key, each.id)

    async def _unmake(
        self,
        caller: Caller,
        sandbox_id: UUID,
        making: Sequence[asyncio.Task[StoredSandbox]],
        keys: Sequence[Once | None],
        error: BaseException,
    ) -> None:
        """End all copies, and put that on record.

        Those under way end themselves when they are cancelled.
        """
        for task in making:
            task.cancel()
        results = await asyncio.gather(*making, return_exceptions=True)
        done = zip(keys, results, strict=True)
        await self._end(caller, [(k, each) for k, each in done if isinstance(each, StoredSandbox)])
        facts = {"wanted": len(making), "error": type(error).__name__}
        async with self.database.tenant(caller.tenant_id) as tx:
            caller.record(
                tx, Action.SANDBOX_FORK, KIND, str(sandbox_id), facts, outcome=Outcome.FAILURE
            )

    async def _copy(
        self, caller: Caller, source: StoredSandbox, order: LivingOrder, once: Once | None
    ) -> StoredSandbox:
        using = self.snapshots.using

        async def fill(sandbox_id: UUID) -> None:
            async with using.pack_folder(caller, source.id, WORKSPACE) as stream:
                await using.unpack_folder(
                    caller, sandbox_id, WORKSPACE, stream.chunks(), parents=False
                )

        mine = new_id()
        made = await self.living.create(caller, order, once=once, fill=fill, id_=mine)
        if made.id != mine:
            raise NodeAway("another request with this key makes these copies: try again")
        return made


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _like(order: LivingOrder, snapshot: StoredSnapshot) -> LivingOrder:
    """Return the order with what it leaves out taken from the snapshot."""
    own = order.size is None
    return replace(
        order,
        image=order.image or snapshot.spec.image,
        isolation=order.isolation or snapshot.spec.isolation,
        size=order.size or snapshot.size,
        limits={**asdict(snapshot.spec.resources), **order.limits} if own else order.limits,
    )


def _as(source: StoredSandbox, terms: ForkTerms) -> LivingOrder:
    """Return the order for a sandbox like another one: it must end when that one must.

    Raises Gone if the source has lived for as long as it may: its node is about to end it.
    """
    left = None
    if source.lives_until is not None:
        left = (source.lives_until - datetime.now(UTC)).total_seconds()
        if left <= 0:
            raise gone(EndReason.MAX_LIFE, "it has lived for as long as it may")
    return LivingOrder(
        size=source.size,
        limits=asdict(source.resources),
        image=source.image,
        isolation=source.isolation,
        egress=tuple(source.egress),
        env=source.env,
        secret_env=source.secret_env,
        metadata=source.metadata if terms.metadata is None else terms.metadata,
        project=source.project,
        timeout_s=terms.timeout_s,
        on_timeout=terms.on_timeout or source.on_timeout,
        auto_resume=source.auto_resume,
        on_shortage=source.on_shortage,
        max_life_s=left,
    )
