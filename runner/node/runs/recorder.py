"""Records what happens while a program runs, in its event stream and in the audit log.

Output and egress decisions are gathered briefly, then masked and written in batches, so the cost
does not depend on how small the pieces are that a program writes. A decision's audit record is
written in the transaction of its event: neither exists without the other.
"""

import asyncio
import hashlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from runner.audit import events as audit
from runner.base.masking import Masker
from runner.node.runs.output import PIECE_BYTES, KeptOutput, Piece
from runner.node.runs.told import as_told, event_as_told
from runner.queue.changes import Changes
from runner.store import attempts
from runner.store.attempts import Entry, Rest
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import LeaseLost, StoreUnavailable
from runner.words.execution import JSON, NOTE, OMITTED, Claim, EventKind, Output, Result, Stream
from runner.words.resources import RunBounds
from runner.words.text import shortened

FLUSH_AFTER_S = 0.1
"""How late live output may come. An execution that ends sooner, even on a busy host, stores its
output together with its result, which saves a transaction."""
FLUSH_AT_BYTES = PIECE_BYTES
MOST_CHUNK = 2 * FLUSH_AT_BYTES
"""Most bytes that are joined into one event."""
MOST_PIECES = 256
"""Most pieces of output in a batch; further ones are joined, those of each stream by themselves."""
RETRY_AFTER_S = 0.2
AWAY_S = 300.0
"""How long to repeat work that no lease limits: longer than PostgreSQL's restart or failover."""

T = TypeVar("T")
_log = structlog.get_logger("runner.worker")


