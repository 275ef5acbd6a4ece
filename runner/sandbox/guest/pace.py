"""A sandbox's share of the worker's event loop, and its tenant's.

A sandbox decides in how many pieces it says what it has to say, and each costs the loop some time,
however small it is. So what is read is charged by what it costs, and a sandbox that has used up its
share is not read from for a while. Its own socket fills up then, and its program waits. The same
holds for all sandboxes of a tenant together, so that nobody gets more of the loop by having more.
"""

import asyncio
import time
from weakref import WeakValueDictionary

SHARE = 0.25
"""How much of the loop's time one sandbox may take; far more than a program that works needs."""
TENANT_SHARE = 0.3
"""The share that all sandboxes of one tenant may take together."""
BURST_S = 0.01
"""How much either may take at once, and so about how long it may hold the loop."""
WAKING_S = 60e-6
FRAME_S = 1e-6
KEPT_FRAME_S = 4e-6
PIECE_S = 15e-6
BYTE_S = 0.4e-9
REPORT_S = 30e-6
REPORT_BYTE_S = 40e-9
"""Seconds on a slow core for: reading a frame; reading one that is kept until its stream is read;
passing on a piece of output, and each of its bytes; checking a report, and each of its bytes."""


class Pace:
    """Counts what a sandbox, or all of a tenant's, have left of their share."""

    def __init__(self, share: float = SHARE) -> None:
        self.within: Pace | None = None
        """That of the sandbox's tenant, once it has one: what it uses is taken off both."""
        self.share = share
        self.left = BURST_S
        """How much may be taken now; less than nothing if it was overdrawn."""
        self._counted_at = time.monotonic()

    def charge(self, seconds: float) -> None:
        """Take it off what is left."""
        now = time.monotonic()
        self.take(seconds, now)
        if self.within is not None:
            self.within.take(seconds, now)

    @property
    def overdrawn(self) -> bool:
        """Whether there is something to wait for."""
        return self.left < 0 or (self.within is not None and self.within.left < 0)

    @property
    def rest_s(self) -> float:
        """How long what was overdrawn takes to make up for; half a burst longer, to wait seldom."""
        # Others of the tenant may have charged last, and long ago.
        self.charge(0)
        paces = (self,) if self.within is None else (self, self.within)
        return max(0.0, *((BURST_S / 2 - each.left) / each.share for each in paces))

    async def rest(self) -> None:
        """Wait until what was overdrawn is made up for."""
        await asyncio.sleep(self.rest_s)

    def take(self, seconds: float, now: float) -> None:
        """Take it off what this alone has left."""
        self.left = min(BURST_S, self.left + (now - self._counted_at) * self.share) - seconds
        self._counted_at = now


class TenantPaces:
    """The pace of each tenant, for as long as one of its sandboxes is there."""

    def __init__(self) -> None:
        self._paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()

    def of(self, tenant: str) -> Pace:
        """Return what all sandboxes of a tenant have together."""
        return self._paces.setdefault(tenant, Pace(TENANT_SHARE))
