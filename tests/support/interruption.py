"""Cancels a coroutine at any of its awaits, as a client that hangs up or a lost lease does."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from functools import partial
from operator import eq
from types import coroutine
from typing import Any

MOST_AWAITS = 400
"""More awaits than any coroutine here needs: one with more does not end."""


class NeverReached(Exception):
    """The coroutine ended before the await at which it was to be cancelled."""


Again = Callable[[int], bool]
"""Whether the await with this distance from the first cancelled one is cancelled, too."""

AGAIN: dict[str, Again] = {
    "once": lambda _: False,  # Task.cancel
    "at each await": lambda _: True,  # anyio's scopes, in which Starlette runs streams
    **{f"again {gap} later": partial(eq, gap) for gap in (2, 5, 10)},
}


@coroutine
def _cancelled_at(
    work: Coroutine[Any, Any, Any], at: int, again: Again
) -> Generator[Any, Any, None]:
    """Drive `work` and cancel it at its await number `at`."""
    count = 0
    try:
        awaited = work.send(None)
        while True:
            count += 1
            if count == at or (count > at and again(count - at)):
                if isinstance(awaited, asyncio.Future):
                    awaited.cancel()
                awaited = work.throw(asyncio.CancelledError())
            else:
                yield awaited
                awaited = work.send(None)
    except StopIteration:
        if count < at:
            raise NeverReached from None
    except asyncio.CancelledError:
        if count < at:
            raise


async def cancelled_everywhere(
    work: Callable[[], Coroutine[Any, Any, Any]],
    whole: Callable[[], Awaitable[None]],
    again: Again,
) -> int:
    """Run `work` again and again, cancelled one await later each time, until it ends by itself.

    After each run, `whole` must find everything in order. Returns at how many awaits it was
    cancelled.
    """
    for at in range(1, MOST_AWAITS):
        try:
            await _cancelled_at(work(), at, again)
        except NeverReached:
            return at - 1
        await whole()
    raise AssertionError(f"not at its end after {MOST_AWAITS} awaits")
