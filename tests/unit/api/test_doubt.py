"""Turns for doubtful credentials: limited in number and pace, and always given back."""

import asyncio
import time

import pytest

from runner.api.edge.doubt import ADDRESSES_AT_ONCE, WAITING, WRONG_S, Doubt
from runner.words.errors import NotAuthenticated, NotReady, TooManyAttempts

REFUSAL = TooManyAttempts("too many", 1)


async def attempt(doubt: Doubt, address: str, error: Exception | None) -> str:
    """Verify one credential, which is right or fails with an error; return what happened."""
    try:
        async with doubt.turn(address, REFUSAL):
            if error is not None:
                raise error
    except TooManyAttempts:
        return "refused"
    except NotReady:
        return "not ready"
    return "held"


async def test_a_right_one_passes_behind_wrong_ones() -> None:
    doubt, wrong = Doubt(), NotAuthenticated("wrong")
    guesses = [asyncio.create_task(attempt(doubt, "a", wrong)) for _ in range(5)]
    await asyncio.sleep(0)
    assert await attempt(doubt, "a", None) == "held"
    assert [await each for each in guesses] == ["refused"] * 5


@pytest.mark.parametrize("addresses", [1, 10])
async def test_wrong_ones_take_their_time_from_however_many_addresses(addresses: int) -> None:
    doubt, wrong, tried = Doubt(), NotAuthenticated("wrong"), 20
    began = time.monotonic()
    await asyncio.gather(*(attempt(doubt, f"{n % addresses}", wrong) for n in range(tried)))
    assert time.monotonic() - began >= 0.9 * tried * WRONG_S / min(addresses, ADDRESSES_AT_ONCE)


async def test_no_more_than_so_many_wait() -> None:
    doubt = Doubt()
    holding = asyncio.Event()

    async def hold() -> str:
        async with doubt.turn("a", REFUSAL):
            await holding.wait()
        return "held"

    waiting = [asyncio.create_task(hold()) for _ in range(WAITING)]
    await asyncio.sleep(0)
    assert await attempt(doubt, "a", None) == "refused"
    assert await attempt(doubt, "b", None) == "held"
    holding.set()
    assert [await each for each in waiting] == ["held"] * WAITING
    assert await attempt(doubt, "a", None) == "held"


async def test_what_could_not_be_verified_is_not_called_wrong() -> None:
    assert await attempt(Doubt(), "a", NotReady("PostgreSQL")) == "not ready"


async def test_one_that_goes_away_gives_its_turn_back() -> None:
    doubt = Doubt()

    async def hold() -> None:
        async with doubt.turn("a", REFUSAL):
            await asyncio.sleep(60)

    gone = asyncio.create_task(hold())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await attempt(doubt, "a", None) == "held"
