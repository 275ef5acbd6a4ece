"""How many sandboxes to keep ready: from how often they are requested and how long one takes.

Little's law: as many must be ready as are requested while one starts.
"""

import math
from collections import deque
from dataclasses import dataclass

import psutil

WINDOW_S = 10.0
"""Period over which requests are counted: it reacts to a burst, and then forgets it."""
SPARE = 2.0
"""Requests come in bursts, so keep this many times what the mean would need."""
SANDBOX_MB = 12
"""MiB that an idle sandbox costs with its shim: 9.2 were measured, and some cost more."""


@dataclass(frozen=True, slots=True)
class PoolBounds:
    """The operator's bounds: sandboxes always ready, the most in all, memory to leave free."""

    floor: int
    ceiling: int
    reserve_mb: int


class Demand:
    """The rate at which one kind was requested lately, and the time that its starts took."""

    def __init__(self, start_s: float = 0.3) -> None:
        self.last = 0.0
        self._arrivals: deque[float] = deque(maxlen=10_000)
        self._start_s = start_s

    def asked(self, now: float) -> None:
        """Count one request."""
        self.last = now
        self._arrivals.append(now)

    def started(self, seconds: float) -> None:
        """Note how long one took to start."""
        self._start_s += 0.2 * (seconds - self._start_s)

    def wanted(self, now: float) -> int:
        """Return how many should be ready; 0 once nobody requests any more."""
        while self._arrivals and self._arrivals[0] < now - WINDOW_S:
            self._arrivals.popleft()
        if not self._arrivals:
            return 0
        return 1 + math.ceil(SPARE * len(self._arrivals) / WINDOW_S * self._start_s)


def room(bounds: PoolBounds, idle: int, available_mb: float | None = None) -> int:
    """Return how many more may be kept, by the operator's bounds and the free memory."""
    if available_mb is None:
        available_mb = psutil.virtual_memory().available / 2**20
    by_memory = int((available_mb - bounds.reserve_mb) // SANDBOX_MB)
    return max(0, min(bounds.ceiling - idle, by_memory))
