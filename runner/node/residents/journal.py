"""Audit records of actions in living sandboxes, written in batches.

No command waits for PostgreSQL. So records are gathered for half a second, and written in one
transaction for each tenant. A record is kept until it is known to be written. If PostgreSQL refuses
a record for its content, the others are written without it. Records that are not written when this
process dies are lost; the process numbers in the record of a sandbox's end bound how many.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args
from uuid import UUID

import psycopg
import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.door.grants import DoorGrant
from runner.node.runs.told import event_as_told
from runner.store.db import Database
from runner.words.errors import StoreUnavailable
from runner.words.execution import JSON
from runner.words.living import ProcessEnd

FLUSH_S = 0.5
MOST_GATHERED = 20_000
"""How many records are kept while PostgreSQL is away; further ones are counted and reported."""
MOST_OF_SANDBOX = 2_000
"""How many are kept of one sandbox, so that it leaves room for others."""
MOST_IN_RECORD = 100
NODE = "system:worker"
"""The name that audit records have for the node itself."""

ContextDeed: TypeAlias = Literal["opened", "ran", "restarted", "closed"]
Transfer: TypeAlias = Literal[
    "read", "written", "listed", "made", "moved", "removed", "packed", "unpacked"
]
_log = structlog.get_logger("runner.worker")


@dataclass(slots=True)
class _Deeds:
    """The actions of one caller, or of the node itself, in one sandbox since the last batch."""

    started: list[Mapping[str, JSON]] = field(default_factory=list)
    ended: list[Mapping[str, JSON]] = field(default_factory=list)
    files: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    contexts: defaultdict[str, list[Mapping[str, JSON]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    ports: dict[int, "_Port"] = field(default_factory=dict)


@dataclass(slots=True)
class _Port:
    """The traffic of one port since the last batch."""

    connections: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    deeds: int = 0


@dataclass(frozen=True, slots=True)
class _Who:
    tenant_id: UUID
    sandbox_id: UUID
    actor: str = NODE
    origin: audit.Origin = field(default_factory=audit.Origin)


@dataclass(frozen=True, slots=True)
class _Told:
    """An event as it came, before its secrets are starred."""

    who: _Who
    event: audit.AuditEvent
    masker: Masker


@dataclass(frozen=True, slots=True)
class _Record:
    """A record to write, and how many deeds it covers."""

    who: _Who
    event: audit.AuditEvent
    deeds: int


class Journal:
    """Gathers the records of all residents. `write` is a duty, done every `FLUSH_S`."""

    def __init__(
        self, database: Database, announce: Callable[[UUID], None] = lambda _: None
    ) -> None:
        """Write to a database, and `announce` each sandbox of which something was written."""
        self.announce = announce
        self._database = database
        self._deeds: dict[_Who, _Deeds] = {}
        self._others: deque[_Told] = deque()
        self._ready: defaultdict[UUID, list[_Record]] = defaultdict(list)
        """Records by tenant that are not known to be written."""
        self._kept: defaultdict[UUID, int] = defaultdict(int)
        """How many deeds are kept, by sandbox."""
        self._count = 0
        """How many deeds are kept in all."""
        self._dropped: defaultdict[UUID, int] = defaultdict(int)
        self._writing = asyncio.Lock()

    def started(self, grant: DoorGrant, number: int, program: str, arguments: int) -> None:
        """Record the start of a process: its program's name and its number of arguments."""
        facts = {"number": number, "program": program[-_SHOWN:], "arguments": arguments}
        if (deeds := self._of(_caller(grant))) is not None:
            deeds.started.append(facts)

    def ended(self, tenant_id: UUID, sandbox_id: UUID, number: int, end: ProcessEnd) -> None:
        """Record the end of a process."""
        facts = {
            "number": number,
            "exit_code": end.exit_code,
            "signal": end.signal,
            "timed_out": end.timed_out,
            "output_bytes": end.output_bytes,
        }
        if (deeds := self._of(_Who(tenant_id, sandbox_id))) is not None:
            deeds.ended.append(facts)

    def files(self, grant: DoorGrant, what: Transfer, size: int | None = None) -> None:
        """Record that files were read, written or otherwise touched; bytes, where they count."""
        if (deeds := self._of(_caller(grant))) is not None:
            deeds.files[what] += 1
            if size is not None:
                deeds.files[f"bytes_{what}"] += size

    def connected(self, grant: DoorGrant, port: int) -> None:
        """Record a connection to a port of the sandbox."""
        if (deeds := self._of(_caller(grant))) is not None:
            through = deeds.ports.setdefault(port, _Port())
            through.connections += 1
            through.deeds += 1

    def carried(self, grant: DoorGrant, port: int, *, bytes_in: int, bytes_out: int) -> None:
        """Record how many bytes a connection has carried into the sandbox and out, at its end."""
        if (deeds := self._of(_caller(grant))) is not None:
            through = deeds.ports.setdefault(port, _Port())
            through.bytes_in += bytes_in
            through.bytes_out += bytes_out
            through.deeds += 1

    def context(self, grant: DoorGrant, what: ContextDeed, facts: Mapping[str, JSON]) -> None:
        """Record that a context was begun, ended or restarted, or has run code."""
        if (deeds := self._of(_caller(grant))) is not None:
            deeds.contexts[what].append(facts)

    def tell(
        self, tenant_id: UUID, sandbox_id: UUID, event: audit.AuditEvent, mask: Masker
    ) -> None:
        """Record an event of another kind, such as a decision on egress, with secrets starred."""
        who = _Who(tenant_id, sandbox_id)
        if self._room(who):
            self._others.append(_Told(who, event, mask))

    def lost(self, sandbox_id: UUID) -> int:
        """Return how many records of a sandbox were dropped, for the record of its end."""
        return self._dropped.get(sandbox_id, 0)

    def forget(self, sandbox_id: UUID) -> None:
        """Forget a sandbox's count of dropped records."""
        self._dropped.pop(sandbox_id, None)

    async def write(self) -> None:
        """Write what was gathered. If it raises StoreUnavailable, that is kept for the next time.

        It is also kept if this is cancelled.
        """
        async with self._writing:
            await self._make_ready()
            failed: StoreUnavailable | None = None
            for tenant_id in list(self._ready):
                try:
                    await self._write_of(tenant_id)
                except StoreUnavailable as error:
                    failed = error
            if failed is not None:
                raise failed

    async def _make_ready(self) -> None:
        while self._others:
            told = self._others[0]
            event = await event_as_told(told.event, told.masker)
            self._ready[told.who.tenant_id].append(_Record(told.who, event, 1))
            self._others.popleft()
        deeds, self._deeds = self._deeds, {}
        for who, done in deeds.items():
            self._ready[who.tenant_id].extend(_records(who, done))

    async def _write_of(self, tenant_id: UUID) -> None:
        records = self._ready[tenant_id]
        try:
            await self._store(tenant_id, records)
        except psycopg.Error:
            await self._write_apart(tenant_id, records)
        else:
            self._let_go(records)
        del self._ready[tenant_id]

    async def _write_apart(self, tenant_id: UUID, records: list[_Record]) -> None:
        """Write each by itself: one that PostgreSQL refuses does not stop the others."""
        while records:
            record = records[0]
            try:
                await self._store(tenant_id, [record])
            except psycopg.Error as error:
                sandbox = record.who.sandbox_id
                self._dropped[sandbox] += record.deeds
                _log.error("record_refused", sandbox=str(sandbox), error=type(error).__name__)
            self._let_go([record])
            del records[0]

    async def _store(self, tenant_id: UUID, records: list[_Record]) -> None:
        async with self._database.tenant(tenant_id) as tx:
            for record in records:
                audit.append(tx, tenant_id, record.event)

    def _let_go(self, records: list[_Record]) -> None:
        for record in records:
            sandbox = record.who.sandbox_id
            self._count -= record.deeds
            self._kept[sandbox] -= record.deeds
            if not self._kept[sandbox]:
                del self._kept[sandbox]
        for sandbox in {record.who.sandbox_id for record in records}:
            self.announce(sandbox)

    def _of(self, who: _Who) -> _Deeds | None:
        if not self._room(who):
            return None
        return self._deeds.setdefault(who, _Deeds())

    def _room(self, who: _Who) -> bool:
        kept = self._kept.get(who.sandbox_id, 0)
        if self._count >= MOST_GATHERED or kept >= MOST_OF_SANDBOX:
            self._dropped[who.sandbox_id] += 1
            return False
        self._count += 1
        self._kept[who.sandbox_id] += 1
        return True


