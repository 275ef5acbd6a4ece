"""Which of PostgreSQL's refusals pass by themselves, whatever class psycopg gives them."""

import psycopg
from psycopg import errors

from runner.store.db import _NOT_NOW, PASSING

STAY = {
    "25000", "25001", "25002", "25003", "25004", "25005", "25007", "25008", "25P01", "25P02",
}  # fmt: skip
"""Faults of ours in a class that passes otherwise: statements that no transaction may have."""


def test_every_refusal_of_a_class_that_passes_is_told_as_one() -> None:
    """The client library counts some of them as internal errors."""
    known = {
        each.sqlstate: each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, psycopg.Error) and each.sqlstate
    }
    passing = {state for state in known if state[:2] in PASSING} - STAY
    assert len(passing) > 30
    assert {state for state in passing if not issubclass(known[state], _NOT_NOW)} == set()
    assert {state for state in STAY if issubclass(known[state], _NOT_NOW)} == set()
