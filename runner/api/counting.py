"""Counting work that a request's head does not show, as further requests of its caller."""

from collections.abc import Awaitable, Callable

from runner.api.deps import Dependencies
from runner.api.edge.groups import OPEN_WITHOUT_REDIS, Group
from runner.api.edge.rates import hit
from runner.auth.caller import Caller
from runner.words.errors import QueueUnavailable, TooManyAttempts

ENTRIES_FOR_ONE = 1000
"""A listing of files costs one more place of its rate for each so many entries."""


async def count(parts: Dependencies, caller: Caller, group: Group, cost: int = 1) -> None:
    """Count `cost` more requests of this group. Raises TooManyAttempts and QueueUnavailable."""
    settings = parts.settings
    if not settings.rate_limiting or not cost:
        return
    try:
        allowance = await hit(
            parts.limiter, settings.rate_limits, caller.principal, group, cost=cost
        )
    except QueueUnavailable:
        if not OPEN_WITHOUT_REDIS[group]:
            raise
    else:
        if not allowance.allowed:
            full = allowance.tightest
            raise TooManyAttempts(
                f"the rate of this key or user for {group.value} requests is used up: "
                f"{full.quota} in {full.seconds} s",
                max(1, full.reset_s),
            )


class Surcharge:
    """Charges for small things as they are done: one place for each so many of them."""

    def __init__(self, charge: Callable[[int], Awaitable[None]], for_one: int) -> None:
        self._charge = charge
        self._for_one = for_one
        self._done = 0

    async def add(self, done: int = 1) -> None:
        """Charge for what is done now. Raises what the charge raises."""
        cost, self._done = divmod(self._done + done, self._for_one)
        if cost:
            await self._charge(cost)
