"""Tests that pages name, and whether anybody has written them."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")


def missing(page: str) -> list[str]:
    """Return the tests that a page names and that do not exist."""
    return [
        f"{path}::{name}" for path, name in NAMED.findall(page) if name not in written(ROOT / path)
    ]


@cache
def written(path: Path) -> frozenset[str]:
    """Return the names of a module's functions."""
    if not path.exists():
        return frozenset()
    found = ast.parse(path.read_text()).body
    return frozenset(
        each.name for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    )