async def until_stored(operation: Callable[[], Awaitable[T]], *, patience_s: float = math.inf) -> T:
    """Repeat while PostgreSQL is away. Raises StoreUnavailable after `patience_s` seconds.

    Leave out `patience_s` only for an attempt with a lease, whose loss cancels the caller.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return await operation()
        except StoreUnavailable as error:
            if time.monotonic() >= until:
                raise
            _log.warning("store_retry", error=error.detail)
            await asyncio.sleep(RETRY_AFTER_S)


_KINDS = {Stream.STDOUT: EventKind.STDOUT, Stream.STDERR: EventKind.STDERR}


@dataclass(slots=True)
class _Output:
    """Output as the program wrote it. Nothing but a mask may see it."""

    stream: Stream
    raw: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Note:
    """Lines that the service adds to stderr."""

    text: str


@dataclass(frozen=True, slots=True)
class _Decision:
    """An egress decision: the data of its event, and its audit record."""

    data: Mapping[str, JSON]
    record: audit.AuditEvent


class Recorder:
    """Gathers one attempt's events. When it is full, the program has to wait (backpressure).

    It drops nothing that is not stored, so a cancellation at any point loses nothing.
    """

    def __init__(
        self, *, database: Database, changes: Changes, claim: Claim, bounds: RunBounds
    ) -> None:
        self._database = database
        self._changes = changes
        self._claim = claim
        self._seq = 0
        self._begun = asyncio.Event()
        self._gathered: list[_Output | _Decision | _Note] = []
        """The events since the last batch, with output as the program wrote it."""
        self._last: dict[Stream, _Output] = {}
        self._bytes = 0
        self._taken: deque[_Output | _Decision | _Note] = deque()
        """The output to mask next."""
        self._left: list[Entry] = []
        """Masked entries that are not known to be stored."""
        self._audited: list[audit.AuditEvent] = []
        """Audit records of the decisions among these entries."""
        self._tried: tuple[int, int] | None = None
        """How many of both belong to a write that has begun, so they may be stored already."""
        self._secrets: set[str] = set()
        self.masker = Masker(())
        self._kept = {stream: KeptOutput(bounds) for stream in Stream}
        self._hashes = {stream: hashlib.sha256() for stream in Stream}
        self._divided = False
        """Whether some of the events may be stored before the result."""
        self._notes = ""
        self._line_begins = True
        """Whether the program's stderr is at the start of a line."""
        self._writing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    async def hide(self, values: Iterable[str]) -> None:
        """Mask these values in everything that is stored. Call it before any output comes."""
        if self._secrets.issuperset(values := tuple(values)):
            return
        self._secrets.update(values)
        self.masker = await asyncio.to_thread(Masker, self._secrets)
        for kept in self._kept.values():
            kept.hide(self.masker)

    def begin(self, seq: int) -> None:
        """Continue the event stream after event `seq`."""
        self._seq = seq
        self._begun.set()
        if self._gathered:
            self._write_soon()

    async def add(self, stream: Stream, chunk: bytes) -> None:
        """Take a piece of output; adjacent pieces of one stream become one event."""
        if stream is Stream.STDERR:
            end = chunk.rfind(b"\n") + 1
            self._line_begins = end == len(chunk)
            if self._notes and end:
                self._gather(stream, chunk[:end])
                self._gather_notes()
                chunk = chunk[end:]
        if chunk:
            self._gather(stream, chunk)
        if self._bytes >= FLUSH_AT_BYTES:
            await self._flush()
        else:
            self._write_soon()

    def _gather(self, stream: Stream, chunk: bytes) -> None:
        latest = self._gathered[-1] if self._gathered else None
        if not isinstance(latest, _Output) or latest.stream is not stream:
            crowded = len(self._gathered) >= MOST_PIECES
            latest = self._last.get(stream) if crowded else None
        if latest is None:
            latest = self._last[stream] = _Output(stream)
            self._gathered.append(latest)
        latest.raw += chunk
        self._bytes += len(chunk)

    def settled(self, result: Result) -> Result:
        """Return the result, with output marked as cut if it ended inside a character."""

        def told(output: Output, stream: Stream) -> Output:
            return replace(output, truncated=output.truncated or self._kept[stream].broken_off)

        out, err = told(result.stdout, Stream.STDOUT), told(result.stderr, Stream.STDERR)
        return replace(result, stdout=out, stderr=err)

    def hashes(self) -> dict[Stream, str]:
        """Return `sha256:` and the digest of what each stream carried."""
        return {stream: f"sha256:{each.hexdigest()}" for stream, each in self._hashes.items()}

    def decide(self, data: Mapping[str, JSON], event: audit.AuditEvent) -> None:
        """Record an egress decision: as an event for the tenant, and in the audit log."""
        self._gathered.append(_Decision(data, event))
        self._write_soon()

    def note(self, line: str) -> None:
        """Add a line of the service to stderr, between two lines of the program or after the last.

        It is masked by itself, and does not count against the output that is kept.
        """
        self._notes += f"{line}\n"
        if self._line_begins:
            self._gather_notes()
            self._write_soon()

    def _gather_notes(self) -> None:
        self._gathered.append(_Note(self._notes))
        self._notes = ""

    async def _take_decision(self, decision: _Decision) -> None:
        data = await as_told(decision.data, self.masker)
        record = await event_as_told(decision.record, self.masker)
        self._left.append(Entry(EventKind.EGRESS, data=data))
        self._audited.append(record)

    async def _take_note(self, text: str) -> None:
        starred = await self.masker.text_aside(text)
        note = "\n".join(shortened(line) for line in starred.split("\n")).encode()
        self._record(Stream.STDERR, Entry(EventKind.STDERR, note, {NOTE: True}))

    def _write_soon(self) -> None:
        # Output may come before the start is recorded.
        if self._begun.is_set() and (self._timer is None or self._timer.done()):
            self._timer = asyncio.create_task(self._flush_soon())

    @property
    def rest(self) -> Rest:
        """The events that `close` has left for the caller to write.

        If some of it may be stored already, it names no event to follow: better twice than never.
        """
        certain = self._left and self._begun.is_set() and self._tried is None
        return Rest(tuple(self._left), self._seq if certain else None)

    @property
    def is_whole(self) -> bool:
        """Whether the rest is all that there is, because nothing was written before."""
        return not self._divided

    @property
    def rest_audited(self) -> Sequence[audit.AuditEvent]:
        """Audit records of the decisions in the rest, for the same transaction."""
        return tuple(self._audited)

    async def stop(self) -> None:
        """Write nothing more, because the attempt has ended."""
        if self._timer is not None:
            self._timer.cancel()
            await asyncio.gather(self._timer, return_exceptions=True)

    async def close(self, *, cut: Container[Stream] = ()) -> None:
        """Stop the timer and make what is gathered the rest. Raises LeaseLost if the timer met it.

        This includes output that was held back because it might have begun a secret. `cut` holds
        the streams to which the program might have written more. After a cancellation, call it
        again.
        """
        if self._timer is not None:
            async with self._writing:
                self._timer.cancel()
            results = await asyncio.gather(self._timer, return_exceptions=True)
            for error in results:
                if isinstance(error, Exception):
                    raise error
        async with self._writing:
            if self._tried is not None:
                # A repeated write stores only once what the interrupted one may have stored.
                await self._or_later(self._store())
            await self._mask()
            for stream, kept in self._kept.items():
                for piece in kept.rest(cut=stream in cut):
                    self._take(stream, piece)
            if self._notes:
                await self._take_note(self._notes if self._line_begins else f"\n{self._notes}")
                self._notes = ""

    async def _mask(self) -> None:
        """Mask what is gathered, and begin to gather anew."""
        self._taken += self._gathered
        self._gathered, self._last, self._bytes = [], {}, 0
        while self._taken:
            each = self._taken[0]
            if isinstance(each, _Decision):
                await self._take_decision(each)
            elif isinstance(each, _Note):
                await self._take_note(each.text)
            else:
                kept = await self._kept[each.stream].feed(bytes(each.raw))
                self._take(each.stream, Piece(kept))
            self._taken.popleft()

    def _take(self, stream: Stream, piece: Piece) -> None:
        if not piece.chunk:
            return
        data = {OMITTED: piece.omitted} if piece.omitted else {}
        self._record(stream, Entry(_KINDS[stream], piece.chunk, data))

    def _record(self, stream: Stream, entry: Entry) -> None:
        self._hashes[stream].update(entry.chunk)
        if OMITTED not in entry.data and (last := self._extensible(entry)) is not None:
            entry = replace(last, chunk=last.chunk + entry.chunk)
            self._left.pop()
        self._left.append(entry)

    def _extensible(self, entry: Entry) -> Entry | None:
        """Return the last entry if this one may be joined to it."""
        tried = self._tried[0] if self._tried else 0
        if len(self._left) == tried:
            return None  # It may be stored already, so it must not grow.
        last = self._left[-1]
        size = len(last.chunk) + len(entry.chunk)
        alike = last.kind is entry.kind and (NOTE in last.data) == (NOTE in entry.data)
        return last if alike and size <= MOST_CHUNK else None

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_AFTER_S)
        await self._or_later(self._flush())

    async def _or_later(self, writing: Awaitable[None]) -> None:
        """Write now; if that fails, keep it for the next flush or the result's transaction."""
        try:
            await writing
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001 - told, and written later
            _log.exception("events_not_stored", execution=str(self._claim.execution_id))

    async def _flush(self) -> None:
        await self._begun.wait()
        async with self._writing:
            if self._tried is not None:
                await until_stored(self._store)
            await self._mask()
            if not self._left:
                return
            await until_stored(self._store)
        self._changes.announce(self._claim.execution_id)

    async def _store(self) -> None:
        """Store what is masked; if that was tried before, store exactly the same again."""
        self._divided = True
        if self._tried is None:
            self._tried = len(self._left), len(self._audited)
        entries, records = self._tried
        async with self._database.tenant(self._claim.tenant_id) as tx:
            await self._append(tx, self._left[:entries], self._audited[:records])
        # Do not await from here on: what is known to be stored must be forgotten at once.
        del self._left[:entries], self._audited[:records]
        self._seq, self._tried = self._seq + entries, None

    async def _append(
        self, tx: Transaction, batch: list[Entry], audited: list[audit.AuditEvent]
    ) -> None:
        new = await attempts.append_events(tx, self._claim, batch, after=self._seq)
        for event in audited if new else ():
            audit.append(tx, self._claim.tenant_id, event)
