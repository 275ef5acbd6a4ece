"""Pauses and resumes one sandbox, and keeps its row, Docker and this process in agreement.

Each of these may fail on the way, and the caller may leave. So a task of its own brings each change
to its end. A change that was begun can be completed in either direction, even by a later process,
because Docker accepts freezing what is frozen and thawing what is not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

import structlog

from runner.audit.events import Action
from runner.base.tasks import cancelled, uninterrupted
from runner.node.runs.recorder import until_stored
from runner.words.errors import Conflict, RunnerError
from runner.words.execution import JSON
from runner.words.lives import Life

_log = structlog.get_logger("runner.worker")


class Freezes(Protocol):
    """A sandbox that can be frozen."""

    @property
    def paused(self) -> bool:
        """Whether it is frozen, or may be."""

    async def pause(self) -> None:
        """Freeze it. Safe to repeat; raises what Docker raises."""

    async def resume(self) -> None:
        """Thaw it. Safe to repeat; raises what Docker raises."""


class Store(Protocol):
    """Writes the row and, with it, the audit record of an action."""

    async def __call__(
        self, life: Life, action: Action | None, facts: Mapping[str, JSON], /
    ) -> None:
        """Write a state; safe to repeat. Raises LeaseLost and StoreUnavailable."""


class Freezing:
    """A sandbox's position between running and paused."""

    def __init__(self, guest: Freezes, store: Store, require: Callable[[], None]) -> None:
        """Take parts. `require` raises SandboxEnded once the sandbox ends."""
        self.life = Life.RUNNING
        self._guest = guest
        self._store = store
        self._require = require
        self._changing = asyncio.Lock()
        self._under_way: set[asyncio.Task[None]] = set()
        self._borrowing: asyncio.Task[None] | None = None

    async def take_over(self, life: Life) -> None:
        """Go on from what its row says, and make Docker agree. Raises what either raises."""
        if life is Life.PAUSED:
            if not self._guest.paused:
                await self._guest.pause()
            self.life = life
        elif life in {Life.PAUSING, Life.RESUMING}:
            # The caller of the change has gone. Both states may become RUNNING.
            await self._guest.resume()
            await self._become(Life.RUNNING)
        elif life is Life.RUNNING and self._guest.paused:
            await self._guest.resume()

    async def pause(self, facts: Mapping[str, JSON]) -> None:
        """Freeze it, unless it is frozen. Raises SandboxEnded, LeaseLost, what Docker raises."""
        await self._whole(self._pause(facts))

    async def resume(
        self, first: Callable[[], Awaitable[None]], facts: Mapping[str, JSON] | None = None
    ) -> None:
        """Do `first`, then thaw it; nothing if it runs. Raises what `pause` raises."""
        if self._borrowing is not None:
            self._borrowing.cancel()
        await self._whole(self._resume(first, facts or {}))

    async def borrow(self, work: Callable[[], Awaitable[None]]) -> None:
        """Thaw a paused sandbox for `work`. It is frozen again if that fails; its row stays paused.

        Whoever resumes it meanwhile comes first: the work is cancelled. Raises Conflict then, and
        if the sandbox is not paused; otherwise what the work and Docker raise.
        """
        await self._whole(self._borrow(work))

    async def settle(self, timeout_s: float) -> None:
        """Wait for a change that is under way. One that takes longer is left as it is."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _whole(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # The caller, if it is still there, gets the exception; here it only counts as seen.
            task.exception()

    async def _pause(self, facts: Mapping[str, JSON]) -> None:
        async with self._changing:
            self._require()
            if self.life is Life.PAUSED:
                return
            if self.life is Life.RUNNING:
                await self._become(Life.PAUSING)
            try:
                await self._guest.pause()
            except Exception:
                await self._back(self._guest.resume, Life.RUNNING)
                raise
            await until_stored(lambda: self._become(Life.PAUSED, Action.SANDBOX_PAUSE, facts))

    async def _resume(
        self, first: Callable[[], Awaitable[None]], facts: Mapping[str, JSON]
    ) -> None:
        async with self._changing:
            self._require()
            if self.life is Life.RUNNING:
                return
            if self.life is Life.PAUSED:
                await self._become(Life.RESUMING)
            try:
                await first()
                await self._guest.resume()
            except Exception:
                await self._back(self._guest.pause, Life.PAUSED)
                raise
            await until_stored(lambda: self._become(Life.RUNNING, Action.SANDBOX_RESUME, facts))

    async def _borrow(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._changing:
            self._require()
            if self.life is not Life.PAUSED:
                raise Conflict("this sandbox is no longer paused")
            self._borrowing = asyncio.create_task(self._thawed(work))
            try:
                await self._borrowing
            except asyncio.CancelledError:
                if cancelled():
                    raise
                raise Conflict("this sandbox was resumed meanwhile") from None
            finally:
                self._borrowing = None

    async def _thawed(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await self._guest.resume()
            await work()
        except BaseException:
            await uninterrupted(self._freeze_again())
            raise

    async def _freeze_again(self) -> None:
        try:
            self._require()
            await self._guest.pause()
        except RunnerError as error:
            _log.warning("sandbox_between", life=self.life.value, why=error.detail)

    async def _back(self, undo: Callable[[], Awaitable[None]], life: Life) -> None:
        """Go back. If that fails, too, stay in between: the next change begins there."""
        try:
            await undo()
            await self._become(life)
        except RunnerError as error:
            _log.warning("sandbox_between", life=self.life.value, why=error.detail)

    async def _become(
        self, life: Life, action: Action | None = None, facts: Mapping[str, JSON] | None = None
    ) -> None:
        await self._store(life, action, facts or {})
        self.life = life
