"""Credentials from an address that presented too many wrong ones: verified one after the other.

A company or a phone network shares an address among many. So neighbours' guesses must not lock out
somebody who comes with a new key, and must not become cheap either. One credential of an address is
verified at a time, few of all such addresses, and a wrong one holds its turn for a while: guesses
get no faster by being many. Up to 64 of an address wait for their turn; further ones are refused
unseen. Wrong ones leave no audit record here; the ones before them did.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from weakref import WeakValueDictionary

from runner.words.errors import NotReady, RunnerError

DOUBT = "runner.doubt"
"""In the scope: the turn to wait for before the request's credential is verified."""
Turn = AbstractAsyncContextManager[None]

WRONG_S = 0.05
"""How long a wrong credential holds its turn: an address has at most twenty looked up a second."""
ADDRESSES_AT_ONCE = 2
WAITING = 64
"""Credentials of one address that may wait; a turn comes within some seconds, or not at all."""


class Doubt:
    """Gives turns to addresses that presented too many wrong credentials."""

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
