"""What happens while a program runs, on its way to the event stream and the audit log.

Output and egress decisions are gathered briefly and written in batches. A decision's record in
the audit log is written in the transaction of its event: there is never one without the other.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from runner.audit import events as audit
from runner.errors import StoreUnavailable
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


class Recorder:
    """Gathers one attempt's events; full of output, it makes the program wait (backpressure)."""

    def __init__(self, *, database: Database, changes: Changes, claim: Claim) -> None:
        self._database = database
        self._changes = changes
        self._claim = claim
        self._seq = 0
        self._begun = asyncio.Event()
        self._pending: list[Entry] = []
        self._audited: list[audit.AuditEvent] = []
        self._bytes = 0
        self._secrets: set[str] = set()
        self.hide(())
        self._hashes = {stream: hashlib.sha256() for stream in Stream}
        self._writing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    def hide(self, values: Iterable[str]) -> None:
        """Star these values out of all that is stored, too; before there is any output."""
        self._secrets.update(values)
        self.masker = Masker(self._secrets)
        self._masks = {stream: self.masker.stream() for stream in Stream}

    def begin(self, seq: int) -> None:
        """Continue the event stream behind event `seq`."""
        self._seq = seq
        self._begun.set()
        if self._pending:
            self._write_soon()

    async def add(self, stream: Stream, chunk: bytes) -> None:
        """Take a piece of output; neighbouring pieces of one stream become one event."""
        self._take(stream, self._masks[stream].feed(chunk))
        if self._bytes >= FLUSH_AT_BYTES:
            await self._flush()
        elif self._pending:
            self._write_soon()

    def end_output(self) -> None:
        """Take what was held back of the output, as it might have begun a secret."""
        for stream, mask in self._masks.items():
            self._take(stream, mask.rest())

    def _take(self, stream: Stream, chunk: bytes) -> None:
        if not chunk:
            return
        self._hashes[stream].update(chunk)
        kind = _KINDS[stream]
        if self._pending and self._pending[-1].kind is kind:
            self._pending[-1] = Entry(kind, self._pending[-1].chunk + chunk)
        else:
            self._pending.append(Entry(kind, chunk))
        self._bytes += len(chunk)

    def hashes(self) -> dict[Stream, str]:
        """Return `sha256:` and the digest of what was taken of each stream."""
        return {stream: f"sha256:{each.hexdigest()}" for stream, each in self._hashes.items()}

    def decide(self, data: Mapping[str, JSON], event: audit.AuditEvent) -> None:
        """Take an egress decision: an event for the tenant, and its record in the audit log."""
        self._pending.append(Entry(EventKind.EGRESS, data=self._masked(data)))
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
        """What is still gathered, for the caller to write."""
        follows = self._pending and self._begun.is_set()
        return Rest(tuple(self._pending), self._seq if follows else None)

    @property
    def rest_audited(self) -> Sequence[audit.AuditEvent]:
        """Records of decisions that are still gathered, for the transaction of the rest."""
        return tuple(self._audited)

    async def close(self) -> None:
        """Stop the timer and surface what went wrong in it; what is gathered stays gathered."""
        if self._timer is not None:
            async with self._writing:
                self._timer.cancel()
            results = await asyncio.gather(self._timer, return_exceptions=True)
            for error in results:
                if isinstance(error, Exception):
                    raise error

    async def _flush_soon(self) -> None:
        await asyncio.sleep(FLUSH_AFTER_S)
        await self._flush()

    async def _flush(self) -> None:
        await self._begun.wait()
        async with self._writing:
            batch, self._pending, self._bytes = self._pending, [], 0
            audited, self._audited = self._audited, []
            if not batch:
                return

            async def write() -> None:
                async with self._database.tenant(self._claim.tenant_id) as tx:
                    await self._append(tx, batch, audited)

            await until_stored(write)
            self._seq += len(batch)
        self._changes.announce(self._claim.execution_id)

    async def _append(
        self, tx: Transaction, batch: list[Entry], audited: list[audit.AuditEvent]
    ) -> None:
        new = await attempts.append_events(tx, self._claim, batch, after=self._seq)
        for event in audited if new else ():
            await audit.append(tx, self._claim.tenant_id, event)
