"""Every package says which modules it has and what they are for, and leaves none out."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(
    path.parent
    for source in (ROOT / "runner", ROOT / "sdk" / "python" / "src")
    for path in source.rglob("__init__.py")
)
ROW = re.compile(r"^(?: {4})?([a-z_][a-z0-9_]*(?: · [a-z_][a-z0-9_]*)*) {2,}\S", re.MULTILINE)


def mapped(package: Path) -> list[str]:
    """Return the names that the package's map lists."""
    document = ast.get_docstring(ast.parse((package / "__init__.py").read_text()), clean=False)
    return [name for row in ROW.findall(document or "") for name in row.split(" · ")]


def there(package: Path) -> Iterator[str]:
    """Yield the names of the modules and packages that exist."""
    for path in package.iterdir():
        if path.suffix == ".py" and not path.name.startswith("__"):
            yield path.stem
        elif (path / "__init__.py").exists():
            yield path.name


def wrong(package: Path) -> str:
    """Return what is wrong with a package's map; empty if nothing is."""
    listed, found = mapped(package), set(there(package))
    twice = {name for name in listed if listed.count(name) > 1}
    problems = {
        "not listed": found - set(listed),
        "not there": set(listed) - found,
        "listed twice": twice,
    }
    return "; ".join(f"{what}: {', '.join(sorted(who))}" for what, who in problems.items() if who)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_lists_what_is_in_it(package: Path) -> None:
    assert wrong(package) == ""


def test_a_map_that_is_not_true_shows(tmp_path: Path) -> None:
    """A module is left out, has gone, or is listed twice, or there is no map."""
    (tmp_path / "one.py").touch()
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    for rows, problem in (
        (("one   the first", "room  a room"), ""),
        (("one · room  both",), ""),
        (("one   the first",), "not listed: room"),
        (("one   the first", "room  a room", "two   gone"), "not there: two"),
        (("one   the first", "room  a room", "one   again"), "listed twice: one"),
        ((), "not listed: one, room"),
    ):
        lines = "\n".join(f"    {row}" for row in rows)
        (tmp_path / "__init__.py").write_text(f'"""A package.\n\n{lines}\n"""\n')
        assert wrong(tmp_path) == problem
