"""All processes of a sandbox that lives: bounds reading of their output, and reaps them."""

from __future__ import annotations

import time
from itertools import islice

from processes import reaped

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from typing import Protocol

    from loop import Loop
    from spawning import Spawner

    class Child(Protocol):
        """A program that was started."""

        def reap(self, status: int) -> None:
            """Learn that it has ended."""

    class Written(Protocol):
        """A process whose output is read."""

        def go_on(self) -> None:
            """Read on."""


SLICE_S = 0.01
SLICE = 2 * 1024 * 1024
"""How much output that nobody awaits is read in one slice of time."""
AT_ONCE = 64
"""How many ends one turn handles."""


class Programs:
    """All processes that were started here and still run, by pid."""

    def __init__(self, loop: Loop, spawner: Spawner) -> None:
        self.loop = loop
        self.spawner = spawner
        self.running: dict[int, Child] = {}
        self._left = 0
        self._slice_ends = 0.0
        self._resting: list[Written] = []

    def may_read(self, process: Written) -> bool:
        """Return whether output that nobody awaits may be read now; if not, `go_on` follows later.

        Otherwise a process that writes without end would use up the sandbox's processor time for
        output that is soon overwritten.
        """
        now = time.monotonic()
        if now >= self._slice_ends:
            self._slice_ends = now + SLICE_S
            self._left = SLICE
        if self._left > 0:
            return True
        if not self._resting:
            self.loop.after(self._slice_ends - now, self._go_on)
        self._resting.append(process)
        return False

    def has_read(self, size: int) -> None:
        """Note how much was read."""
        self._left -= size

    def _go_on(self) -> None:
        resting, self._resting = self._resting, []
        for each in resting:
            each.go_on()

    def reap(self) -> None:
        """Note the processes that have ended, orphans included.

        However fast they end, others get their turn.
        """
        ended = list(islice(reaped(), AT_ONCE))
        for pid, status in ended:
            if (process := self.running.pop(pid, None)) is not None:
                process.reap(status)
        if len(ended) == AT_ONCE:
            self.loop.after(0, self.reap)
