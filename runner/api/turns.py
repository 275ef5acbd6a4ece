"""Turns for work that takes long: one per tenant at a time, and few in the whole process.

A request that waits for a turn holds nothing else, and waits for a bounded time. A tenant that
sends many requests at once waits for itself, so others wait for at most one of its requests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import UUID
from weakref import WeakValueDictionary

from runner.words.errors import Overloaded

WITHIN_S = 10.0
RETRY_AFTER_S = 10


class Turns:
    """At most `most` turns at once, and one per tenant."""

    def __init__(self, what: str, *, most: int, within_s: float = WITHIN_S) -> None:
        self._what = what
        self._within_s = within_s
        self._places = asyncio.Semaphore(most)
        # A tenant's lock exists as long as somebody holds it or waits for it.
        self._tenants: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, tenant: UUID) -> AsyncIterator[None]:
        """Take a turn inside the context. Raises Overloaded if none comes in time."""
        own = self._tenants.setdefault(tenant, asyncio.Lock())
        async with AsyncExitStack() as turn:
            try:
                async with asyncio.timeout(self._within_s):
                    # Take the tenant's own lock first, so that no tenant queues twice for the
                    # shared places.
                    await turn.enter_async_context(own)
                    await turn.enter_async_context(self._places)
            except TimeoutError:
                raise Overloaded(
                    f"{self._what} takes turns, and this request got none within "
                    f"{self._within_s:g} s; try again",
                    retry_after_s=RETRY_AFTER_S,
                ) from None
            yield
