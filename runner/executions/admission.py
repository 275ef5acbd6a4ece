"""Whether the deployment takes one more execution: overload is refused, and not queued without end.

A tenant's own quotas bound what it has waiting; this bounds all of them together.
"""

import asyncio

from runner.quotas.tiers import Waiting, overload
from runner.store import quotas
from runner.store.db import Database

FRESH_S = 0.25
"""How old the number may be: until then a full deployment takes what came meanwhile, too."""


class Admission:
    """Asks PostgreSQL how much waits, now and then; at most `most` executions shall."""

    def __init__(self, database: Database, *, most: int) -> None:
        self._database = database
        self._most = most
        self._asking = asyncio.Lock()
        self._known: Waiting | None = None
        self._known_at = 0.0

    async def look(self) -> Waiting:
        """Return how much waits, as it was a moment ago."""
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if self._known is None or clock() > self._known_at + FRESH_S:
                async with self._database.statements() as tx:
                    self._known = await quotas.waiting_everywhere(tx)
                self._known_at = clock()
            return self._known

    def require(self, waiting: Waiting, own: int) -> None:
        """Raise Overloaded if no more of a tenant's are taken that has so many waiting."""
        if (refused := overload(waiting, self._most, own)) is not None:
            raise refused
