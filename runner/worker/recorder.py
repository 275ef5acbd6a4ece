"""What happens while a program runs, on its way to the event stream and the audit log.

Output and egress decisions are gathered briefly, then masked and written in batches: what this
costs does not depend on the size of the pieces in which a program writes. A decision's record in
the audit log is written in the transaction of its event: there is never one without the other.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import structlog

from runner.audit import events as audit
from runner.errors import LeaseLost, StoreUnavailable
from runner.masking import Masker
from runner.models import JSON, Claim, EventKind, Stream
from runner.queue.changes import Changes
from runner.store import attempts
from runner.store.attempts import Entry, Rest
from runner.store.db import Database, Transaction

FLUSH_AFTER_S = 0.1
"""How late live output may come. What has ended by then, on a busy host, too, stores its output
with its result: one transaction less."""
FLUSH_AT_BYTES = 32 * 1024
MOST_PIECES = 256
"""A batch has no more pieces of output: beyond, stdout and stderr are joined, each by itself."""
RETRY_AFTER_S = 0.2

T = TypeVar("T")
_log = structlog.get_logger("runner.worker")


async def until_stored(operation: Callable[[], Awaitable[T]]) -> T:
    """Repeat while PostgreSQL is away. The attempt's lease bounds it: losing that cancels us."""
    while True:
        try:
            return await operation()
        except StoreUnavailable as error:
            _log.warning("store_retry", error=error.detail)
            await asyncio.sleep(RETRY_AFTER_S)


_KINDS = {Stream.STDOUT: EventKind.STDOUT, Stream.STDERR: EventKind.STDERR}


@dataclass(slots=True)
class _Output:
    """Output as the program wrote it, which nobody but a mask may see."""

    stream: Stream
    raw: bytearray = field(default_factory=bytearray)


class Recorder:
    """Gathers one attempt's events; full of output, it makes the program wait (backpressure)."""

    def __init__(self, *, database: Database, changes: Changes, claim: Claim) -> None:
        self._database = database
        self._changes = changes
        self._claim = claim
        self._seq = 0
        self._begun = asyncio.Event()
        self._gathered: list[_Output | Entry] = []
        """What has come since the last batch; the output in it as the program wrote it."""
        self._last: dict[Stream, _Output] = {}
        self._left: list[Entry] = []
        self._audited: list[audit.AuditEvent] = []
        self._bytes = 0
        self._secrets: set[str] = set()
        self.masker = Masker(())
        self._masks = {stream: self.masker.stream() for stream in Stream}
        self._hashes = {stream: hashlib.sha256() for stream in Stream}
        self._writing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    async def hide(self, values: Iterable[str]) -> None:
        """Star these values out of all that is stored, too; before there is any output."""
        if self._secrets.issuperset(values := tuple(values)):
            return
        self._secrets.update(values)
        self.masker = await asyncio.to_thread(Masker, self._secrets)
        self._masks = {stream: self.masker.stream() for stream in Stream}

    def begin(self, seq: int) -> None:
        """Continue the event stream behind event `seq`."""
        self._seq = seq
        self._begun.set()
        if self._gathered:
            self._write_soon()

    async def add(self, stream: Stream, chunk: bytes) -> None:
        """Take a piece of output; neighbouring pieces of one stream become one event."""
        latest = self._gathered[-1] if self._gathered else None
        if not isinstance(latest, _Output) or latest.stream is not stream:
            crowded = len(self._gathered) >= MOST_PIECES
            latest = self._last.get(stream) if crowded else None
        if latest is None:
            latest = self._last[stream] = _Output(stream)
            self._gathered.append(latest)
        latest.raw += chunk
        self._bytes += len(chunk)
        if self._bytes >= FLUSH_AT_BYTES:
            await self._flush()
        else:
            self._write_soon()

    def hashes(self) -> dict[Stream, str]:
        """Return `sha256:` and the digest of what was taken of each stream."""
        return {stream: f"sha256:{each.hexdigest()}" for stream, each in self._hashes.items()}

    def decide(self, data: Mapping[str, JSON], event: audit.AuditEvent) -> None:
        """Take an egress decision: an event for the tenant, and its record in the audit log."""
        self._gathered.append(Entry(EventKind.EGRESS, data=self._masked(data)))
        self._audited.append(replace(event, metadata=self._masked(event.metadata)))
        self._write_soon()

    def _masked(self, facts: Mapping[str, JSON]) -> dict[str, JSON]:
        mask = self.masker.text
        return {k: mask(each) if isinstance(each, str) else each for k, each in facts.items()}

    def _write_soon(self) -> None:
        # Output may come before the start is on record.
        if self._begun.is_set() and (self._timer is None or self._timer.done()):
            self._timer = asyncio.create_task(self._flush_soon())

    @property
    def rest(self) -> Rest:
        """What `close` has left, for the caller to write."""
        return Rest(tuple(self._left), self._seq if self._left and self._begun.is_set() else None)

    @property
    def rest_audited(self) -> Sequence[audit.AuditEvent]:
        """Records of decisions that are still gathered, for the transaction of the rest."""
        return tuple(self._audited)

    async def close(self) -> None:
        """Stop the timer; what is gathered becomes the rest. Raises LeaseLost if the timer met it.

        What was held back of the output, as it might have begun a secret, is part of it.
        """
        if self._timer is not None:
            async with self._writing:
                self._timer.cancel()
            results = await asyncio.gather(self._timer, return_exceptions=True)
            for error in results:
                if isinstance(error, Exception):
                    raise error
        self._left += await self._batch()
        for stream, mask in self._masks.items():
            self._take(self._left, stream, mask.rest())

    async def _batch(self) -> list[Entry]:
        """Return what is gathered, masked, and gather anew."""
        gathered, self._gathered, self._last, self._bytes = self._gathered, [], {}, 0
        batch: list[Entry] = []
        for each in gathered:
            if isinstance(each, Entry):
                batch.append(each)
            else:
                masked = self._masks[each.stream].feed_aside(bytes(each.raw))
                self._take(batch, each.stream, await masked)
        return batch

    def _take(self, batch: list[Entry], stream: Stream, chunk: bytes) -> None:
        if not chunk:
            return
        self._hashes[stream].update(chunk)
        kind = _KINDS[stream]
        if batch and batch[-1].kind is kind:
            chunk = batch.pop().chunk + chunk
        batch.append(Entry(kind, chunk))

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_AFTER_S)
        try:
            await self._flush()
        except LeaseLost:
            raise
        except Exception:  # noqa: BLE001 - told, and tried again by who writes next
            # It is still gathered: the next flush writes it, or the result's transaction.
            _log.exception("events_not_stored", execution=str(self._claim.execution_id))

    async def _flush(self) -> None:
        await self._begun.wait()
        async with self._writing:
            audited, self._audited = self._audited, []
            batch = await self._batch()
            if not batch:
                return

            async def write() -> None:
                async with self._database.tenant(self._claim.tenant_id) as tx:
                    await self._append(tx, batch, audited)

            try:
                await until_stored(write)
            except Exception:
                self._gathered[:0], self._audited[:0] = batch, audited
                self._bytes += sum(len(entry.chunk) for entry in batch)
                raise
            self._seq += len(batch)
        self._changes.announce(self._claim.execution_id)

    async def _append(
        self, tx: Transaction, batch: list[Entry], audited: list[audit.AuditEvent]
    ) -> None:
        new = await attempts.append_events(tx, self._claim, batch, after=self._seq)
        for event in audited if new else ():
            await audit.append(tx, self._claim.tenant_id, event)
