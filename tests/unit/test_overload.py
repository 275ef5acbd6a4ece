"""A full deployment still accepts some executions, and explains why not the others."""

import pytest

from runner.quotas.waiting import LONGEST_RETRY_S, Waiting, overload


@pytest.mark.parametrize(
    ("waiting", "own", "taken"),
    [
        (Waiting(9, 1, None), 9, True),
        (Waiting(10, 1, None), 10, False),
        (Waiting(10, 1, 1.0), 0, True),
        (Waiting(12, 2, 1.0), 4, True),
        (Waiting(12, 2, 1.0), 5, False),
        (Waiting(12, 2, 1.0), 8, False),
    ],
)
def test_a_full_deployment_is_closed_to_those_who_fill_it(
    waiting: Waiting, own: int, *, taken: bool
) -> None:
    """A tenant with less than an equal share of the ten places is accepted."""
    assert (overload(waiting, 10, own) is None) is taken


@pytest.mark.parametrize(
    ("interval_s", "beyond", "retry_after_s"),
    [(None, 1, 1), (0.5, 1, 1), (2.0, 3, 6), (10.0, 100, LONGEST_RETRY_S)],
)
def test_it_says_when_there_may_be_room(
    interval_s: float | None, beyond: int, retry_after_s: int
) -> None:
    """It follows the pace at which executions are claimed, within a minute."""
    refused = overload(Waiting(9 + beyond, 1, interval_s), 10, 10)
    assert refused is not None
    assert refused.retry_after_s == retry_after_s
