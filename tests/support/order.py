"""In which order modules of tests run, and which of them are read at all."""

from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALONE = "alone"
LONGEST = (
    "tests/e2e/e2b/test_sdks.py",
    "tests/security/test_checks.py",
    "tests/e2e/test_lost_services.py",
    "tests/security/test_checks_living.py",
    "tests/integration/backup/test_restore.py",
    "tests/e2e/test_command_line.py",
    "tests/e2e/frameworks/test_deepagents.py",
    "tests/e2e/console/test_console.py",
    "tests/e2e/test_templates.py",
    "tests/integration/api/test_contract.py",
    "tests/e2e/test_template_users.py",
    "tests/e2e/test_nodes.py",
    "tests/e2e/test_egress.py",
    "tests/integration/embedded/test_dev.py",
    "tests/e2e/test_backup.py",
    "tests/e2e/test_pages.py",
    "tests/security/test_roles.py",
    "tests/security/test_revocation.py",
    "tests/e2e/test_claude_agents.py",
    "tests/integration/api/test_members.py",
)
"""Modules that take more than a minute and a half, the longest first.

A module runs in one process. One that begins last is waited for by all the others.
"""


def longest_first(items: list[pytest.Item]) -> None:
    """Bring the tests of the longest modules to the front, and leave the others as they are."""
    place = {ROOT / module: number for number, module in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(LONGEST)))


def says_alone(module: Path) -> bool:
    """Return whether a module marks a test `alone`, by its text."""
    return f"pytest.mark.{ALONE}" in module.read_text("utf-8")


def demand_that_marks_are_written(items: Sequence[pytest.Item]) -> None:
    """Raise UsageError if a test is marked `alone` by a module whose text does not say so.

    A run of these tests would not even read it.
    """
    for item in items:
        if item.get_closest_marker(ALONE) and not says_alone(item.path):
            raise pytest.UsageError(
                f"{item.nodeid} is marked {ALONE}, but its module does not contain "
                f"`pytest.mark.{ALONE}`: write the mark there"
            )
