"""The page of all checks agrees with the code."""

from pathlib import Path

from runner.verify import report
from runner.verify.checks import every_check

PAGE = Path(__file__).resolve().parents[3] / "docs" / "security" / "checks.md"


def test_the_page_of_checks_is_current() -> None:
    """To write it, run `runner verify --list > docs/security/checks.md`."""
    assert PAGE.read_text() == report.page(every_check())
