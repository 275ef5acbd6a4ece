"""The page about faults lists each fault of the catalogue, and names only tests that exist."""

import ast
import re
from pathlib import Path

from benchmarks.chaos_faults import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations" / "faults.md"
FAULTS = range(1, 21)
NOT_MADE = {16}
"""Those that `make chaos` cannot make happen, as the page says."""
ROW = re.compile(r"^\| \*\*(\d+)\. [^|]+\*\* \|(.+)\|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def rows(page: str) -> dict[int, list[tuple[str, str]]]:
    """Return the tests, by path and name, that each row of the page names."""
    return {int(number): TEST.findall(row) for number, row in ROW.findall(page)}


def missing(page: str) -> list[str]:
    """Return the tests that the page names and nobody has written."""
    return [
        f"{path}::{name}"
        for tests in rows(page).values()
        for path, name in tests
        if name not in written(ROOT / path)
    ]


def written(path: Path) -> set[str]:
    """Return the names of a module's tests."""
    if not path.exists():
        return set()
    found = ast.parse(path.read_text()).body
    return {each.name for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_each_fault_has_a_row_with_a_test() -> None:
    found = rows(PAGE.read_text())
    assert [*found] == [*FAULTS]
    assert [number for number, tests in found.items() if not tests] == []


def test_each_test_that_the_page_names_exists() -> None:
    page = PAGE.read_text()
    assert missing(page) == []
    named = len(re.findall(r"::test_", page))
    assert named == sum(map(len, rows(page).values()))


def test_a_test_that_does_not_exist_is_found() -> None:
    there = "`tests/e2e/test_faults.py::test_a_stopped_worker_drains`"
    row = f"| **1. A fault** | a | b | c | {there}{{}} |\n"
    assert missing(row.format("")) == []
    assert missing(row.format(", `tests/e2e/test_faults.py::test_gone`")) == [
        "tests/e2e/test_faults.py::test_gone"
    ]
    assert missing(row.format(", `tests/gone.py::test_a`")) == ["tests/gone.py::test_a"]


def test_chaos_makes_each_fault_happen_that_the_page_says_it_does() -> None:
    assert {fault.number for fault in CATALOGUE} == {*FAULTS} - NOT_MADE
