"""How many connections of one sandbox are served at once; the others wait for a place, in order."""

import asyncio

MAX_WAITING = 128
"""As many as a sandbox's bridge carries in all: those beyond wait in its kernel's queue."""


class Full(Exception):
    """No place came free in time, or too many wait for one already."""


class Places:
    """Some places, each for one connection."""

    def __init__(self, number: int) -> None:
        # Serves whoever came first, first, and loses no place by a cancellation.
        self._free = asyncio.Semaphore(number)
        self._waiting = 0

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for one."""
        return self._waiting > 0

    async def take(self, patience_s: float) -> None:
        """Take a place, whoever came first the first one. Raises Full."""
        if self._free.locked() and self._waiting >= MAX_WAITING:
            raise Full(f"{MAX_WAITING} others wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(patience_s):
                await self._free.acquire()
        except TimeoutError:
            raise Full(f"none of them ended within {patience_s:g} s") from None
        finally:
            self._waiting -= 1

    def give(self) -> None:
        """Give a place back: to who waits longest, if somebody does."""
        self._free.release()
