"""How many connections of one sandbox are served at once; the others wait for a place, in order."""

import asyncio
from collections import deque

MAX_WAITING = 128
"""As many as a sandbox's bridge carries in all: those beyond wait in its kernel's queue."""


class Full(Exception):
    """No place came free in time, or too many wait for one already."""


class Places:
    """Some places, each for one connection."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting)

    async def take(self, patience_s: float) -> None:
        """Take a place, whoever came first the first one. Raises Full."""
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) >= MAX_WAITING:
            raise Full(f"{MAX_WAITING} others wait already")
        given = asyncio.get_running_loop().create_future()
        self._waiting.append(given)
        try:
            async with asyncio.timeout(patience_s):
                await given
        except BaseException as error:
            if given.done() and not given.cancelled():
                # Given in the same pass of the loop: nobody else knows of the place.
                self.give()
            elif given in self._waiting:
                self._waiting.remove(given)
            if isinstance(error, TimeoutError):
                raise Full(f"none of them ended within {patience_s:g} s") from None
            raise

    def give(self) -> None:
        """Give a place back: to who waits longest, if somebody does."""
        while self._waiting:
            given = self._waiting.popleft()
            if not given.done():
                given.set_result(None)
                return
        self._free += 1
