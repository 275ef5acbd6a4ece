"""No module imports itself through others, not even for types."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

import grimp


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


def test_a_circle_shows() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
