"""The runner of faults tells what is broken, and does not take a name for a fault."""

import argparse

import pytest

from benchmarks.chaos import Survived, chosen, sheet
from benchmarks.chaos_faults import CATALOGUE


def test_faults_are_chosen_by_their_numbers() -> None:
    assert [each.number for each in chosen("13,2")] == [13, 2]
    assert chosen("") == [*CATALOGUE]
    with pytest.raises(ValueError, match="no fault 16: there are 1, 2, "):
        chosen("2,16")


def test_a_fault_that_is_not_there_is_one_line() -> None:
    """`argparse` tells of a ValueError without the traceback."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--faults", type=chosen)
    with pytest.raises(argparse.ArgumentError):
        parser.parse_args(["--faults", "x"])


def test_what_is_broken_is_in_the_table_and_below_it() -> None:
    whole = Survived(13, "API killed", rounds=2, executions=[0.5, 1.5], sandboxes=[0.25, 0.25])
    broken = Survived(2, "worker killed", rounds=1, saw={"503": 3}, wrong=["an execution is gone"])
    shown = sheet([whole, broken])
    assert shown.rows == [
        ("13. API killed", "2", "0", "", "1.0, 1.5", "0.2, 0.2", "0"),
        ("2. worker killed", "1", "0", "3 x 503", "0.0, 0.0", "0.0, 0.0", "1"),
    ]
    assert shown.notes == ["BROKEN by 2, worker killed: an execution is gone"]
