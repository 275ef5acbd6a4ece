"""All sandboxes that live on this node: made, taken over, kept by a lease, ended.

A living sandbox runs nowhere else, so a lease that could not be renewed in time does not end it.
While PostgreSQL is away, sandboxes live on. Once it is back, we end those that are no longer ours.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from uuid import UUID

import structlog

from runner.base.tasks import uninterrupted
from runner.node.gate import Gate
from runner.node.residents.beginning import Beginnings, MadeAhead
from runner.node.residents.ending import EndRecords
from runner.node.residents.furnish import Furnished, Furnisher
from runner.node.residents.journal import Journal
from runner.node.residents.reaping import BATCH, SandboxReaper
from runner.node.residents.resident import Resident
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.recorder import until_stored
from runner.receipts.sandbox_document import Lived
from runner.store import residents
from runner.store.db import Database
from runner.store.residents import HeldSandbox, SandboxHold, TakenOver
from runner.words.errors import (
    LeaseLost,
    NodeAway,
    NotReady,
    RunnerError,
    SandboxEnded,
)
from runner.words.lives import EndReason, Life
from runner.words.living import StoredSandbox
from runner.words.sandbox import SandboxSpec
from runner.words.text import counted

RENEWALS_PER_LEASE = 3
AT_ONCE = 8
"""How many sandboxes are taken over at once after a restart."""

_log = structlog.get_logger("runner.worker")


class Residents:
    """The sandboxes that live here, by their ids."""

    def __init__(
        self,
        *,
        database: Database,
        furnisher: Furnisher,
        journal: Journal,
        policy: ExecutionPolicy,
        ends: EndRecords,
        gate: Gate,
        most: int,
    ) -> None:
        """Take parts; at most `most` sandboxes live here at once, none new while `gate` is shut."""
        self._most = most
        self._gate = gate
        self._database = database
        self._furnisher = furnisher
        self._journal = journal
        self._policy = policy
        self._ends = ends
        self._by_id: dict[UUID, Resident] = {}
        self._making: dict[UUID, asyncio.Task[datetime]] = {}
        self._ahead: set[MadeAhead] = set()
        """Those that no row has yet."""
        self._beginnings = Beginnings(database, furnisher, journal, policy, self._end_row)
        self._reaper = SandboxReaper(database, ends, node=policy.node, lease=policy.lease)
        self._removals: set[asyncio.Task[None]] = set()
        self.taken_over = asyncio.Event()
        """Set once all that may live here was taken over: any other sandbox is nobody's."""
        self._awaited: set[UUID] | None = None
        """The sandboxes that could not be taken over yet; None until each was tried."""

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id) + len(self._making)

    @property
    def renew_every_s(self) -> float:
        """How often leases are renewed."""
        return self._policy.lease.total_seconds() / RENEWALS_PER_LEASE

    def get(self, tenant_id: UUID, sandbox_id: UUID) -> Resident:
        """Return a tenant's sandbox. Raises SandboxEnded, or NodeAway if it may yet be found."""
        resident = self._by_id.get(sandbox_id)
        if resident is None or resident.hold.tenant_id != tenant_id:
            if self._may_return(sandbox_id):
                raise NodeAway("the node looks for its sandboxes, as it has just started")
            raise SandboxEnded("this sandbox does not live on this node")
        return resident

    def _may_return(self, sandbox_id: UUID) -> bool:
        if self._awaited is None:
            return not self.taken_over.is_set()
        return sandbox_id in self._awaited

    # ---- Beginnings --------------------------------------------------------------------------

    @asynccontextmanager
    async def ahead(self, tenant_id: UUID, spec: SandboxSpec) -> AsyncIterator[MadeAhead]:
        """Make a sandbox ready whose row is being stored, for `create` within the context.

        Raises NodeAway if the node is full or drains.
        """
        self._gate.require_open()
        self._require_room()
        async with self._beginnings.ahead(tenant_id, spec) as made:
            self._ahead.add(made)
            try:
                yield made
            finally:
                self._ahead.discard(made)

    async def create(
        self, tenant_id: UUID, sandbox_id: UUID, ahead: MadeAhead | None = None
    ) -> datetime:
        """Make the sandbox of this row live here; return since when. If it fails, its row says why.

        Raises NodeAway if the node is full or drains, and whatever kept the sandbox from living.
        """
        self._gate.require_open()
        if ahead is None:
            self._require_room()
        else:
            # Before anything is awaited: from here on, it is the row's.
            ahead.taken = True
            self._ahead.discard(ahead)
        task = asyncio.create_task(self._create(tenant_id, sandbox_id, ahead))
        self._making[sandbox_id] = task
        task.add_done_callback(partial(self._made, sandbox_id))
        return await asyncio.shield(task)

    def _require_room(self) -> None:
        if len(self) + len(self._ahead) >= self._most:
            raise NodeAway(f"this node holds {counted(self._most, 'sandbox')}, as many as it may")

    def _made(self, sandbox_id: UUID, task: "asyncio.Task[datetime]") -> None:
        self._making.pop(sandbox_id, None)
        if not task.cancelled():
            # Its row says why; the caller may have left.
            task.exception()

    async def _create(self, tenant_id: UUID, sandbox_id: UUID, ahead: MadeAhead | None) -> datetime:
        begun = await self._beginnings.begin(tenant_id, sandbox_id, ahead)
        self._by_id[sandbox_id] = self._resident(begun.hold, begun.sandbox, begun.furnished)
        return begun.started_at

    # ---- Taking over -------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Take over all sandboxes of earlier processes of this node, or write how they ended.

        When repeated, it also ends rows whose end could not be written before.
        """
        async with self._database.statements() as tx:
            held = await residents.of_node(tx, self._policy.node)
        ours = self._by_id.keys() | self._making.keys()
        earlier = [each for each in held if each.sandbox_id not in ours]
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(each: HeldSandbox) -> None:
            async with turns:
                await self._adopt(each)

        results = await asyncio.gather(*map(one, earlier), return_exceptions=True)
        failed = {
            each.sandbox_id: result
            for each, result in zip(earlier, results, strict=True)
            if isinstance(result, BaseException)
        }
        # Only these are still waited for.
        self._awaited = set(failed)
        for error in failed.values():
            raise error
        if earlier:
            _log.info("sandboxes_taken_over", found=len(earlier), living=len(self._by_id))
        self.taken_over.set()

    async def _adopt(self, held: HeldSandbox) -> None:
        async with self._database.tenant(held.tenant_id) as tx:
            taken = await residents.take_over(
                tx,
                held,
                node=self._policy.node,
                instance=self._policy.instance,
                lease=self._policy.lease,
            )
        if taken is None:
            return
        hold = SandboxHold(held.tenant_id, held.sandbox_id, self._policy.instance)
        if taken.guest is None:
            await self._end_row(hold, EndReason.START_FAILED, "the node ended while it made it")
            return
        try:
            resident = await self._regained(hold, taken)
        except NotReady:
            raise
        except (RunnerError, OSError) as error:
            _log.warning("sandbox_not_taken_over", sandbox=str(hold.sandbox_id), why=str(error))
            detail = f"it was gone when its node came back: {error}"
            await self._end_row(hold, EndReason.LOST, detail)
            return
        if resident.life is not Life.ENDED:
            self._by_id[hold.sandbox_id] = resident
        if taken.sandbox.state is Life.STOPPING:
            await resident.end(EndReason.KILLED, "killed while its node was away")

    async def _regained(self, hold: SandboxHold, taken: TakenOver) -> Resident:
        """Take one over. If Docker or PostgreSQL is away, leave it; if it fails, remove it."""
        furnished = await self._furnisher.again(hold, taken)
        resident = self._resident(hold, taken.sandbox, furnished)
        try:
            await resident.take_over(taken.sandbox.state)
        except BaseException as error:
            await uninterrupted(resident.leave())
            if isinstance(error, Exception) and not isinstance(error, NotReady):
                await uninterrupted(self._furnisher.remove(furnished.guest))
            raise
        return resident

    # ---- Sweeps ------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Renew all leases in one statement; end sandboxes that are lost to us or are to stop."""
        before = dict(self._by_id)
        try:
            held = await residents.renew(
                self._database,
                node=self._policy.node,
                instance=self._policy.instance,
                lease=self._policy.lease,
            )
        except BaseException:
            self._reaper.heard(answers=False)
            raise
        self._reaper.heard(answers=True)
        # Not awaited: the other leases must not wait for Docker.
        for sandbox_id, resident in before.items():
            if sandbox_id not in held:
                resident.ends(EndReason.LOST, "its lease was lost")
            elif held[sandbox_id] is Life.STOPPING:
                resident.ends(EndReason.KILLED, "killed")

    async def reap(self) -> None:
        """End rows that nobody holds: their nodes did not come back, or never came."""
        if self._awaited is None:
            return
        await self._reaper.reap(self._by_id.keys() | self._making.keys() | self._awaited)

    async def end_suspended(self) -> None:
        """End the sandboxes of suspended tenants."""
        async with self._database.statements() as tx:
            found = await residents.of_suspended(tx, self._policy.node, BATCH)
        for _, sandbox_id in found:
            if (resident := self._by_id.get(sandbox_id)) is not None:
                resident.ends(EndReason.TENANT_SUSPENDED, "its tenant is suspended")

    # ---- Ends --------------------------------------------------------------------------------

    async def end(self, tenant_id: UUID, sandbox_id: UUID, reason: EndReason, detail: str) -> None:
        """End a sandbox. If it is being made, wait for that: its row says that it is to stop."""
        if (making := self._making.get(sandbox_id)) is not None:
            await asyncio.wait({making})
            if sandbox_id not in self._by_id:
                return
        await self.get(tenant_id, sandbox_id).end(reason, detail)

    async def leave(self, *, ends: bool) -> None:
        """Leave all alive for a later process of this node, or with `ends` end them."""
        if self._making:
            await asyncio.wait(self._making.values())
        if ends:
            why = EndReason.NODE_DRAINED, "its node was stopped"
            await asyncio.gather(*(each.end(*why) for each in list(self._by_id.values())))
        await asyncio.gather(*(each.leave() for each in self._by_id.values()))
        while self._removals:
            await asyncio.gather(*self._removals)

    def _resident(
        self, hold: SandboxHold, sandbox: StoredSandbox, furnished: Furnished
    ) -> Resident:
        return Resident(
            hold,
            sandbox,
            furnished,
            database=self._database,
            journal=self._journal,
            ends=self._ends,
            node=self._policy.node,
            on_end=self._ended,
        )

    async def _ended(self, resident: Resident) -> None:
        self._by_id.pop(resident.hold.sandbox_id, None)
        # Docker takes its time: nobody waits for it.
        task = asyncio.create_task(self._furnisher.remove(resident.guest))
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _end_row(self, hold: SandboxHold, reason: EndReason, detail: str) -> None:
        async def write() -> None:
            async with self._database.tenant(hold.tenant_id) as tx:
                times = await residents.end(tx, hold, reason, detail)
                held = hold.tenant_id, hold.sandbox_id
                await self._ends.write(tx, held, reason, times, Lived(node=self._policy.node))
            self._journal.announce(hold.sandbox_id)

        try:
            # Tried until another node may call it lost: nobody else knows why it ended.
            await uninterrupted(until_stored(write, patience_s=self._policy.lease.total_seconds()))
        except (LeaseLost, NotReady) as error:
            _log.warning("sandbox_end_not_stored", sandbox=str(hold.sandbox_id), why=error.detail)
