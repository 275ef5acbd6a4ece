"""How many connections of one sandbox are served at once; the others wait in order for a place."""

import asyncio

MAX_WAITING = 128
"""As many as the bridge of a sandbox carries: further ones wait in its kernel's queue."""


class Full(Exception):
    """No place became free in time, or too many connections wait already."""


class Places:
    """Some places, each for one connection."""

    def __init__(self, number: int) -> None:
        # A semaphore serves in the order of arrival, and a cancellation loses no place.
        self._free = asyncio.Semaphore(number)
        self._waiting = 0

    @property
    def awaited(self) -> bool:
        """Whether a connection waits for a place."""
        return self._waiting > 0

    async def take(self, patience_s: float) -> None:
        """Take a place, in the order of arrival. Raises Full."""
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
        """Give a place back; the connection that has waited longest gets it."""
        self._free.release()
