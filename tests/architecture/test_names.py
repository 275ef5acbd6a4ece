"""One word has one meaning, so every class has a name of its own."""

import ast
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

RUNNER = Path(__file__).resolve().parents[2] / "runner"
SHARED = """
Body By Claimed Connection Control Entry Finding Found Group Head Health Observation
Outside Pace Patience Place Removed Rule Sandbox Share Standing StoredKey Stream
"""
"""Names that several classes still have. This list may only become shorter."""


def shared(sources: Iterable[str]) -> set[str]:
    """Return the names that several public classes in these sources have."""
    names = Counter(
        node.name
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return {name for name, count in names.items() if count > 1}


def test_no_two_classes_have_one_name() -> None:
    assert shared(path.read_text() for path in RUNNER.rglob("*.py")) <= set(SHARED.split())


def test_a_shared_name_shows() -> None:
    """Private classes belong to their module."""
    sources = ("class Verdict: ...\nclass _Own: ...\n", "class Verdict: ...\nclass _Own: ...\n")
    assert shared(sources) == {"Verdict"}
