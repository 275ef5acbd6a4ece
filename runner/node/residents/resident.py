"""One sandbox that lives: its processes, its time, its end."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime

import structlog

from runner.audit import events as audit
from runner.node.residents.ending import EndRecords, lived, why_lost
from runner.node.residents.freezing import Freezing
from runner.node.residents.furnish import Furnished
from runner.node.residents.journal import Journal, sandbox_event
from runner.node.residents.meter import MetricsSeries, SandboxMeter
from runner.node.residents.processes import ProcessLabel, ProcessTable
from runner.node.residents.starts import Starts
from runner.node.runs.recorder import until_stored
from runner.quotas.tiers import resume_refusal
from runner.store import quotas, residents, sandboxes, usage
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
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import SandboxMetrics, StoredSandbox

LEAVES_S = 5.0
"""How long an end under way may hold up a stopping worker."""
AGAIN_S = 2.0
"""How soon to try again if a sandbox could not be paused when its time was up."""
LONGEST_WAIT_S = 3600.0
"""How often to look at the clock at least: somebody may set it."""

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
        self.starts = Starts(self.guest, self.processes, journal, furnished.environment)
        self.contexts = furnished.contexts(lambda: self.masker)
        self._closing = furnished.closing
        self._rewire = furnished.rewire
        self._way = furnished.way
        self._database = database
        self._journal = journal
        self._ends = ends
        self._node = node
        self._on_end = on_end
        self._sandbox = sandbox
        self._expired = False
        self._told = asyncio.Event()
        self._rewiring = asyncio.Lock()
        self._freezing = Freezing(self.guest, self._store_life, self._require_not_over)
        self._ending: asyncio.Task[None] | None = None
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
        await self._try("count its use", self._count)
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

    async def metrics(self) -> SandboxMetrics:
        """Return what it uses now."""
        running = sum(each.end is None for each in self.processes)
        return await self.meter.metrics(running)

    # ---- Its life ----------------------------------------------------------------------------

    async def pause(self, facts: Mapping[str, JSON] | None = None) -> None:
        """Freeze it, unless it is frozen. Raises SandboxEnded, LeaseLost, what Docker raises.

        The audit record holds `facts`. The change is completed even if the caller is cancelled.
        """
        await self._freezing.pause(facts or {})

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
            self._ending = asyncio.create_task(self._end(reason, detail))
        return self._ending

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
        await self._try("count its use", self._count)

    async def _count(self) -> None:
        reading = await self.meter.read()
        async with self._database.tenant(self.hold.tenant_id) as tx:
            await usage.count_sandbox(tx, self.hold, reading)

    async def _store_life(
        self, life: Life, action: audit.Action | None, facts: Mapping[str, JSON], /
    ) -> None:
        counts = life in {Life.PAUSED, Life.RESUMING}
        reading = await self.meter.read() if counts else None
        # With a record, the change must be known to be ours before anything is stored.
        opened = self._database.single if action is None else self._database.tenant
        async with opened(self.hold.tenant_id) as tx:
            if reading is not None:
                usage.count_sandbox_later(tx, self.hold, reading)
            await residents.change(tx, self.hold, life)
            if action is not None:
                audit.append(tx, self.hold.tenant_id, self._event(action, facts))
        if action is not None:
            self._journal.announce(self.hold.sandbox_id)

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
            await until_stored(lambda: self._store_end(reason, detail))
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

    async def _store_end(self, reason: EndReason, detail: str) -> None:
        lost = self._journal.lost(self.hold.sandbox_id)
        facts: dict[str, JSON] = {
            "processes_started": self.processes.started,
            "records_lost": lost,
        }
        if self._way.usage is not None:
            facts["egress"] = asdict(self._way.usage)
        reading = await self.meter.read()
        async with self._database.tenant(self.hold.tenant_id) as tx:
            await usage.count_sandbox(tx, self.hold, reading, ended=True)
            times = await residents.end(tx, self.hold, reason, detail)
            known = lived(self.guest, self._way, self._node, reading.cpu_s, lost)
            held = self.hold.tenant_id, self.hold.sandbox_id
            await self._ends.write(tx, held, reason, times, known, facts)
        self._journal.announce(self.hold.sandbox_id)

    def _event(self, action: audit.Action, facts: Mapping[str, JSON]) -> audit.AuditEvent:
        return sandbox_event(action, self.hold.sandbox_id, facts)

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
            due, reason = self._due()
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

    def _due(self) -> tuple[datetime | None, EndReason]:
        """Return when its next limit is reached, and which limit that is."""
        ends, lives = self._sandbox.expires_at, self._sandbox.lives_until
        if ends is None or self._expired:
            return lives, EndReason.MAX_LIFE
        # If it could not be paused, its time stays up.
        if lives is not None and (lives < ends or lives <= datetime.now(UTC)):
            return lives, EndReason.MAX_LIFE
        return ends, EndReason.EXPIRED

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
        detail = (
            f"its time was up: {self._sandbox.timeout_s:g} s"
            if (reason is EndReason.EXPIRED and self._sandbox.timeout_s is not None)
            else "it has lived for as long as it may"
        )
        self.ends(reason, detail)
        return True
