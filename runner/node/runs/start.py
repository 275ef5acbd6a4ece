"""The record of a program's start: before it, while the program runs, or with its end.

If an attempt's start is not recorded and its worker dies, the attempt counts as not begun and runs
again. So a program that may have effects outside its sandbox begins only after its start is
recorded. For any other program, nobody can notice a second run.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from runner.base.tasks import beside
from runner.store.attempts import Begun

PATIENCE_S = 0.025
"""How long the record of a start waits for the end: most short runs save a transaction."""


class Start:
    """One attempt's start. `record` makes the record for the audit log."""

    def __init__(self, record: Callable[[], str]) -> None:
        self._record = record
        self._text = ""
        self._happened = asyncio.Event()
        self._ended = asyncio.Event()
        self._stored = False
        self.doubtful = False
        """Whether it may be recorded although nobody confirmed it, because that was cancelled."""
        self.at: float | None = None
        """The time at which the program began, on this process's monotonic clock."""

    async def begin(self) -> None:
        """Note that the program begins now."""
        self.at = time.monotonic()
        self._text = self._text or self._record()
        self._happened.set()

    def begun(self) -> Begun:
        """Return what to record. Raises RuntimeError if the program has not begun."""
        if self.at is None:
            raise RuntimeError("the program has not begun")
        return Begun(timedelta(seconds=time.monotonic() - self.at), self._text)

    def unrecorded(self) -> Begun | None:
        """Return what to record together with the end, or None."""
        return None if self.at is None or self._stored else self.begun()

    def found(self) -> None:
        """Note that the start is recorded."""
        self._stored, self.doubtful = True, False

    @asynccontextmanager
    async def recorded(
        self, store: Callable[[], Awaitable[None]], *, ahead: bool
    ) -> AsyncIterator[None]:
        """Record the start, before or during the context, which is the run.

        If that fails, it ends the run.
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
