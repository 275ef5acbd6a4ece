"""How many sandboxes are kept ready."""

from runner.node.stock.demand import SANDBOX_MB, WINDOW_S, Demand, PoolBounds, room

BOUNDS = PoolBounds(floor=2, ceiling=10, reserve_mb=1000)


def test_nothing_is_kept_for_what_nobody_asks_for() -> None:
    assert Demand().wanted(0.0) == 0


def test_the_target_follows_arrivals_and_is_forgotten_after_them() -> None:
    demand = Demand(start_s=0.5)
    for number in range(100):
        demand.asked(number / 10)
    assert demand.wanted(10.0) == 1 + 10  # ten a second, half a second each, twice for clumps
    assert demand.wanted(10.0 + WINDOW_S) == 0


def test_the_target_follows_how_long_a_start_takes() -> None:
    slow, quick = Demand(start_s=1.0), Demand(start_s=1.0)
    for _ in range(50):
        quick.started(0.1)
        for each in (slow, quick):
            each.asked(1.0)
    assert slow.wanted(1.0) > 2 * quick.wanted(1.0)


def test_what_is_kept_is_bounded_by_word_and_by_memory() -> None:
    assert room(BOUNDS, idle=4, available_mb=100_000) == 6
    assert room(BOUNDS, idle=10, available_mb=100_000) == 0
    assert room(BOUNDS, idle=0, available_mb=1000 + 3 * SANDBOX_MB) == 3
    assert room(BOUNDS, idle=0, available_mb=10) == 0
