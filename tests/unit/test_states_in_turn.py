"""Two states of the code are compared by pairs of one round, so that a host's pace says nothing."""

import pytest

from benchmarks.states import TASKS, row

FAST, SLOW = 10.0, 40.0


def test_a_host_that_slows_both_says_nothing() -> None:
    """Medians of each state alone would differ by a factor of four here."""
    old = [FAST, FAST, SLOW, FAST, SLOW]
    new = [FAST, FAST, SLOW, SLOW, SLOW]
    assert row(TASKS[0], "median, ms", old, new).worse == 1.0


@pytest.mark.parametrize("more_is_better", [False, True])
def test_a_state_that_is_slower_in_each_round_is_worse(more_is_better: bool) -> None:
    quick, slow = [10.0, 20.0, 40.0], [11.0, 22.0, 44.0]
    pair = (slow, quick) if more_is_better else (quick, slow)
    found = row(TASKS[0], "figure", *pair, more_is_better=more_is_better)
    assert found.worse == pytest.approx(1.1)
    assert list(found.quartiles) == pytest.approx([1.1, 1.1])


def test_one_round_is_compared_too() -> None:
    assert row(TASKS[0], "median, ms", [10.0], [5.0]).worse == 0.5
