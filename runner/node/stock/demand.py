"""How many sandboxes to keep ready: from how often they are asked for and how long one takes.

Little's law: what is asked for while one starts has to be there already.
"""

import math
from collections import deque
from dataclasses import dataclass

import psutil

WINDOW_S = 10.0
"""Arrivals are counted over this long: a burst is answered within it, and forgotten after."""
SPARE = 2.0
"""Arrivals come in clumps: this many times what the mean would need."""
SANDBOX_MB = 12
"""What an idle one costs, its shim included; measured 9.2, and dearer ones are not unheard of."""


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """What the operator allows: sandboxes always ready, the most of all, memory left alone."""

    floor: int
    ceiling: int
    reserve_mb: int


class Demand:
    """One kind's arrivals and starts, as they were lately."""

    def __init__(self, start_s: float = 0.3) -> None:
        self.last = 0.0
        self._arrivals: deque[float] = deque(maxlen=10_000)
        self._start_s = start_s

    def asked(self, now: float) -> None:
        """Count one that was asked for."""
        self.last = now
        self._arrivals.append(now)

    def started(self, seconds: float) -> None:
        """Take in how long one took to start."""
        self._start_s += 0.2 * (seconds - self._start_s)

    def wanted(self, now: float) -> int:
        """Return how many should be ready; none once nobody asks any more."""
        while self._arrivals and self._arrivals[0] < now - WINDOW_S:
            self._arrivals.popleft()
        if not self._arrivals:
            return 0
        return 1 + math.ceil(SPARE * len(self._arrivals) / WINDOW_S * self._start_s)


def room(bounds: PoolBounds, idle: int, available_mb: float | None = None) -> int:
    """Return how many more may be kept, by the operator's word and by the memory there is."""
    if available_mb is None:
        available_mb = psutil.virtual_memory().available / 2**20
    by_memory = int((available_mb - bounds.reserve_mb) // SANDBOX_MB)
    return max(0, min(bounds.ceiling - idle, by_memory))
