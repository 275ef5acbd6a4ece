"""How soon what was let in to an opened port ends with the right of whoever opened it."""

from runner.sandboxes.ports import FRESH_S, LOOK_S

WITHIN_S = 1.0
"""What docs/decisions/0024 promises of every request."""


def test_what_goes_on_at_a_port_ends_within_the_second_of_every_other_request() -> None:
    """The last look may have come just before the right ended, and may have been remembered."""
    assert LOOK_S + FRESH_S < WITHIN_S
