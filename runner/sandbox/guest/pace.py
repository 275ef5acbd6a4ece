"""A sandbox's share of the worker's event loop.

A sandbox decides in how many pieces it says what it has to say, and each costs the loop some time,
however small it is. So what is read is charged by what it costs, and a sandbox that has used up its
share is not read from for a while. Its own socket fills up then, and its program waits.
"""

import asyncio
import time

SHARE = 0.2
"""How much of the loop's time one sandbox may take; far more than a program that works needs."""
BURST_S = 0.01
"""How much it may take at once, and so about how long it may hold the loop."""
WAKING_S = 60e-6
FRAME_S = 1e-6
PIECE_S = 15e-6
BYTE_S = 1e-9
REPORT_S = 30e-6
REPORT_BYTE_S = 40e-9
"""What it costs, on a slow core, to be woken, to read a frame, to pass on a piece of output and its
bytes, and to check a report and its bytes."""


class Pace:
    """Counts what a sandbox has left of its share."""

    def __init__(self) -> None:
        self._left = BURST_S
        self._counted_at = time.monotonic()

    def charge(self, seconds: float) -> None:
        """Take it off what is left."""
        now = time.monotonic()
        self._left = min(BURST_S, self._left + (now - self._counted_at) * SHARE) - seconds
        self._counted_at = now

    @property
    def overdrawn(self) -> bool:
        """Whether there is something to wait for."""
        return self._left < 0

    async def rest(self) -> None:
        """Wait until what was overdrawn is made up for; half a burst longer, to wait seldom."""
        await asyncio.sleep((BURST_S / 2 - self._left) / SHARE)
