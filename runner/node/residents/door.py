"""The socket where the API knocks. Only a grant that is good for the call opens the door.

The mode of its folder decides who can reach the socket at all. Input is bounded: one frame of a
bounded length at a time, a bounded number of connections, a short time to say what is wanted.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

import structlog

from runner.base.telemetry import traced
from runner.base.tracing import Fact, Facts, SpanTracer, timed
from runner.door import calls
from runner.door.call import DoorCall, EndCall
from runner.door.calls import CALLS, KnockCall
from runner.door.grants import MOST_S, DoorGrant, GrantKey, check_for, give, make_key
from runner.door.identity import DoorPeer, DoorRole, peer_of
from runner.door.reaching import SOCKET
from runner.door.replies import (
    REPLIES,
    AdmittedReply,
    DoneReply,
    MetricsReply,
    SeriesReply,
    StartedReply,
    told,
)
from runner.door.wire import READ_AHEAD, Chunk, DoorLine, Hung
from runner.node.measures import Measures
from runner.node.residents import archives, coding, files, talks
from runner.node.residents.attend import NodeLine, out_of_turn
from runner.node.residents.callers import CallTable
from runner.node.residents.journal import Journal
from runner.node.residents.meter import SAMPLE_S
from runner.node.residents.resident import Resident
from runner.node.residents.residents import Residents
from runner.node.starvation import starved
from runner.words.errors import NodeAway, NotPermitted, RunnerError, SandboxEnded, SandboxFault
from runner.words.lives import EndReason
from runner.words.sandbox import SandboxSpec

ADMITTED_S = 2.0
"""How long a caller may take to say what it wants, unless its host is slow."""
LINGER_S = 2.0
"""How long a caller is still read from after its call has failed, so that it learns why."""
STORED_S = 60.0
"""How long a sandbox that was made ahead waits for its row."""
MOST_CALLS = 4096
_ANSWERED_SOON = (calls.StartCall, calls.ProcessCall, calls.ReadCall, calls.StatCall)
"""Calls that nobody adds to and that are mostly answered in the next moment: their answer tells
that they were admitted."""
CheckGrant: TypeAlias = Callable[[str, str], DoorGrant]
"""Returns what a grant says, if it is good for this call. Raises NotPermitted."""
_log = structlog.get_logger("runner.worker")


class NodeDoor:
    """Answers calls. `open_door` puts it on its socket."""

    def __init__(
        self,
        *,
        residents: Residents,
        journal: Journal,
        key: GrantKey,
        measures: Measures,
        tracer: SpanTracer,
        node: str,
        most: int = MOST_CALLS,
        callers: CallTable | None = None,
        patience: int = 1,
    ) -> None:
        self._residents = residents
        self._journal = journal
        self._key = key
        self._measures = measures
        self._tracer = tracer
        self._node = node
        self._most = most
        self._callers = callers or CallTable()
        self._patience = patience
        self._most_s = MOST_S * patience
        self._under_way: set[asyncio.Task[None]] = set()
        self._far: dict[asyncio.Task[None], int] = {}
        """Calls over TLS, each with the number of its caller's certificate."""
        self._taken_back: frozenset[int] = frozenset()

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call of this host, whose grant this host's key has signed."""
        self._answers(reader, writer, partial(self._key.check, most_s=self._most_s))

    def serve_far(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call over TLS, whose grant the caller itself has signed for this node."""
        try:
            peer = self._known(writer.get_extra_info("ssl_object"))
        except NotPermitted as error:
            _log.warning("knock_refused", why=error.detail)
            writer.transport.abort()
            return
        check = partial(check_for, peer.key, self._node, most_s=self._most_s)
        task = self._answers(reader, writer, check)
        self._far[task] = peer.serial
        task.add_done_callback(self._far.pop)

    def _known(self, connection: ssl.SSLObject) -> DoorPeer:
        peer = peer_of(connection, DoorRole.API)
        # Its handshake may have begun before the node knew.
        if peer.serial in self._taken_back:
            raise NotPermitted(f"the certificate of {peer.name} was revoked")
        return peer

    def refuse(self, taken_back: frozenset[int]) -> None:
        """Cut the calls of those who have one of these certificates, and admit no further ones.

        Whoever stole a key would otherwise keep what they have open for as long as they like.
        """
        self._taken_back = taken_back
        for task, serial in self._far.items():
            if serial in taken_back:
                task.cancel()

    def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: CheckGrant
    ) -> asyncio.Task[None]:
        line = DoorLine(reader, writer, says=REPLIES, hears=CALLS)
        task = asyncio.create_task(self._serve(line, check))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def close(self) -> None:
        """Cancel all calls under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _serve(self, line: NodeLine, check: CheckGrant) -> None:
        try:
            try:
                done = await self._call(line, check)
            except Hung:
                return
            except RunnerError as error:
                await self._fail(line, error)
            except Exception as error:  # noqa: BLE001 - reported and logged: the door goes on
                _log.exception("call_failed")
                failed = starved(error) or SandboxFault("the node failed: see its log")
                await self._fail(line, failed)
            else:
                await line.tell(done)
        except Hung:
            # Nobody is left to hear it.
            return
        finally:
            line.close()

    async def _fail(self, line: NodeLine, error: RunnerError) -> None:
        await line.tell(told(error))
        # If a connection is closed with bytes unread, the last message may be lost.
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while True:
                    await line.hear()

    async def _call(self, line: NodeLine, check: CheckGrant) -> DoneReply:
        try:
            async with asyncio.timeout(ADMITTED_S * self._patience):
                grant, call = await self._admit(line, check)
        except TimeoutError:
            raise NotPermitted("no call came in time") from None
        await line.tell(AdmittedReply(), may_wait=isinstance(call, _ANSWERED_SOON))
        with (
            traced(grant.place),
            self._measures.answering(call.name),
            timed(self._tracer, f"door {call.name}", grant.place, _facts(grant, call)) as here,
        ):
            grant = replace(grant, trace=here.text) if here else grant
            return await self._answer(line, grant, call) or DoneReply()

    async def _admit(self, line: NodeLine, check: CheckGrant) -> tuple[DoorGrant, DoorCall]:
        knock, call = await line.hear(), await line.hear()
        if not isinstance(knock, KnockCall):
            raise out_of_turn(knock)
        if isinstance(call, Chunk) or call.name != knock.call:
            raise out_of_turn(call)
        grant = check(knock.grant, call.name)
        if len(self._under_way) > self._most:
            raise NodeAway(f"the node answers {self._most} calls already")
        return grant, call

    async def _answer(self, line: NodeLine, grant: DoorGrant, call: DoorCall) -> DoneReply | None:
        match call:
            case calls.CreateCall(ahead=spec):
                await line.tell(StartedReply(await self._create(line, grant, spec)))
                return None
            case EndCall(reason=reason, detail=detail):
                why = EndReason(reason), detail or reason.replace("_", " ")
                await self._residents.end(grant.tenant, grant.sandbox, *why)
                return None
        resident = self._residents.get(grant.tenant, grant.sandbox)
        try:
            return await self._in(line, resident, grant, call)
        except SandboxFault as error:
            # If the sandbox has ended, that is what the caller has to learn.
            if resident.over:
                cause = resident.why or error.detail
                raise SandboxEnded(f"this sandbox has ended: {cause}") from error
            raise

    async def _create(self, line: NodeLine, grant: DoorGrant, spec: SandboxSpec | None) -> datetime:
        """Make a sandbox; if its row is not stored yet, make it ready until it is."""
        if spec is None:
            return await self._residents.create(grant.tenant, grant.sandbox)
        async with self._residents.ahead(grant.tenant, spec) as ahead:
            try:
                async with asyncio.timeout(STORED_S):
                    said = await line.hear()
            except TimeoutError:
                raise NodeAway("the sandbox's row was not stored in time") from None
            if not isinstance(said, calls.StoredCall):
                raise out_of_turn(said)
            return await self._residents.create(grant.tenant, grant.sandbox, ahead)

    async def _in(
        self, line: NodeLine, resident: Resident, grant: DoorGrant, call: DoorCall
    ) -> DoneReply | None:
        match call:
            case calls.RefreshCall():
                await resident.refresh()
            case calls.PauseCall():
                await resident.pause()
            case calls.ResumeCall():
                await resident.resume()
            case calls.MetricsCall():
                await line.tell(MetricsReply(await resident.metrics()))
            case calls.SeriesCall():
                await line.tell(SeriesReply(SAMPLE_S, tuple(resident.series)))
            case _:
                # Calls above change the sandbox's life: they finish even if the caller leaves,
                # and are let in even if the sandbox is busy.
                with self._callers.answered(line, grant):
                    return await self._inside(line, resident, grant, call)
        return None

    async def _inside(
        self, line: NodeLine, resident: Resident, grant: DoorGrant, call: DoorCall
    ) -> DoneReply | None:
        if isinstance(call, talks.ANSWERED):
            await talks.answer(line, resident, grant, call, self._journal, self._tracer)
            return None
        if isinstance(call, coding.ANSWERED):
            await coding.answer(line, resident, grant, call, self._journal, self._tracer)
            return None
        if isinstance(call, files.ANSWERED):
            return await files.answer(line, resident, grant, call, self._journal)
        if isinstance(call, archives.ANSWERED):
            await archives.answer(line, resident, grant, call, self._journal)
            return None
        raise out_of_turn(call)


def _facts(grant: DoorGrant, call: DoorCall) -> Facts:
    """Return what a span says of a call."""
    return {
        Fact.TENANT: str(grant.tenant),
        Fact.SANDBOX: str(grant.sandbox),
        Fact.CALL: call.name,
    }


@asynccontextmanager
async def open_door(
    folder: Path,
    *,
    residents: Residents,
    journal: Journal,
    measures: Measures,
    tracer: SpanTracer,
    node: str,
    group: int | None = None,
    patience: int = 1,
) -> AsyncIterator[NodeDoor]:
    """Answer at the door's socket while the context lasts.

    Only the node's user can reach the folder, and with `group` also that group. `patience` is that
    of a slow host. Raises SetupError if others can read the key for grants.
    """
    key = _furnished(folder, group)
    door = NodeDoor(
        residents=residents,
        journal=journal,
        key=key,
        measures=measures,
        tracer=tracer,
        node=node,
        patience=patience,
    )
    path = folder / SOCKET
    server = await asyncio.start_unix_server(door.serve, path, limit=READ_AHEAD)
    try:
        give(path, group, alone=0o600, shared=0o660)
        yield door
    finally:
        server.close()
        await door.close()


def _furnished(folder: Path, group: int | None) -> GrantKey:
    """Make the folder with the right modes; return the key in it."""
    folder.mkdir(parents=True, exist_ok=True)
    give(folder, group, alone=0o700, shared=0o750)
    (folder / SOCKET).unlink(missing_ok=True)
    return make_key(folder, group)
