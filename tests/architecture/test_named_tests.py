"""Pages name only tests that exist."""

from pathlib import Path

import pytest

from tests.support.named_tests import NAMED, ROOT, missing

PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
    if NAMED.search(page.read_text())
]


@pytest.mark.parametrize("page", [str(page.relative_to(ROOT)) for page in PAGES])
def test_each_test_that_a_page_names_exists(page: str) -> None:
    assert missing(Path(ROOT / page).read_text()) == []


def test_a_test_that_does_not_exist_is_found() -> None:
    there = "`tests/e2e/test_faults.py::test_a_stopped_worker_drains`"
    assert missing(there) == []
    assert missing(f"{there}, `tests/e2e/test_faults.py::test_gone`") == [
        "tests/e2e/test_faults.py::test_gone"
    ]
    assert missing("`tests/gone.py::test_a`") == ["tests/gone.py::test_a"]
