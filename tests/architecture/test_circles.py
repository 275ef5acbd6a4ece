"""No module imports itself through others, not even for types."""

import ast
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

INSIDE = Path(__file__).resolve().parents[2] / "sandbox_images"


def circle(imports: Mapping[str, set[str]]) -> list[str]:
    """Return modules that import one another in a circle; empty if there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def test_there_is_no_circle_of_imports() -> None:
    graph = grimp.build_graph("runner", "agent_runner", cache_dir=None)
    imports = {name: set(graph.find_modules_directly_imported_by(name)) for name in graph.modules}
    assert len(imports) > 200
    assert circle(imports) == []


@pytest.mark.parametrize("folder", ["supervisor", "contexts"])
def test_there_is_no_circle_inside_a_sandbox(folder: str) -> None:
    """There, modules lie beside each other, in no package."""
    modules = {each.stem: ast.parse(each.read_text()) for each in (INSIDE / folder).glob("*.py")}
    imports = {name: imported(tree) & modules.keys() for name, tree in modules.items()}
    assert any(imports.values()), "the control: imports are seen"
    assert circle(imports) == []


def imported(tree: ast.Module) -> set[str]:
    """Return the names of all modules that a module imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


def test_a_circle_shows() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
