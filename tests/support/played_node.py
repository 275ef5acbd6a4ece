"""A node without Docker: it opens the real door, and writes rows as a real one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from runner.door.call import DoorCall, EndCall
from runner.door.calls import (
    CALLS,
    CreateCall,
    KnockCall,
    PauseCall,
    ProcessesCall,
    RefreshCall,
    ResumeCall,
    StoredCall,
)
from runner.door.grants import DoorGrant, GrantKey, make_key
from runner.door.reaching import SOCKET
from runner.door.replies import (
    REPLIES,
    AdmittedReply,
    DoneReply,
    ProcessReply,
    Reply,
    StartedReply,
    told,
)
from runner.door.wire import DoorLine, Hung
from runner.store import residents
from runner.store.db import Database
from runner.store.residents import SandboxHold
from runner.words.errors import NotFound, RunnerError, SandboxEnded
from runner.words.lives import EndReason, Life
from runner.words.living import ProcessInfo
from runner.words.sandbox import SandboxSpec

LEASE = timedelta(minutes=1)
PROCESS = ProcessInfo(
    number=1,
    argv=("true",),
    tag=None,
    terminal=False,
    stdin=False,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    output_bytes=0,
)


@dataclass
class PlayedNode:
    """A node that notes its requests, and fails as it is told."""

    database: Database
    key: GrantKey = field(repr=False)
    name: str = "played"
    instance: str = "i1"
    fails: RunnerError | None = None
    """The failure of the next sandbox that is to be made; before it is claimed."""
    fails_later: RunnerError | None = None
    """The same, after it is claimed."""
    fails_to_pause: RunnerError | None = None
    holds: asyncio.Event | None = None
    """The event that it awaits once it has made a sandbox, before it says so."""
    made: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it has made a sandbox."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Callers, each with its request."""
    ahead: list[SandboxSpec] = field(default_factory=list)
    """The sandboxes that it was asked to make ready before a row was stored."""
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a caller has hung up in the middle of its call."""
    _held: set[tuple[UUID, UUID]] = field(default_factory=set)

    async def attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one call."""
        line = DoorLine(reader, writer, says=REPLIES, hears=CALLS)
        try:
            knock, call = await line.hear(), await line.hear()
            assert isinstance(knock, KnockCall)
            assert isinstance(call, DoorCall)
            grant = self.key.check(knock.grant, knock.call)
            self.asked.append((grant.actor, call.name))
            await line.tell(AdmittedReply())
            if isinstance(call, CreateCall) and call.ahead is not None:
                self.ahead.append(call.ahead)
                assert isinstance(await line.hear(), StoredCall)
            for reply in await self._do(grant, call):
                await line.tell(reply)
            await line.tell(DoneReply())
        except Hung:
            self.hung_up.set()
        except RunnerError as error:
            await line.tell(told(error))
        finally:
            line.close()

    async def end(self, tenant: UUID, sandbox: UUID, reason: EndReason, detail: str) -> None:
        """End a sandbox by itself, as when its time is up."""
        async with self.database.tenant(tenant) as tx:
            await residents.end(tx, SandboxHold(tenant, sandbox, self.instance), reason, detail)
        self._held.remove((tenant, sandbox))

    async def _do(self, grant: DoorGrant, call: DoorCall) -> list[Reply]:
        hold = SandboxHold(grant.tenant, grant.sandbox, self.instance)
        if isinstance(call, CreateCall):
            return [StartedReply(await self._create(hold))]
        if (grant.tenant, grant.sandbox) not in self._held:
            raise SandboxEnded("no such sandbox lives here")
        match call:
            case EndCall():
                await self.end(grant.tenant, grant.sandbox, EndReason.KILLED, "it was asked to end")
            case PauseCall() if self.fails_to_pause is not None:
                raise self.fails_to_pause
            case PauseCall():
                await self._become(hold, Life.PAUSING, Life.PAUSED)
            case ResumeCall():
                await self._become(hold, Life.RESUMING, Life.RUNNING)
            case ProcessesCall():
                return [ProcessReply(PROCESS)]
            case RefreshCall():
                pass
            case _:
                raise NotFound("no such process")
        return []

    async def _create(self, hold: SandboxHold) -> datetime:
        if self.fails is not None:
            raise self.fails
        async with self.database.tenant(hold.tenant_id) as tx:
            await residents.claim(
                tx, hold.sandbox_id, node=self.name, instance=self.instance, lease=LEASE
            )
        if self.fails_later is not None:
            raise self.fails_later
        async with self.database.tenant(hold.tenant_id) as tx:
            started_at = await residents.start(tx, hold, {})
        self._held.add((hold.tenant_id, hold.sandbox_id))
        self.made.set()
        if self.holds is not None:
            await self.holds.wait()
        return started_at

    async def _become(self, hold: SandboxHold, *states: Life) -> None:
        async with self.database.tenant(hold.tenant_id) as tx:
            for state in states:
                await residents.change(tx, hold, state)


@asynccontextmanager
async def played_node(database: Database, folder: Path) -> AsyncIterator[PlayedNode]:
    """Open the door of a played node in a folder."""
    node = PlayedNode(database, make_key(folder))
    server = await asyncio.start_unix_server(node.attend, folder / SOCKET)
    try:
        yield node
    finally:
        server.close()
        await server.wait_closed()
