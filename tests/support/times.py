"""Where the time of a run of tests went: by group, and by module."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

LONGEST = 25
"""How many modules are named."""
FEW_MODULES = 30
"""A run of fewer modules is somebody's own choice, who knows what was run."""


def told(reports: Iterable[Any]) -> list[str]:
    """Return lines that say how many seconds each group and each of the longest modules took.

    Every report with a node id and a duration counts: set-up, call and teardown of each test.
    Several processes add up to more than the time that somebody waited.
    """
    modules: Counter[str] = Counter()
    groups: Counter[str] = Counter()
    tests: Counter[str] = Counter()
    for report in reports:
        if not hasattr(report, "nodeid") or not hasattr(report, "duration"):
            continue
        module = report.nodeid.partition("::")[0]
        group = "/".join(PurePosixPath(module).parts[:2])
        modules[module] += report.duration
        groups[group] += report.duration
        tests[group] += report.when == "call"
    if len(modules) < FEW_MODULES:
        return []
    return [
        *(
            f"{seconds:8.0f} s  {tests[group]:6d} tests  {group}"
            for group, seconds in groups.most_common()
        ),
        *(f"{seconds:8.0f} s  {module}" for module, seconds in modules.most_common(LONGEST)),
    ]