_SHOWN = 256


def _caller(grant: DoorGrant) -> _Who:
    origin = audit.Origin(grant.ip, grant.user_agent, None)
    return _Who(grant.tenant, grant.sandbox, grant.actor, origin)


def _records(who: _Who, deeds: _Deeds) -> list[_Record]:
    processes = {"started": deeds.started, "ended": deeds.ended}
    records = [
        _Record(who, _event(who, action, {name: part}), len(part))
        for action, lists in (
            (audit.Action.SANDBOX_PROCESSES, processes),
            (audit.Action.SANDBOX_CONTEXTS, deeds.contexts),
        )
        for name, some in lists.items()
        for at in range(0, len(some), MOST_IN_RECORD)
        if (part := some[at : at + MOST_IN_RECORD])
    ]
    ports = sorted(deeds.ports.items())
    for at in range(0, len(ports), MOST_IN_RECORD):
        some_ports = ports[at : at + MOST_IN_RECORD]
        told: list[JSON] = [
            {
                "port": port,
                "connections": each.connections,
                "bytes_in": each.bytes_in,
                "bytes_out": each.bytes_out,
            }
            for port, each in some_ports
        ]
        event = _event(who, audit.Action.SANDBOX_CONNECTIONS, {"ports": told})
        records.append(_Record(who, event, sum(each.deeds for _, each in some_ports)))
    if not deeds.files:
        return records
    count = sum(deeds.files[name] for name in get_args(Transfer) if name in deeds.files)
    files = _event(who, audit.Action.SANDBOX_FILES, deeds.files)
    return [*records, _Record(who, files, count)]


def _event(who: _Who, action: audit.Action, facts: Mapping[str, JSON]) -> audit.AuditEvent:
    return audit.AuditEvent(
        actor=who.actor,
        action=action,
        outcome=audit.Outcome.SUCCESS,
        resource_type="sandbox",
        resource_id=str(who.sandbox_id),
        origin=who.origin,
        metadata=dict(facts),
    )


def sandbox_event(
    action: audit.Action, sandbox_id: UUID, facts: Mapping[str, JSON]
) -> audit.AuditEvent:
    """Return an event for an action of this node itself on a sandbox."""
    return audit.AuditEvent(
        actor=NODE,
        action=action,
        outcome=audit.Outcome.SUCCESS,
        resource_type="sandbox",
        resource_id=str(sandbox_id),
        metadata=facts,
    )
