"""Connections beyond a sandbox's limit wait in order, within bounds."""

import asyncio

import pytest

from runner.egress.places import MAX_WAITING, Full, Places


async def passes(number: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_who_came_first_is_served_first() -> None:
    """Each gets a place when an earlier one ends."""
    places, served = Places(1), list[int]()

    async def waiting(at: int) -> None:
        await places.take(60)
        served.append(at)

    tasks = [asyncio.create_task(waiting(at)) for at in range(4)]
    for number in range(4):
        await passes()
        assert served == list(range(number + 1))
        places.give()
    await asyncio.gather(*tasks)


async def test_a_wait_ends_with_a_refusal() -> None:
    """It ends in time, or at once if too many wait; the place itself stays usable."""
    places = Places(1)
    await places.take(60)
    with pytest.raises(Full, match=r"within 0\.01 s"):
        await places.take(0.01)
    waiting = [asyncio.create_task(places.take(60)) for _ in range(MAX_WAITING)]
    await passes()
    with pytest.raises(Full, match=f"{MAX_WAITING} others"):
        await places.take(60)
    for _ in range(MAX_WAITING + 1):
        places.give()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("given", [False, True])
async def test_who_gives_up_loses_no_place(given: bool) -> None:
    """Nor does a connection that gives up keep a place that it gets at that very moment."""
    places = Places(1)
    await places.take(60)
    first, second = (asyncio.create_task(places.take(60)) for _ in range(2))
    await passes()
    if given:
        places.give()
    first.cancel()
    await passes()
    if not given:
        places.give()
    await asyncio.wait_for(second, 5)
    assert first.cancelled()
    places.give()
    await asyncio.wait_for(places.take(1), 5)


async def test_who_gives_up_just_before_a_place_comes_free_is_passed_over() -> None:
    """This happens when a sandbox ends and all of its connections are cancelled at once."""
    places = Places(1)
    await places.take(60)
    waiting = [asyncio.create_task(places.take(60)) for _ in range(3)]
    await passes()
    for each in waiting:
        each.cancel()
    places.give()
    await asyncio.wait(waiting)
    assert all(each.cancelled() for each in waiting)
    await asyncio.wait_for(places.take(1), 5)
