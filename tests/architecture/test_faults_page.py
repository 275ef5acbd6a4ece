"""The page about faults lists each fault of the catalogue, with a test."""

import re
from pathlib import Path

from benchmarks.chaos_faults import CATALOGUE
from tests.support.named_tests import NAMED

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "operations" / "faults.md"
FAULTS = range(1, 21)
NOT_MADE = {16}
"""Those that `make chaos` cannot make happen, as the page says."""
ROW = re.compile(r"^\| \*\*(\d+)\. [^|]+\*\* \|(.+)\|$", re.MULTILINE)


def rows(page: str) -> dict[int, list[tuple[str, str]]]:
    """Return the tests, by path and name, that each row of the page names."""
    return {int(number): NAMED.findall(row) for number, row in ROW.findall(page)}


def test_each_fault_has_a_row_with_a_test() -> None:
    found = rows(PAGE.read_text())
    assert [*found] == [*FAULTS]
    assert [number for number, tests in found.items() if not tests] == []


def test_no_test_is_named_outside_of_the_rows() -> None:
    page = PAGE.read_text()
    assert len(NAMED.findall(page)) == sum(map(len, rows(page).values()))


def test_chaos_makes_each_fault_happen_that_the_page_says_it_does() -> None:
    assert {fault.number for fault in CATALOGUE} == {*FAULTS} - NOT_MADE
