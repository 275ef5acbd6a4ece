"""Which headers of requests a source reads, found in its syntax, by whatever name it calls them."""

import ast
import re
from collections.abc import Iterator, Mapping

HEADERS = frozenset({"request.headers", "scope['headers']", "self.headers"})
"""What stands for a request's headers in any function."""
_PARAMETER = re.compile(r"(?!Annotated|Callable).*\b(Raw)?Headers?\b")
"""The type of a parameter that is headers; it is not a header that a route takes."""
_VIEWS = frozenset({"dict", "list", "Headers"})
_READS = frozenset({"get", "getlist", "pop"})


class Unnamed(Exception):
    """A source reads headers in a way that this cannot follow."""


def read_in(
    source: str, module: Mapping[str, object], unnamed: frozenset[str] = frozenset()
) -> set[bytes]:
    """Return the names of all headers that a source reads, in lower case.

    `module` holds what the source's names stand for. Raises Unnamed for a header that the source
    asks for by anything but a constant, unless by one of the expressions `unnamed`.
    """
    found: set[bytes] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for name in _asked_for(node):
                if (text := ast.unparse(name)) not in unnamed:
                    found |= _named(text, module)
    return found


def _named(text: str, module: Mapping[str, object]) -> set[bytes]:
    try:
        value = eval(text, dict(module))  # noqa: S307 - an expression of our own source
    except NameError as error:
        raise Unnamed(
            f"a header is read by `{text}`: name it by a constant of the module"
        ) from error
    values = value if isinstance(value, set | frozenset | tuple) else {value}
    return {(each if isinstance(each, bytes) else each.encode()).lower() for each in values}


def _asked_for(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """Yield each expression by which a function picks a header."""
    known = _headers_in(function)
    iterated = _names_of_headers(function, known)
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Attribute(value=whose, attr=attr), args=[name, *_]):
                if attr in _READS and _are_headers(whose, known):
                    yield name
            case ast.Subscript(value=whose, slice=name, ctx=ast.Load()):
                if _are_headers(whose, known):
                    yield name
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                if isinstance(op, ast.In | ast.NotIn) and _are_headers(right, known):
                    yield left
                elif not isinstance(op, ast.NotIn):
                    # What one name after another is compared with; `not in` only passes on others.
                    sides = ((left, right), (right, left))
                    yield from (other for side, other in sides if ast.unparse(side) in iterated)


def _headers_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Return what stands for a request's headers in a function: parameters and variables, too."""
    known = set(HEADERS)
    for each in (*function.args.args, *function.args.kwonlyargs):
        annotation = ast.unparse(each.annotation) if each.annotation else ""
        if _PARAMETER.match(annotation):
            known.add(each.arg)
    for node in ast.walk(function):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                if _are_headers(value, known):
                    known.add(name)
            case ast.Assign(targets=[ast.Attribute() as kept], value=value):
                if _are_headers(value, known):
                    raise Unnamed(f"`{ast.unparse(kept)}` keeps headers: this cannot follow them")
    return known


def _names_of_headers(
    function: ast.FunctionDef | ast.AsyncFunctionDef, known: set[str]
) -> set[str]:
    """Return the variables that hold the name of one header after another."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.For | ast.comprehension) and _are_headers(node.iter, known):
            target = node.target.elts[0] if isinstance(node.target, ast.Tuple) else node.target
            found.add(ast.unparse(target))
    return found


def _are_headers(node: ast.expr, known: set[str]) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="Headers")):
            return True
        case ast.Call(func=ast.Name(id=name), args=[of]) if name in _VIEWS:
            return _are_headers(of, known)
        case ast.Call(func=ast.Attribute(value=of, attr="items")) | ast.NamedExpr(value=of):
            return _are_headers(of, known)
    return ast.unparse(node) in known
