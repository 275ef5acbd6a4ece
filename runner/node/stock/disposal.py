"""Removes used sandboxes in the background, as fast as the host can bear it.

A sandbox that waits here holds memory, up to its limit, and no slot counts it. So only a few wait.
"""

import asyncio

import psutil

from runner.base.tasks import uninterrupted
from runner.node.stock.sandboxes import Sandboxes
from runner.sandbox.guest.sandbox import Sandbox


class Disposals:
    """Disposes of sandboxes. At most `backlog` wait, while `reserve_mb` of memory are free."""

    def __init__(self, sandboxes: Sandboxes, *, backlog: int, reserve_mb: int) -> None:
        self._sandboxes = sandboxes
        self._backlog = backlog
        self._reserve_mb = reserve_mb
        self._under_way: set[asyncio.Task[None]] = set()

    async def later(self, sandbox: Sandbox) -> None:
        """Dispose of it later; if too many wait already, return only once it is gone."""
        free_mb = psutil.virtual_memory().available / 2**20
        if len(self._under_way) >= self._backlog or free_mb < self._reserve_mb:
            await self.now(sandbox)
            return
        task = asyncio.create_task(self._sandboxes.dispose(sandbox))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def now(self, sandbox: Sandbox) -> None:
        """Return once nothing of it is left, even if the caller is cancelled meanwhile."""
        await uninterrupted(self._sandboxes.dispose(sandbox, at_once=True))

    async def drain(self) -> None:
        """Wait for all disposals that are in progress."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))
