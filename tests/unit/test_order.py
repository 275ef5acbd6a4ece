"""In which order modules of tests run, and which of them are read at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from tests.support.order import (
    LONGEST,
    ROOT,
    demand_that_marks_are_written,
    longest_first,
    says_alone,
)


@dataclass
class Named:
    """The part of a test that concerns its order."""

    path: Path
    name: str


def test_the_longest_modules_begin_first_and_nothing_else_moves() -> None:
    """The tests of a module stay together and in order."""
    other, second, first = "tests/unit/test_order.py", LONGEST[1], LONGEST[0]
    given = [(other, "a"), (second, "a"), (first, "a"), (second, "b"), (other, "b")]
    items = [Named(ROOT / module, name) for module, name in given]
    longest_first(cast("list[pytest.Item]", items))
    expected = [(first, "a"), (second, "a"), (second, "b"), (other, "a"), (other, "b")]
    assert [(str(each.path.relative_to(ROOT)), each.name) for each in items] == expected


def test_each_module_that_begins_first_exists() -> None:
    assert [module for module in LONGEST if not (ROOT / module).is_file()] == []


def test_a_mark_that_its_module_does_not_say_is_refused(request: pytest.FixtureRequest) -> None:
    """It would be in neither run: not beside others, and not read when it is to be alone."""
    assert not says_alone(request.node.path)
    demand_that_marks_are_written([request.node])
    request.node.add_marker("alone")
    with pytest.raises(pytest.UsageError, match=r"::test_a_mark_that.* is marked alone"):
        demand_that_marks_are_written([request.node])


def test_a_module_that_marks_one_of_its_tests_is_read() -> None:
    assert says_alone(ROOT / "tests/unit/auth/test_passwords.py")
