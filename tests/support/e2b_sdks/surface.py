"""Say what an SDK offers in public, as JSON: run in an environment that has it.

A line of the table is a method of a class. Methods of what a sandbox holds, such as its files, are
listed with the sandbox: that is how code names them. What adds steps to a template is no public
class: it is what `Template.from_image` returns.
"""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from typing import Any, get_type_hints

CLASSES = {
    "e2b": ("Sandbox", "AsyncSandbox", "Template", "AsyncTemplate", "Volume", "Secret"),
    "e2b_code_interpreter": ("Sandbox", "AsyncSandbox"),
}


def methods(of: Any) -> Iterator[tuple[str, Any]]:
    """Yield the public attributes of a class that are more than plain values."""
    for name, found in inspect.getmembers_static(of):
        if not name.startswith("_"):
            yield name, found


def offered(module: Any, name: str) -> Iterator[str]:
    """Yield the names of what a class offers, and of what its properties offer."""
    for each, found in methods(getattr(module, name)):
        yield f"{name}.{each}"
        if isinstance(found, property) and found.fget is not None:
            held = get_type_hints(found.fget).get("return")
            if inspect.isclass(held) and held.__module__.startswith("e2b."):
                yield from (f"{name}.{each}.{method}" for method, _ in methods(held))


def builder(module: Any) -> Iterator[str]:
    """Yield the names of what adds steps to a template."""
    adds = get_type_hints(module.Template.from_image)["return"]
    yield from (f"{adds.__name__}.{name}" for name, _ in methods(adds))


def surface(package: str) -> list[str]:
    """Return all names that a package offers; those of a base package are left out."""
    module = importlib.import_module(package)
    found = {
        each for name in CLASSES[package] if hasattr(module, name) for each in offered(module, name)
    }
    if package == "e2b":
        found |= set(builder(module))
    else:
        found -= set(surface("e2b"))
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(surface(sys.argv[1])))
