"""Every statement gets exactly the values that it names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from runner.store.transaction import query

ROOT = Path(__file__).resolve().parents[2] / "runner"
CALLS = {"one", "all", "run", "later", "afterwards"}
VALUE = re.compile(r"%\((\w+)\)[sbt]")


def calls() -> Iterator[tuple[str, str, set[str]]]:
    """Yield (place, query, values) of each call that lists all of its values."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            if node.func.attr not in CALLS or len(node.args) != 1:
                continue
            name = node.args[0]
            if not (isinstance(name, ast.Constant) and re.fullmatch(r"\w+\.\w+", str(name.value))):
                continue
            given = {keyword.arg for keyword in node.keywords}
            if None not in given:  # skip `**values`, which tests of the store must cover
                yield f"{path.name}:{node.lineno}", str(name.value), {str(each) for each in given}


def test_a_call_gives_a_statement_just_the_values_that_it_names() -> None:
    found = list(calls())
    assert len(found) > 100
    wrong = [
        (place, name, given ^ set(VALUE.findall(query(name))))
        for place, name, given in found
        if given != set(VALUE.findall(query(name)))
    ]
    assert wrong == []
