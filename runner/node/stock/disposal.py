"""Sandboxes that have served, on their way out: in the background, as far as the host can bear it.

What waits here holds its memory, up to its limit, and counts in no slot: so only so many do.
"""

import asyncio

import psutil

from runner.base.tasks import uninterrupted
from runner.node.stock.sandboxes import Sandboxes
from runner.sandbox.guest.sandbox import Sandbox


class Disposals:
    """Gives sandboxes back. At most `backlog` wait, while `reserve_mb` of memory are free."""

    def __init__(self, sandboxes: Sandboxes, *, backlog: int, reserve_mb: int) -> None:
        self._sandboxes = sandboxes
        self._backlog = backlog
        self._reserve_mb = reserve_mb
        self._under_way: set[asyncio.Task[None]] = set()

    async def later(self, sandbox: Sandbox) -> None:
        """Return at once, and give it back; when too many wait, only once it is given back."""
        free_mb = psutil.virtual_memory().available / 2**20
        if len(self._under_way) >= self._backlog or free_mb < self._reserve_mb:
            await self.now(sandbox)
            return
        task = asyncio.create_task(self._sandboxes.dispose(sandbox))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def now(self, sandbox: Sandbox) -> None:
        """Return once nothing of it is left, whoever cancels this meanwhile."""
        await uninterrupted(self._sandboxes.dispose(sandbox, at_once=True))

    async def drain(self) -> None:
        """Wait for all that are under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))
