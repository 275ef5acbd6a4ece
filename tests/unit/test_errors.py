"""The tree of our exceptions is as its drawing says."""

import inspect
import re

from runner.words import errors
from runner.words.errors import RunnerError


def drawn(text: str) -> list[tuple[str, str]]:
    """Return each class in a drawing with the class above it."""
    found: list[tuple[str, str]] = []
    above: list[str] = []
    for line in text.splitlines():
        if node := re.match(r"^    ([│ ├└─]*)([A-Z]\w*)(?: |$)", line):
            depth = len(node[1]) // 4
            del above[depth:]
            found.append((node[2], above[-1] if above else ""))
            above.append(node[2])
    return found


def test_the_tree_is_drawn_whole() -> None:
    classes = [
        (name, kind.__base__.__name__ if kind is not RunnerError and kind.__base__ else "")
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, RunnerError)
    ]
    assert sorted(drawn(errors.__doc__ or "")) == sorted(classes)


def test_a_class_in_another_place_shows() -> None:
    """The same names below other classes make another tree."""
    tree = "    A\n    ├── B      why\n    │   └── C\n    └── D\n"
    assert drawn(tree) == [("A", ""), ("B", "A"), ("C", "B"), ("D", "A")]


def test_what_a_program_may_act_on_is_in_fields() -> None:
    full = errors.StorageFull("storage_bytes", 100, used=90, asked=20)
    assert (full.limit, full.allowed, full.used, full.asked) == ("storage_bytes", 100, 90, 20)
    assert full.retry_after_s is None
    assert errors.Overloaded("full", retry_after_s=3).retry_after_s == 3
