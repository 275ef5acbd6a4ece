"""The program's output on its way to the event stream: gathered briefly, written in batches."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from runner.errors import StoreUnavailable
from runner.models import Claim, Stream
from runner.queue.changes import Changes
from runner.store import attempts
from runner.store.db import Database, Transaction

FLUSH_AFTER_S = 0.04
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


class OutputRecorder:
    """Gathers one attempt's output; a full batch makes the program wait (backpressure)."""

    def __init__(self, *, database: Database, changes: Changes, claim: Claim) -> None:
        self._database = database
        self._changes = changes
        self._claim = claim
        self._seq = 0
        self._pending: list[tuple[Stream, bytes]] = []
        self._bytes = 0
        self._writing = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None

    def begin(self, seq: int) -> None:
        """Continue the event stream behind event `seq`."""
        self._seq = seq

    async def add(self, stream: Stream, chunk: bytes) -> None:
        """Take a piece of output; neighbouring pieces of one stream become one event."""
        if self._pending and self._pending[-1][0] is stream:
            self._pending[-1] = (stream, self._pending[-1][1] + chunk)
        else:
            self._pending.append((stream, chunk))
        self._bytes += len(chunk)
        if self._bytes >= FLUSH_AT_BYTES:
            await self._flush()
        elif self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._flush_soon())

    async def write_rest(self, tx: Transaction) -> None:
        """Append what is still gathered, in the caller's transaction."""
        if self._pending:
            await attempts.append_output(tx, self._claim, self._pending, after=self._seq)

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
        async with self._writing:
            batch, self._pending, self._bytes = self._pending, [], 0
            if not batch:
                return

            async def write() -> int:
                async with self._database.tenant(self._claim.tenant_id) as tx:
                    return await attempts.append_output(tx, self._claim, batch, after=self._seq)

            self._seq = await until_stored(write)
        await self._changes.announce(self._claim.execution_id)
