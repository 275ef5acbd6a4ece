"""A run's patterns name files, tools have folders of their own, and files have an order."""

import importlib.util
import os
import time
from pathlib import Path
from types import ModuleType

import pytest

from runner.base.settings import Settings


@pytest.fixture(scope="module")
def choose() -> ModuleType:
    """Return the supervisor's module."""
    path = Settings().recipes_path / "supervisor" / "choose.py"
    spec = importlib.util.spec_from_file_location("choose", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(choose: ModuleType, pattern: str, path: str, tools: frozenset[str] = frozenset()) -> bool:
    """Return whether a pattern names a file whose path leads through these tools' folders."""
    patterns = choose.Patterns([pattern])
    places = patterns.start
    *folders, name = path.split("/")
    for folder in folders:
        places = patterns.step(places, folder, literally=folder in tools)
    return patterns.first(patterns.step(places, name)) is not None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("result.csv", "result.csv", True),
        ("result.csv", "out/result.csv", False),
        ("out/**", "out/a", True),
        ("out/**", "out/a/b/c", True),
        ("out/**", "other/a", False),
        ("**/c", "c", True),
        ("**/c", "a/b/c", True),
        ("**/c", "a/b/cc", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/x/y/c", True),
        ("a/**/c", "b/c", False),
        ("**", "a/b", True),
        ("*", "a", True),
        ("*", "a/b", False),
        ("*.csv", "x.csv", True),
        ("*.csv", "x.csv.gz", False),
        ("a*b*c", "aXbYc", True),
        ("a*b*c", "aXbY", False),
        ("?.png", "1.png", True),
        ("?.png", "12.png", False),
        ("[ab].png", "a.png", False),
        ("[ab].png", "[ab].png", True),
    ],
)
def test_a_pattern_names_files(choose: ModuleType, pattern: str, path: str, matches: bool) -> None:
    """`*` and `?` stay within a name, `**` does not, and nothing else is special."""
    assert named(choose, pattern, path) is matches


@pytest.mark.parametrize(
    ("pattern", "matches"), [("**", False), ("*/config", False), (".git/**", True)]
)
def test_only_its_name_leads_into_a_tools_folder(
    choose: ModuleType, pattern: str, matches: bool
) -> None:
    """A wildcard is meant for the program's own files."""
    assert named(choose, pattern, ".git/config", frozenset({".git"})) is matches


@pytest.mark.parametrize(
    "part",
    [
        pytest.param("*" + "a" * 123, id="a long repetition"),
        pytest.param("a*" * 62, id="many stars"),
        pytest.param("*" + "?a" * 61, id="question marks behind a star"),
        pytest.param("/".join(["a*", "**"] * 20) + "/", id="many folders"),
    ],
)
def test_no_pattern_takes_long(choose: ModuleType, part: str) -> None:
    """The worst patterns cost little more than as many plain names of the same length."""
    worst = [f"**/{part}b{number:02}" for number in range(64)]
    names = ["**/" + "a" * (len(each) - 3) for each in worst]
    assert least_cost(choose, worst) < 12 * least_cost(choose, names)


def least_cost(choose: ModuleType, patterns: list[str]) -> float:
    """Return the least processor time in which a long name, deep in folders, was compared."""
    compiled = choose.Patterns(patterns)
    places = compiled.start
    for _ in range(30):
        places = compiled.step(places, "a" * 255)
    costs = []
    for _ in range(5):
        begun = time.thread_time()
        compiled.step(places, "a" * 255)
        costs.append(time.thread_time() - begun)
    return min(costs)


def test_patterns_that_no_file_was_found_for_are_known(choose: ModuleType) -> None:
    """Each is reported."""
    patterns = choose.Patterns(["a", "*", "b"])
    assert patterns.first(patterns.step(patterns.start, "a")) == 0
    assert patterns.unmet() == ["b"]


@pytest.mark.parametrize(
    ("name", "within", "tools"),
    [
        (".git", (), True),
        ("node_modules", (), True),
        ("v", ("bin", "pyvenv.cfg"), True),
        ("out", ("bin",), False),
    ],
)
def test_a_tools_folder_is_known(
    choose: ModuleType, name: str, within: tuple[str, ...], tools: bool
) -> None:
    """It is recognised by its name, or by the marker of a virtual environment."""
    assert choose.made_by_tools(name, within) is tools


def test_the_files_that_come_first(choose: ModuleType, tmp_path: Path) -> None:
    """The order: by pattern, the program's own files, the top folder, the newest."""
    paths = {"a": 3, "b": 5, "d/c": 9, "package.json": 7}
    for path, at in paths.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
        os.utime(tmp_path / path, (at, at))
    ranked = sorted(paths, key=lambda path: choose.rank(path, (tmp_path / path).stat(), 0))
    assert ranked == ["b", "a", "d/c", "package.json"]
    stat = (tmp_path / "a").stat()
    assert choose.rank("package.json", stat, 0) < choose.rank("a", stat, 1)
