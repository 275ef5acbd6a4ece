"""The route of a request, and its body: decided once, by the head.

All checks before the routes use this decision.

A check with a pattern of its own would sooner or later read a path differently from the router: `$`
also matches before a final newline (`%0A`), and a URL that is made from `Host` and path may have
another path when it is parsed again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.e2b.paths import part_of
from runner.api.edge.groups import MCP, RUN_CODE
from runner.api.librechat import paths as librechat

TEMPLATE = "runner.template"
"""Key in the ASGI scope: the template of the request's route; "" if it has none."""
NO_ROUTE = ""
BODY = "runner.body"
"""Key in the ASGI scope: what kind of body the request has."""
OPERATORS = "/operator/v1/"
PROTECTED = ("/v1/", OPERATORS, librechat.PREFIX)
"""Paths below which every request needs an identity, even one that has no route; and E2B's."""
PROTECTED_ROUTES = frozenset({MCP, RUN_CODE})
"""Templates of routes elsewhere that need one too; a longer path is none of them."""

_NAMED = re.compile(r"\(\?P<\w+>")
"""The start of a named group; many routes have parameters of the same name."""


class Body(Enum):
    """The kinds of a request's body."""

    NONE = auto()
    JSON = auto()
    STREAMED = auto()
    """Bytes of any type that a route streams: nothing may parse or hold them."""


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: re.Pattern[str]
    methods: frozenset[str]
    template: str


class Routing:
    """Finds the route of each request, by the router's own patterns and in its order.

    `streamed` are the routes, by method and template, whose bodies are streamed.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: Iterable[BaseRoute],
        streamed: frozenset[tuple[str, str]] = frozenset(),
    ) -> None:
        self._app = app
        self._streamed = streamed
        self._rows = [
            _Row(route.path_regex, frozenset(route.methods or ()), route.path)
            for route in routes
            if isinstance(route, Route)
        ]
        # All of them in one pattern: trying sixty one by one takes a tenth of a millisecond.
        self._first = re.compile(
            "|".join(
                f"(?P<row_{n}>{_NAMED.sub('(?:', row.pattern.pattern)})"
                for n, row in enumerate(self._rows)
            )
            or r"(?!)"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope[TEMPLATE] = self.template(scope["method"], scope["path"])
            scope[BODY] = self._body(scope)
        await self._app(scope, receive, send)

    def _body(self, scope: Scope) -> Body:
        if (scope["method"], scope[TEMPLATE]) in self._streamed:
            return Body.STREAMED
        return Body.NONE if declared_length(scope) == 0 else Body.JSON

    def template(self, method: str, path: str) -> str:
        """Return the route's template; if none has this method, that of the first matching path."""
        found = self._first.match(path)
        if found is None or found.lastgroup is None:
            return NO_ROUTE
        first = self._rows[int(found.lastgroup.removeprefix("row_"))]
        if method in first.methods:
            return first.template
        other = NO_ROUTE
        for row in self._rows:
            if row.pattern.match(path):
                if method in row.methods:
                    return row.template
                other = other or row.template
        return other


def is_protected(scope: Scope) -> bool:
    """Return whether the request needs an identity before anything else of it is read."""
    path: str = scope["path"]
    return (
        path.startswith(PROTECTED)
        or scope[TEMPLATE] in PROTECTED_ROUTES
        or part_of(path) is not None
    )


def declared_length(scope: Scope) -> int | None:
    """Return the body's declared length, or None if it is not declared."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return None
    # The server refuses a length that is not a number of at most 20 digits.
    return int(headers.get(b"content-length", b"0"))
