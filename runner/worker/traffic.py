"""How busy the worker is with executions, so that work which can wait does.

Starting and removing containers takes the processors that a run needs, and nobody waits for either
while enough sandboxes are ready.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_S = 0.05
"""Without an execution for so long, a worker is not busy: the next of a client's comes sooner."""
PATIENCE_S = 10.0
"""How long anything is put off."""


class Traffic:
    """Counts the executions under way."""

    def __init__(self) -> None:
        self._under_way = 0
        self._none = asyncio.Event()
        self._none.set()
        self._lately = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count an execution while the context lasts."""
        self._under_way += 1
        self._none.clear()
        self._lately = True
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none.set()

    async def quiet(self) -> None:
        """Wait until there is none, and has been none for a moment; not for ever."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while self._lately:
                    await self._none.wait()
                    self._lately = False
                    await asyncio.sleep(QUIET_S)
        except TimeoutError:
            return
