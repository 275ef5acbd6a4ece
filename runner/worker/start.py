"""When a program's start goes on record: while it runs, or with its end if that comes first."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from runner.store.attempts import Begun
from runner.tasks import beside

PATIENCE_S = 0.025
"""For how long a start may wait for its end: most short runs take a transaction less.

Should its worker die meanwhile, the program runs once more, as the record says that it has not
begun: so only that may wait which can have had no effect outside its sandbox.
"""


class Start:
    """One attempt's start. `record` makes the record for the audit log."""

    def __init__(self, record: Callable[[], str]) -> None:
        self._record = record
        self._text = ""
        self._happened = asyncio.Event()
        self._ended = asyncio.Event()
        self._stored = False
        self.at: float | None = None
        """When the program began, by this process's monotonic clock."""

    async def begin(self) -> None:
        """Tell that the program has begun."""
        self.at = time.monotonic()
        self._text = self._record()
        self._happened.set()

    def begun(self) -> Begun:
        """Return what is to be put on record. Raises RuntimeError if nothing has begun."""
        if self.at is None:
            raise RuntimeError("the program has not begun")
        return Begun(timedelta(seconds=time.monotonic() - self.at), self._text)

    def unrecorded(self) -> Begun | None:
        """Return what is to be put on record with the end; None when there is nothing."""
        return None if self.at is None or self._stored else self.begun()

    @asynccontextmanager
    async def recorded(
        self, store: Callable[[], Awaitable[None]], *, may_wait: bool
    ) -> AsyncIterator[None]:
        """Put it on record while the context lasts, which is the run; failing ends that."""
        async with beside(self._put(store, may_wait=may_wait)):
            try:
                yield
            finally:
                self._ended.set()
                self._happened.set()

    async def _put(self, store: Callable[[], Awaitable[None]], *, may_wait: bool) -> None:
        await self._happened.wait()
        if may_wait:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._ended.wait()
            if self._ended.is_set():
                return
        if self.at is not None:
            await store()
            self._stored = True
