"""One sandbox that lives: its processes, its time, its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import structlog

from runner.node.residents.ending import EndRecords, why_lost
from runner.node.residents.freezing import Freezing
from runner.node.residents.furnish import Furnished
from runner.node.residents.journal import Journal
from runner.node.residents.meter import MetricsSeries, SandboxMeter
from runner.node.residents.processes import ProcessLabel, ProcessTable
from runner.node.residents.row import SandboxRow
from runner.node.residents.timing import next_limit, why_over
from runner.node.runs.recorder import until_stored
from runner.quotas.standing import resume_refusal
from runner.store import quotas, residents, sandboxes
from runner.store.db import Database
from runner.store.residents import SandboxHold
from runner.words.errors import (
    Conflict,
    LeaseLost,
    NotReady,
    RunnerError,
    SandboxEnded,
    SandboxFault,
)
from runner.words.execution import JSON
from runner.words.lives import EndReason, Life, OnShortage, OnTimeout
from runner.words.living import SandboxMetrics, StoredSandbox

LEAVES_S = 5.0
"""How long an end under way may hold up a stopping worker."""
AGAIN_S = 2.0
"""How soon to try again if a sandbox could not be paused when its time was up."""
LONGEST_WAIT_S = 3600.0
"""How often to look at the clock at least: somebody may set it."""

KEPT = "its files are in the snapshot {}, from which another sandbox can be made"
_log = structlog.get_logger("runner.worker")


class Resident:
    """A sandbox that lives on this node. The first reason to end it counts."""

    def __init__(
        self,
        hold: SandboxHold,
        sandbox: StoredSandbox,
        furnished: Furnished,
        *,
        database: Database,
        journal: Journal,
        ends: EndRecords,
        node: str,
        on_end: Callable[["Resident"], Awaitable[None]],
    ) -> None:
        """Take a furnished sandbox. `on_end` is called once its row says that it ended."""
        self.hold = hold
        self.guest = furnished.guest
        self.masker = furnished.masker
        self.series = MetricsSeries()
        self.meter = SandboxMeter(self.guest.container, furnished.way)
        self.processes = ProcessTable(
            forget=self.guest.forget,
            on_end=lambda number, end: journal.ended(hold.tenant_id, hold.sandbox_id, number, end),
        )
        self.starts = furnished.starts(self.processes, journal)
        self.contexts = furnished.contexts(lambda: self.masker)
        self._closing = furnished.closing
        self._rewire = furnished.rewire
        self._database = database
        self._journal = journal
        self._row = SandboxRow(hold, node, furnished, self.meter, database, journal, ends)
        self._on_end = on_end
        self._sandbox = sandbox
        self._kept_as: UUID | None = None
        self.ran_until = _now()
        """The time at which it was last paused, by the event loop's clock."""
        self._expired = False
        self._told = asyncio.Event()
        self._rewiring = asyncio.Lock()
        self._freezing = Freezing(self.guest, self._row.change, self._require_not_over)
        self._ending: asyncio.Task[None] | None = None
        self.why: str | None = None
        """Why it ends, once it does."""
        self._watching = asyncio.create_task(self._watch())
        self.guest.lost.add_done_callback(lambda _: self._hung_up())

    @property
    def life(self) -> Life:
        """Its state, as far as the row is known to hold it."""
        return self._freezing.life

    @property
    def over(self) -> bool:
        """Whether it is ending, or its supervisor has hung up."""
        return self._ending is not None or self.guest.lost.done()

    async def take_over(self, life: Life) -> None:
        """Go on from what an earlier process of this node knew of it."""
        await self._try("count its use", self._row.count)
        for process in self.guest.processes:
            if not await self.contexts.adopt(process):
                self.processes.add(process, ProcessLabel.read(process.label), known=True)
        await self._freezing.take_over(life)

    # ---- Actions in it -----------------------------------------------------------------------

    def require_running(self) -> None:
        """Raise SandboxEnded or Conflict unless its processes run."""
        self._require_not_over()
        if self.life is not Life.RUNNING:
            raise Conflict(f"this sandbox is {self.life.value}: resume it first")

    async def awake(self) -> None:
        """Resume it if it is paused, was made to be resumed by its use, and its tenant may.

        Raises SandboxEnded, Conflict if it then still does not run, and NotReady.
        """
        if self.life is not Life.RUNNING and self._sandbox.auto_resume and not self.over:
            async with self._database.tenant(self.hold.tenant_id) as tx:
                refused = resume_refusal(await quotas.standing(tx))
            if refused is not None:
                raise Conflict(f"this sandbox is {self.life.value}: {refused.detail}")
            try:
                await self.resume({"auto": True})
            except SandboxFault as error:
                self._log("sandbox_not_resumed", error.detail)
                raise NotReady("the sandbox was not resumed: try again") from error
        self.require_running()

    def _require_not_over(self) -> None:
        if self.over:
            raise SandboxEnded("this sandbox has ended")

    @property
    def metadata(self) -> Mapping[str, str]:
        """The labels that its tenant gave it."""
        return self._sandbox.metadata

    async def metrics(self) -> SandboxMetrics:
        """Return what it uses now."""
        running = sum(each.end is None for each in self.processes)
        return await self.meter.metrics(running)

    # ---- Its life ----------------------------------------------------------------------------

    async def pause(self, facts: Mapping[str, JSON] | None = None) -> None:
        """Freeze it, unless it is frozen. Raises SandboxEnded, LeaseLost, what Docker raises.

        The audit record holds `facts`. The change is completed even if the caller is cancelled.
        """
        ran = self.life is not Life.PAUSED
        await self._freezing.pause(facts or {})
        if ran:
            self.ran_until = _now()

    async def resume(self, facts: Mapping[str, JSON] | None = None) -> None:
        """Thaw it, unless it runs. If its time was up, that begins again now.

        Takes and raises what `pause` does, and is also completed in any case.
        """
        await self._freezing.resume(self._time_anew, facts or {})

    async def _time_anew(self) -> None:
        """Begin its time again if that was up: otherwise it would be paused at once."""
        ends = self._sandbox.expires_at
        if ends is None or ends > datetime.now(UTC):
            return
        async with self._database.tenant(self.hold.tenant_id) as tx:
            ends = await residents.count_anew(tx, self.hold)
        self._sandbox = replace(self._sandbox, expires_at=ends)
        self._expired = False
        self._told.set()

    async def refresh(self) -> None:
        """Read its row again: its time or its way out may have changed.

        Raises NotReady if its way out does not follow the row; a further call tries again, and so
        does a sweep.
        """
        async with self._rewiring:
            before = self._sandbox
            async with self._database.single(self.hold.tenant_id) as tx:
                found = await sandboxes.get(tx, self.hold.sandbox_id)
            if found is None:
                return
            if self._sandbox is before:  # Otherwise its time began again while we read.
                self._sandbox = replace(found, egress=before.egress)
                self._expired = self._expired and found.expires_at == before.expires_at
                self._told.set()
            if found.egress != before.egress and not self.over:
                if self.life is not Life.RUNNING:
                    raise NotReady(f"it is {self.life.value}: its rules change once it runs")
                self.masker = await self._rewire(found)
                self._sandbox = replace(self._sandbox, egress=found.egress)

    async def end(self, reason: EndReason, detail: str) -> None:
        """End it, whatever it is doing; return once its row says so. The first reason counts."""
        await asyncio.shield(self.ends(reason, detail))

    def ends(self, reason: EndReason, detail: str) -> asyncio.Task[None]:
        """Begin to end it, unless somebody has; return the task that ends it."""
        if self._ending is None:
            self.why = detail
            self._ending = asyncio.create_task(self._end(reason, detail))
        return self._ending

    @property
    def may_be_evicted(self) -> bool:
        """Whether it is paused, and its tenant permits that a short host ends it."""
        return self._keepable and self.life is Life.PAUSED

    @property
    def _keepable(self) -> bool:
        chosen = self._sandbox.on_shortage is OnShortage.SNAPSHOT and not self._sandbox.filling
        return chosen and not self.over

    @property
    def may_be_moved(self) -> bool:
        """Whether nothing runs in it, and its tenant permits that it becomes a snapshot."""
        busy = any(each.end is None for each in self.processes) or any(True for _ in self.contexts)
        return self._keepable and self.life is Life.RUNNING and not busy

    async def evict(self, keep: Callable[[], Awaitable[UUID]], why: str) -> None:
        """End it once `keep` has kept its files as a snapshot, for which it is thawed.

        `why` tells its users.

        Raises Conflict if somebody resumes it first, and what `keep` and Docker raise: then it
        stays paused.
        """

        async def work() -> None:
            kept_as = await keep()
            if self._ending is None:
                self._kept_as = kept_as
            self.ends(EndReason.EVICTED, f"{why}; {KEPT.format(kept_as)}")

        await self._freezing.borrow(work)
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def leave(self) -> None:
        """Leave it alive for a later process of this node."""
        self._watching.cancel()
        self.processes.stop()
        if self._ending is not None:
            # It takes longer while PostgreSQL is away; then the next process writes the end.
            await asyncio.wait({self._ending}, timeout=LEAVES_S)
            return
        await self._freezing.settle(LEAVES_S)
        self.guest.leave()
        await self._closing.aclose()
        # A later process cannot know how much went through its way out.
        await self._try("count its use", self._row.count)

    # ---- Its end -----------------------------------------------------------------------------

    async def _end(self, reason: EndReason, detail: str) -> None:
        self._watching.cancel()
        self.processes.stop()
        self.meter.note()
        try:
            # If Docker cannot kill it now, the watchdog will.
            await self._try("kill it", self.guest.container.kill)
            await self._try("close its way out", self._closing.aclose)
            await self._try("write what was done", self._journal.write)
            started, kept_as = self.processes.started, self._kept_as
            await until_stored(
                lambda: self._row.end(reason, detail, started=started, kept_as=kept_as)
            )
        except LeaseLost as error:
            self._log("sandbox_end_not_stored", error.detail)
        except Exception:  # noqa: BLE001 - logged; a sweep finds its row without a sandbox
            _log.exception("sandbox_not_ended", sandbox=str(self.hold.sandbox_id))
        finally:
            self._journal.forget(self.hold.sandbox_id)
            self._freezing.life = Life.ENDED
            await self._on_end(self)

    async def _try(self, what: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do it; a failure is logged and does not stop what comes next."""
        try:
            await work()
        except (RunnerError, OSError) as error:
            self._log("sandbox_end_hindered", f"cannot {what}: {error}")

    def _log(self, event: str, why: str) -> None:
        _log.warning(event, sandbox=str(self.hold.sandbox_id), why=why)

    # ---- Its time ----------------------------------------------------------------------------

    def _hung_up(self) -> None:
        self.meter.note()
        self._told.set()

    async def _watch(self) -> None:
        try:
            await self._await_end()
        except Exception:  # noqa: BLE001 - logged; no sandbox may live unless its time is kept
            _log.exception("sandbox_not_watched", sandbox=str(self.hold.sandbox_id))
            self.ends(EndReason.INTERNAL_ERROR, "the node failed: see its log")

    async def _await_end(self) -> None:
        """End it once its time is up or its supervisor has hung up."""
        while not self.guest.lost.done():
            due, reason = next_limit(self._sandbox, expired=self._expired)
            now = datetime.now(UTC)
            if due is not None and due <= now:
                if await self._time_is_up(reason):
                    return
                continue
            left = LONGEST_WAIT_S if due is None else (due - now).total_seconds()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LONGEST_WAIT_S)):
                    await self._told.wait()
                self._told.clear()
        self.ends(*await why_lost(self.guest))

    async def _time_is_up(self, reason: EndReason) -> bool:
        """Pause or end it; return whether it ends."""
        pauses = self._sandbox.on_timeout is OnTimeout.PAUSE and not self._sandbox.filling
        if reason is EndReason.EXPIRED and pauses:
            self._expired = True
            try:
                await self.pause()
            except (NotReady, SandboxFault) as error:
                # Docker or PostgreSQL has failed for now: no reason to end the sandbox.
                self._log("sandbox_not_paused", error.detail)
                await asyncio.sleep(AGAIN_S)
                self._expired = False
                return False
            except (LeaseLost, SandboxEnded) as error:
                self._log("sandbox_not_paused", error.detail)
            else:
                return False
        self.ends(reason, why_over(self._sandbox, reason))
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
