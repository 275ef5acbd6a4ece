"""How often a login may be tried: sliding windows in Redis, longer ones the more attempts failed.

There are three counts: of one address at one account, of one address at all accounts, and of one
account from all addresses. The first grows from a minute to a day, and a successful login clears
it. The last protects against guessing from many addresses at once. It does not delay an address
from which somebody logged in to the account lately, so nobody else can lock the account's owner
out. Accounts that do not exist are counted like those that do.

If Redis does not answer, nobody can log in.
"""

import hashlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from types import TracebackType
from typing import Self

import redis.asyncio
from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import SecretStr

from runner.base.short_redis import short_pool
from runner.words.errors import QueueUnavailable, TooManyAttempts

ANSWER_S = 0.5
REMEMBERED_S = 30 * 24 * 3600
"""How long the address of a successful login is remembered."""
SITE_V6 = 64
"""Bits that count of an IPv6 address: whoever has one address has the whole network."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Numbers of attempts by seconds, from the shortest window to the longest."""

    pair: tuple[tuple[int, int], ...] = ((5, 60), (10, 900), (20, 14_400), (50, 86_400))
    """From one address at one account."""
    address: tuple[tuple[int, int], ...] = ((30, 60), (200, 3600))
    """From one address at all accounts; logins that succeed count, too."""
    account: tuple[tuple[int, int], ...] = ((50, 3600), (200, 86_400))
    """At one account from all addresses that are not known to it."""


class Throttle:
    """Counts in one Redis, which may take `answer_s` seconds to answer.

    Whoever composes the process opens and closes it.
    """

    def __init__(
        self, redis_url: SecretStr, windows: Windows | None = None, *, answer_s: float = ANSWER_S
    ) -> None:
        self._windows = windows or Windows()
        self._pool = short_pool(redis_url, answer_s=answer_s, connections=8)
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="runner:login",
            connection_pool=self._pool,  # type: ignore[arg-type] # passed on to redis as it is
        )
        self._limiter = MovingWindowRateLimiter(storage)
        self._known = RateLimitItemPerSecond(1, REMEMBERED_S)
        self._told = RateLimitItemPerSecond(1, 60)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._pool.disconnect()

    async def attempt(self, address: str | None, account: str | None = None) -> None:
        """Count an attempt before it is made, so that many simultaneous ones are all counted.

        Raises TooManyAttempts, and QueueUnavailable if Redis does not answer.
        """
        async with _answered():
            await self._count(self._windows.address, "address", site(address))
            if account is None:
                return
            name = _name(account)
            await self._count(self._windows.pair, "pair", name, site(address))
            if await self._limiter.test(self._known, "known", name, site(address)):
                await self._count(self._windows.account, "account", name)

    async def succeeded(self, address: str | None, account: str) -> None:
        """Forget the failures from this address at this account, and remember the address.

        Raises QueueUnavailable if Redis does not answer.
        """
        name = _name(account)
        async with _answered():
            for item in _items(self._windows.pair):
                await self._limiter.clear(item, "pair", name, site(address))
            await self._limiter.clear(self._known, "known", name, site(address))
            await self._limiter.hit(self._known, "known", name, site(address))

    async def to_be_told(self, address: str | None) -> bool:
        """Return whether to record a refusal: of an address, only the first in a minute.

        Raises QueueUnavailable when Redis does not answer.
        """
        async with _answered():
            return await self._limiter.hit(self._told, "told", site(address))

    async def _count(self, windows: Sequence[tuple[int, int]], *key: str) -> None:
        for item in _items(windows):
            if not await self._limiter.hit(item, *key):
                stats = await self._limiter.get_window_stats(item, *key)
                wait_s = max(1, math.ceil(stats.reset_time - time.time()))
                raise TooManyAttempts(f"too many attempts; try again in {wait_s} s", wait_s)


def site(address: str | None) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    try:
        known = ip_address(address or "")
    except ValueError:
        return "none"
    if not isinstance(known, IPv6Address):
        return str(known)
    mapped = known.ipv4_mapped
    return str(mapped or ip_network((known, SITE_V6), strict=False))


def _items(windows: Sequence[tuple[int, int]]) -> list[RateLimitItem]:
    return [RateLimitItemPerSecond(attempts, seconds) for attempts, seconds in windows]


def _name(account: str) -> str:
    """Return an account's name in Redis, which must not hold people's addresses."""
    return hashlib.sha256(account.encode()).hexdigest()[:32]


@asynccontextmanager
async def _answered() -> AsyncIterator[None]:
    try:
        yield
    except redis.RedisError as error:
        raise QueueUnavailable(f"Redis: {type(error).__name__}; try again") from error
