"""Writes what becomes of one sandbox: states, use and end, each with its audit record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from uuid import UUID

from runner.audit import events as audit
from runner.node.residents.ending import EndRecords, lived
from runner.node.residents.furnish import Furnished
from runner.node.residents.journal import Journal, sandbox_event
from runner.node.residents.meter import SandboxMeter
from runner.store import residents, usage
from runner.store.db import Database
from runner.store.residents import SandboxHold
from runner.words.execution import JSON
from runner.words.lives import EndReason, Life


@dataclass(frozen=True, slots=True)
class SandboxRow:
    """The row of a sandbox that this process holds. Each method raises LeaseLost and NotReady."""

    hold: SandboxHold
    node: str
    furnished: Furnished
    meter: SandboxMeter
    database: Database
    journal: Journal
    ends: EndRecords

    async def count(self) -> None:
        """Enter its use until now."""
        reading = await self.meter.read()
        async with self.database.tenant(self.hold.tenant_id) as tx:
            await usage.count_sandbox(tx, self.hold, reading)

    async def change(
        self, life: Life, action: audit.Action | None, facts: Mapping[str, JSON], /
    ) -> None:
        """Give it a state, and put the action that led there on record. Safe to repeat."""
        counts = life in {Life.PAUSED, Life.RESUMING}
        reading = await self.meter.read() if counts else None
        record = None
        if action is not None:
            event = sandbox_event(action, self.hold.sandbox_id, facts)
            record = audit.body(self.hold.tenant_id, event)
        async with self.database.single(self.hold.tenant_id) as tx:
            if reading is not None:
                usage.count_sandbox_later(tx, self.hold, reading)
            await residents.change(tx, self.hold, life, record=record)
        if action is not None:
            self.journal.announce(self.hold.sandbox_id)

    async def end(
        self, reason: EndReason, detail: str, *, started: int, kept_as: UUID | None
    ) -> None:
        """Write its end, after so many processes were started in it, with its receipt.

        `kept_as` is the snapshot that holds the files of an evicted one.
        """
        guest, way = self.furnished.guest, self.furnished.way
        lost = self.journal.lost(self.hold.sandbox_id)
        facts: dict[str, JSON] = {"processes_started": started, "records_lost": lost}
        if kept_as is not None:
            facts["kept_as"] = str(kept_as)
        if way.usage is not None:
            facts["egress"] = asdict(way.usage)
        reading = await self.meter.read()
        async with self.database.tenant(self.hold.tenant_id) as tx:
            await usage.count_sandbox(tx, self.hold, reading, ended=True)
            times = await residents.end(tx, self.hold, reason, detail, kept_as=kept_as)
            known = lived(guest, way, self.node, reading.cpu_s, lost)
            held = self.hold.tenant_id, self.hold.sandbox_id
            await self.ends.write(tx, held, reason, times, known, facts)
        self.journal.announce(self.hold.sandbox_id)
