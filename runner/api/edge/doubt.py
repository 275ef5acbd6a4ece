"""Verifies credentials one at a time for an address that sent too many wrong ones.

Many people share the address of a company or a phone network. So neighbours' guesses must neither
lock out somebody with a new key nor become cheap. For each address, one credential is verified at a
time; for all such addresses together, a few are. A wrong one keeps its turn for a while, so more
guesses at once are not faster. Up to 64 credentials of an address wait for a turn; further ones are
refused unseen. Wrong ones leave no audit record here, because earlier ones did.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from runner.words.errors import NotReady, RunnerError

DOUBT = "runner.doubt"
"""Key in the ASGI scope: the turn to wait for before the credential is verified."""
Turn = AbstractAsyncContextManager[None]

WRONG_S = 0.05
"""Seconds that a wrong credential keeps its turn: at most twenty lookups a second per address."""
ADDRESSES_AT_ONCE = 2
WAITING = 64
"""How many credentials of one address may wait; a turn comes within seconds, or never."""


class Doubt:
    """Gives turns to addresses that sent too many wrong credentials."""

    def __init__(self) -> None:
        self._at_once = asyncio.Semaphore(ADDRESSES_AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, address: str, refusal: RunnerError) -> AsyncIterator[None]:
        """Wait for a turn. Raises the refusal if too many wait, or if the credential is wrong."""
        if self._waiting[address] >= WAITING:
            raise refusal
        self._waiting[address] += 1
        try:
            async with self._turns.setdefault(address, asyncio.Lock()), self._at_once:
                try:
                    yield
                except NotReady:
                    raise
                except RunnerError:
                    await asyncio.sleep(WRONG_S)
                    raise refusal from None
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
