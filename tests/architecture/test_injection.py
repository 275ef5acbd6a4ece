"""SQL and HTML are never built from text. This reads the source, which no linter does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "runner").rglob("*.py")) + sorted((ROOT / "sdk").rglob("*.py"))

STATEMENTS = {"execute", "executemany", "exec_driver_sql", "copy", "text", "stream", "SQL"}
"""Functions and methods whose first argument is SQL."""
MARKUP = {"HTMLResponse", "Markup", "Template", "from_string"}
"""Functions that take text as markup, and functions that take text as a template."""


def calls(code: str, names: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a function or method of these names."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in names:
                yield name, node


def is_built(node: ast.expr, code: ast.AST) -> bool:  # noqa: PLR0911 - one case for each form
    """Return whether an expression builds text, here or where its name got a value."""
    match node:
        case ast.JoinedStr():
            return True
        case ast.BinOp(op=ast.Add() | ast.Mod(), left=left, right=right):
            return (
                any(map(_is_textual, (left, right)))
                or is_built(left, code)
                or is_built(right, code)
            )
        case ast.Call(
            func=ast.Attribute(attr="format" | "format_map" | "join" | "replace", value=value)
        ):
            return not _is_composition(value)
        case ast.Call(func=ast.Attribute(attr="encode", value=value)):
            return is_built(value, code)
        case ast.Name(id=name):
            return any(is_built(value, code) for value in _values(name, code) if value is not node)
        case ast.IfExp(body=body, orelse=orelse):
            return is_built(body, code) or is_built(orelse, code)
        case ast.Await(value=value) | ast.NamedExpr(value=value):
            return is_built(value, code)
    return False


def _is_textual(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _is_composition(node: ast.expr) -> bool:
    """Return whether it is `psycopg.sql`, which quotes what it composes."""
    if isinstance(node, ast.Call):
        return ast.unparse(node.func) in {"SQL", "sql.SQL", "psycopg.sql.SQL"}
    return False


def _values(name: str, code: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(code):
        match node:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                yield value
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if (
                found == name
            ):
                yield value
            case ast.AugAssign(target=ast.Name(id=found)) if found == name:
                yield ast.JoinedStr(values=[])


def built(code: str, names: set[str]) -> list[str]:
    """Return each call whose SQL or markup was built from text."""
    tree = ast.parse(code)
    return [
        ast.unparse(call)
        for _, call in calls(code, names)
        if any(
            is_built(given, tree)
            for given in [
                *call.args[:1],
                *(
                    k.value
                    for k in call.keywords
                    if k.arg in {"query", "statement", "content", "source"}
                ),
            ]
        )
    ]


@pytest.mark.parametrize("names", [STATEMENTS, MARKUP], ids=["SQL", "HTML"])
def test_nothing_is_built_from_text(names: set[str]) -> None:
    """Complete statements come from the query files, with parameters; pages from template files."""
    found = {str(path.relative_to(ROOT)): built(path.read_text(), names) for path in MODULES}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_statements_are_looked_at_at_all() -> None:
    seen = [name for path in MODULES for name, _ in calls(path.read_text(), STATEMENTS)]
    assert seen.count("execute") >= 5


def test_no_statement_file_runs_a_text_that_it_puts_together_itself() -> None:
    """In PL/pgSQL, `EXECUTE` of a text must be `format` with quoting specifiers."""
    for path in sorted((ROOT / "runner" / "store").rglob("*.sql")):
        for line in path.read_text().splitlines():
            code = line.partition("--")[0]
            if "EXECUTE " in code and not any(
                other in code
                for other in ("GRANT EXECUTE", "REVOKE", "EXECUTE FUNCTION", "EXECUTE ON")
            ):
                assert "format(" in code and "||" not in code, f"{path.name}: {line}"


@pytest.mark.parametrize(
    "code",
    [
        "tx.execute(f'SELECT {name}')",
        "tx.execute('SELECT ' + name)",
        "tx.execute('SELECT %s' % name)",
        "tx.execute('SELECT {}'.format(name))",
        "tx.execute(' '.join(['SELECT', name]))",
        "tx.execute('SELECT x'.replace('x', name))",
        "text(f'SELECT {name}')",
        "cursor.copy(f'COPY {name} TO STDOUT')",
        "tx.executemany(query=f'INSERT {name}')",
        "statement = f'SELECT {name}'\ntx.execute(statement)",
        "statement: str = 'SELECT ' + name\ntx.execute(statement)",
        "statement = 'SELECT '\nstatement += name\ntx.execute(statement)",
        "tx.execute('SELECT 1' if one else f'SELECT {name}')",
        "sql.SQL(f'SELECT {name}')",
        "tx.execute(f'SELECT {name}'.encode())",
        "await tx.execute(('SELECT ' + name) + ' LIMIT 1')",
    ],
)
def test_built_sql_is_seen(code: str) -> None:
    """Shown able to fail, for each way of building a statement."""
    assert built("async def run():\n    " + code.replace("\n", "\n    "), STATEMENTS)


@pytest.mark.parametrize(
    "code",
    [
        "tx.execute('SELECT %s', [name])",
        "tx.execute(QUERIES['executions.get'], values)",
        "tx.execute(sql.SQL('SELECT {}').format(sql.Identifier(name)))",
        "text('SELECT 1')",
    ],
)
def test_whole_and_composed_sql_is_let_be(code: str) -> None:
    assert built(code, STATEMENTS) == []


@pytest.mark.parametrize(
    "code",
    [
        "HTMLResponse(f'<p>{name}</p>')",
        "Markup('<p>' + name)",
        "HTMLResponse(content='<p>%s' % name)",
        "environment.from_string('<p>' + name)",
    ],
)
def test_built_html_is_seen(code: str) -> None:
    assert built(code, MARKUP)
