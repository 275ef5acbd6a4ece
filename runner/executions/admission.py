"""The decision to accept one more execution, so that the queue cannot grow without end.

A tenant's quotas limit what it has waiting; this limits all tenants together.
"""

import asyncio

from runner.quotas.waiting import Waiting, overload
from runner.store import quotas
from runner.store.db import Database

FRESH_S = 0.25
"""How old the number may be. Until it is read again, a full deployment may accept a few more."""


class Admission:
    """Asks PostgreSQL from time to time how much waits, and permits at most `most` executions."""

    def __init__(self, database: Database, *, most: int) -> None:
        self._database = database
        self._most = most
        self._asking = asyncio.Lock()
        self._known: Waiting | None = None
        self._known_at = 0.0

    async def look(self) -> Waiting:
        """Return how much waited a moment ago."""
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if self._known is None or clock() > self._known_at + FRESH_S:
                async with self._database.statements() as tx:
                    self._known = await quotas.waiting_everywhere(tx)
                self._known_at = clock()
            return self._known

    def require(self, waiting: Waiting, own: int) -> None:
        """Raise Overloaded if a tenant that has `own` executions waiting may not add another."""
        if (refused := overload(waiting, self._most, own)) is not None:
            raise refused
