"""When a program's start goes on record: before it, while it runs, or with its end.

An attempt whose start is not on record is taken for one that has not begun, and runs again when its
worker dies. So what may have effects outside its sandbox begins when its start is on record; of
what may not, a second run shows nowhere.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from runner.base.tasks import beside
from runner.store.attempts import Begun

PATIENCE_S = 0.025
"""For how long a start waits for its end: most short runs take a transaction less."""


class Start:
    """One attempt's start. `record` makes the record for the audit log."""

    def __init__(self, record: Callable[[], str]) -> None:
        self._record = record
        self._text = ""
        self._happened = asyncio.Event()
        self._ended = asyncio.Event()
        self._stored = False
        self.doubtful = False
        """Whether it may be on record although nobody confirmed it: its recording was cancelled."""
        self.at: float | None = None
        """When the program began, by this process's monotonic clock."""

    async def begin(self) -> None:
        """Tell that the program begins now."""
        self.at = time.monotonic()
        self._text = self._text or self._record()
        self._happened.set()

    def begun(self) -> Begun:
        """Return what is to be put on record. Raises RuntimeError if nothing has begun."""
        if self.at is None:
            raise RuntimeError("the program has not begun")
        return Begun(timedelta(seconds=time.monotonic() - self.at), self._text)

    def unrecorded(self) -> Begun | None:
        """Return what is to be put on record with the end; None when there is nothing."""
        return None if self.at is None or self._stored else self.begun()

    def found(self) -> None:
        """Take it that the start is on record."""
        self._stored, self.doubtful = True, False

    @asynccontextmanager
    async def recorded(
        self, store: Callable[[], Awaitable[None]], *, ahead: bool
    ) -> AsyncIterator[None]:
        """Put it on record, before the context or while it lasts, which is the run.

        Failing, it ends the run.
        """
        if ahead:
            await self.begin()
            await self._put(store)
            yield
            return
        async with beside(self._put_unless_over(store)):
            try:
                yield
            finally:
                self._ended.set()
                self._happened.set()

    async def _put_unless_over(self, store: Callable[[], Awaitable[None]]) -> None:
        await self._happened.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await self._ended.wait()
        if not self._ended.is_set():
            await self._put(store)

    async def _put(self, store: Callable[[], Awaitable[None]]) -> None:
        self.doubtful = True
        await store()
        self.found()
