"""Shares: even if many are greedy, a newcomer still finds a place."""

import asyncio

import pytest

from runner.api.edge.shares import Place, Share, Strangers

WHOLE = 1000


def greedy(share: Share, tenants: int, keys: int = 4) -> dict[str, int]:
    """Let tenants take one each in turn, with any of their keys; return what each got."""
    got = {f"tenant {n}": 0 for n in range(tenants)}
    taking = True
    while taking:
        taking = False
        for tenant in got:
            if any(share.take((tenant, f"key {key}")) for key in range(keys)):
                got[tenant] += 1
                taking = True
    return got


@pytest.mark.parametrize("tenants", [1, 2, 3, 10, 100])
def test_greedy_tenants_leave_as_much_as_each_of_them_holds(tenants: int) -> None:
    share = Share(WHOLE)
    got = greedy(share, tenants)
    equal = WHOLE / (tenants + 1)
    assert share.free >= equal - 2
    assert all(abs(held - equal) <= 2 for held in got.values())


def test_one_key_gets_a_third_and_leaves_its_tenants_other_keys_some() -> None:
    share = Share(WHOLE)
    assert greedy(share, 1, keys=1) == {"tenant 0": 334}
    assert share.take(("tenant 0", "another key"))


def test_somebody_new_is_served_until_everything_is_held() -> None:
    share = Share(3)
    assert [share.take((tenant, "key")) for tenant in "abcd"] == [True, True, True, False]
    share.give_back(("a", "key"))
    assert share.take(("d", "key"))


async def test_who_waits_is_given_what_others_give_back_in_order() -> None:
    """It gets as much as its share permits; a waiter that gives up costs nobody anything."""
    share, me = Share(3), ("a", "key")
    for tenant in "abc":
        assert share.take((tenant, "key"))
    first, second, third = (
        asyncio.create_task(share.take_within((tenant, "key"), 1, within))
        for tenant, within in (("d", 60), ("e", 0.01), ("f", 60))
    )
    assert not await second
    share.give_back(me)
    assert await first
    assert not third.done()
    third.cancel()
    await asyncio.gather(third, return_exceptions=True)
    share.give_back(("d", "key"))
    assert share.free == 1
    assert share.held(("b", "key")) == 1


class Cut:
    """A connection that may be cut off."""

    def __init__(self, strangers: Strangers) -> None:
        self.off = False
        self.place = Place(strangers, self.cut)

    def cut(self) -> None:
        """Behave like a transport's `abort`: the loss is reported later."""
        self.off = True


def test_the_stranger_served_longest_ago_makes_room() -> None:
    strangers = Strangers(2)
    first, second = Cut(strangers), Cut(strangers)
    first.place.served()
    third = Cut(strangers)
    assert [each.off for each in (first, second, third)] == [False, True, False]


def test_a_connection_that_is_somebodys_makes_room_for_no_stranger() -> None:
    strangers, share, me = Strangers(1), Share(10), ("tenant", "key")
    mine = Cut(strangers)
    assert mine.place.held_by(me, share)
    mine.place.served()
    Cut(strangers)
    Cut(strangers)
    assert not mine.off


@pytest.mark.parametrize("busy", [True, False])
def test_a_place_is_given_back_once_connection_and_request_have_ended(busy: bool) -> None:
    share, me = Share(10), ("tenant", "key")
    place = Cut(Strangers(1)).place
    assert place.held_by(me, share)
    if busy:
        place.begin()
    place.close()
    assert share.free == (9 if busy else 10)
    place.end()
    assert share.free == 10


def test_a_proxys_connection_is_held_for_its_request_alone() -> None:
    """Between requests it belongs to nobody, and is cut off like a stranger's."""
    strangers, share = Strangers(1), Share(10)
    pooled = Cut(strangers)
    assert pooled.place.held_by(("tenant", "key"), share)
    pooled.place.begin()
    pooled.place.served()
    Cut(strangers)
    assert (share.free, pooled.off) == (9, False)
    pooled.place.end(proxied=True)
    assert share.free == 10
    Cut(strangers)
    assert pooled.off


def test_a_proxys_next_request_is_counted_although_the_one_before_has_not_returned() -> None:
    share = Share(10)
    place = Cut(Strangers(1)).place
    for holder in (("tenant", "key"), ("other", "key")):
        assert place.held_by(holder, share)
        place.begin()
    place.end(proxied=True)
    assert share.free == 9
    place.end(proxied=True)
    assert share.free == 10


def test_a_connection_that_changes_hands_is_counted_once() -> None:
    share = Share(10)
    place = Cut(Strangers(1)).place
    for holder in (("tenant", "key"), ("other", "key"), ("other", "key")):
        assert place.held_by(holder, share)
        assert share.free == 9
