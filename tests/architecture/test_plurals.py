"""A message says "1 byte" and "2 bytes": numbers that may be one go through `counted`."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.words.text import counted

RUNNER = Path(__file__).resolve().parents[2] / "runner"
NOUNS = (
    "attempts", "bytes", "calls", "connections", "days", "entries", "events", "executions", "files",
    "hours", "minutes", "objects", "processes", "records", "requests", "results", "sandboxes",
    "seconds", "times",
)  # fmt: skip
NEVER_ONE = {
    "group.value": "it is a word",
    "most": "it is a bound, far above one",
    "connect.MAX_MESSAGE": "it is a bound, far above one",
    "self._most": "it is a bound of a node's calls, above one",
    "self._of_sandbox": "it is a bound, far above one",
    "self._of_tenant": "it is a bound, far above one",
    "settings.most_sandboxes": "all uses of a node together, of which there are several",
    "expected": "the demo makes a dozen attempts",
    "length": "it is of a frame that was too long",
    "len(payload)": "it is of a message that was too long",
    "len(data)": "it is of a message that was too long",
    "size": "it is of something that was too large",
    "count": "nobody is told of a single one",
    "len(document.allowed)": "no profile allows one call",
    "self.total": "a part of it was left out, and another was not",
    "stream.total_bytes": "a part of it was left out, and another was not",
}
"""Values that stand before a plural, with the reason why that is right."""


def before_plurals(source: str) -> Iterator[str]:
    """Return the values that stand before one of the nouns in a module's f-strings."""
    plurals = tuple(f" {noun}" for noun in NOUNS)
    for text in ast.walk(ast.parse(source)):
        if not isinstance(text, ast.JoinedStr):
            continue
        for value, after in zip(text.values, text.values[1:], strict=False):
            if (
                isinstance(value, ast.FormattedValue)
                and isinstance(after, ast.Constant)
                and str(after.value).startswith(plurals)
            ):
                yield ast.unparse(value.value)


def test_what_may_be_one_is_counted() -> None:
    """Constants are in capitals, and none of them is one."""
    found = {
        (str(path.relative_to(RUNNER)), value)
        for path in RUNNER.rglob("*.py")
        for value in before_plurals(path.read_text())
        if not value.lstrip("_").isupper() and value not in NEVER_ONE
    }
    assert found == set()


def test_a_bare_plural_shows() -> None:
    assert list(before_plurals('f"{n} bytes", f"{n:,} records left", f"{n} left"')) == ["n", "n"]


@pytest.mark.parametrize(
    ("count", "name", "said"),
    [
        (0, "byte", "0 bytes"),
        (1, "byte", "1 byte"),
        (2, "sandbox", "2 sandboxes"),
        (1, "living sandbox", "1 living sandbox"),
        (3000, "execution", "3,000 executions"),
    ],
)
def test_a_number_of_things(count: int, name: str, said: str) -> None:
    assert counted(count, name) == said
