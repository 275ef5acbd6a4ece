"""Where the time of a run of tests went."""

import pytest

from tests.support import times


def report(module: str, when: str, seconds: float) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=f"{module}::test_it",
        location=(module, 1, "test_it"),
        keywords={},
        outcome="passed",
        longrepr=None,
        when=when,  # type: ignore[arg-type]
        duration=seconds,
    )


def test_each_group_and_each_of_the_longest_modules_is_told_with_its_set_up() -> None:
    reports = [
        report(f"tests/unit/test_{number}.py", "call", 1.0) for number in range(times.FEW_MODULES)
    ]
    reports += [
        report("tests/e2e/test_slow.py", "setup", 60.0),
        report("tests/e2e/test_slow.py", "call", 40.0),
    ]
    lines = [line.split() for line in times.told(reports)]
    assert lines[:3] == [
        ["100", "s", "1", "tests", "tests/e2e"],
        [str(times.FEW_MODULES), "s", str(times.FEW_MODULES), "tests", "tests/unit"],
        ["100", "s", "tests/e2e/test_slow.py"],
    ]
    assert len(lines) == 2 + times.LONGEST


def test_a_run_of_few_modules_is_not_told_of() -> None:
    assert times.told([report("tests/unit/test_it.py", "call", 1.0)]) == []
