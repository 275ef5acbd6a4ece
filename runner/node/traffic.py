"""How busy the worker is with executions, so that work which can wait does.

Starting and removing containers takes the processors that a run needs: beside one of either, a run
takes three times as long. Nobody waits for them while enough sandboxes are ready.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

QUIET_S = 1.0
"""A worker without an execution for so long is not busy: an agent's next call comes sooner."""
PATIENCE_S = 30.0
"""How long anything is put off."""


class Traffic:
    """Counts the executions under way."""

    def __init__(self) -> None:
        self._under_way = 0
        self._none = asyncio.Event()
        self._none.set()
        self._ended = self._busy_since = -PATIENCE_S

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count an execution while the context lasts."""
        if not self.busy:
            self._busy_since = _now()
        self._under_way += 1
        self._none.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            self._ended = _now()
            if not self._under_way:
                self._none.set()

    @property
    def busy(self) -> bool:
        """Whether there is an execution, or was one a moment ago."""
        return self._under_way > 0 or _now() < self._ended + QUIET_S

    @property
    def worth_waiting(self) -> bool:
        """Whether it is busy, and has not been for so long that nothing may wait any more."""
        return self.busy and _now() < self._busy_since + PATIENCE_S

    async def quiet(self, until: float | None = None) -> None:
        """Wait until it is not busy, or it is this time by the loop's clock; not for ever."""
        try:
            async with asyncio.timeout_at(_now() + PATIENCE_S if until is None else until):
                while self.busy:
                    await self._none.wait()
                    # What is left of the moment since the last one ended.
                    await asyncio.sleep(self._ended + QUIET_S - _now())
        except TimeoutError:
            return


def _now() -> float:
    return asyncio.get_running_loop().time()
