"""One tenant's share of the proxy: time of its loop, connections, lookups.

One process with one event loop serves every sandbox of a host. Without shares, a server that sends
a flood of tiny messages, or a program that opens as many connections as it may, would make all
others wait. Time is measured, not guessed: each step of a connection's task is charged to its
tenant. A tenant that has used up its slice of one pass of the loop continues in the next pass, one
connection after the other. Connections wait in order for a slot. A tenant never gets more slots
than it leaves free.
"""

import asyncio
import types
from collections import deque
from collections.abc import Coroutine, Generator
from time import perf_counter
from typing import Any, TypeVar

SLICE_S = 0.002
"""How long a tenant's connections run in one pass of the loop."""
MAX_LOOKUPS = 8
"""Lookups of one tenant at the same time: each occupies one of the threads that all tenants
share."""

_Result = TypeVar("_Result")


class Slots:
    """The connections that the proxy can carry at the same time."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[tuple[Share, asyncio.Future[None]]] = deque()

    async def take(self, share: "Share") -> None:
        """Wait until this tenant may have one more connection, and count it."""
        if not self._grant(share):
            granted = asyncio.get_running_loop().create_future()
            self._waiting.append((share, granted))
            try:
                await granted
            except asyncio.CancelledError:
                # It was granted and cancelled in the same pass: nobody else would give the slot
                # back.
                if granted.done() and not granted.cancelled():
                    self.give(share)
                raise

    def give(self, share: "Share") -> None:
        """Count a connection's end, and let those continue that now have a slot."""
        share.connections -= 1
        self._free += 1
        waiting, self._waiting = self._waiting, deque()
        for tenant, granted in waiting:
            if granted.done():
                continue
            if self._grant(tenant):
                granted.set_result(None)
            else:
                self._waiting.append((tenant, granted))

    def _grant(self, share: "Share") -> bool:
        if share.connections >= self._free:
            return False
        share.connections += 1
        self._free -= 1
        return True


class Share:
    """One tenant's share."""

    def __init__(self) -> None:
        self.connections = 0
        self.lookups = asyncio.Semaphore(MAX_LOOKUPS)
        self.preparing = asyncio.Lock()
        """Held while a thread works for the tenant, so that threads also take turns with the
        loop."""
        self._used = 0.0
        self._began: float | None = None
        self._ended = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._next_pass: asyncio.Handle | None = None

    def start(self, work: Coroutine[Any, Any, _Result]) -> asyncio.Task[_Result]:
        """Run this as a task whose time is charged to the tenant."""
        task = asyncio.create_task(self._measured(work))
        # A task that is cancelled before its first step never starts, so it never closes, its work.
        task.add_done_callback(lambda _: work.close())
        return task

    async def turn(self) -> None:
        """Return at once if the tenant has time left in this pass, otherwise in its next turn."""
        now = perf_counter()
        running = 0.0 if self._began is None else now - self._began
        if self._used + running < SLICE_S:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._expect_next_pass()
        await turn

    async def _measured(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return await self._steps(work)

    @types.coroutine
    def _steps(self, work: Coroutine[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
        step, given = work.send, None
        while True:
            self._began = perf_counter()
            if self._began - self._ended > SLICE_S:
                # Since then, others have had as much time, or nobody wanted it.
                self._used = 0.0
            try:
                awaited = step(given)
            except StopIteration as end:
                result: _Result = end.value
                return result
            finally:
                self._ended = perf_counter()
                self._used += self._ended - self._began
                self._began = None
            try:
                step, given = work.send, (yield awaited)
            except BaseException as error:  # noqa: BLE001 - is thrown into the work
                step, given = work.throw, error

    def _expect_next_pass(self) -> None:
        if self._next_pass is None:
            self._next_pass = asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        self._next_pass = None
        self._used = 0.0
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if self._waiting:
            self._expect_next_pass()
