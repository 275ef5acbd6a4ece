"""Which route a request is for, and what body it has: settled once, by the head.

Every check in front of routes goes by that.

A check that read the path by a pattern of its own would sooner or later read it differently from
the router: `$` also matches before a final newline (`%0A`), and a URL put together from `Host` and
path may have another path when it is taken apart again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

TEMPLATE = "runner.template"
"""In the scope: the path of the request's route, with its parameters' names; "" if it has none."""
NO_ROUTE = ""
BODY = "runner.body"
"""In the scope: what body the request has."""
OPERATORS = "/operator/v1/"
PROTECTED = ("/v1/", OPERATORS)
"""Below these nobody is served without an identity, and nothing that has no route either."""


_NAMED = re.compile(r"\(\?P<\w+>")
"""The beginning of a named group: the names of parameters are many routes' own."""


class Body(Enum):
    """What body a request has."""

    NONE = auto()
    JSON = auto()
    STREAMED = auto()
    """Bytes of any type that a route takes as they come: nothing may parse or hold them."""


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: re.Pattern[str]
    methods: frozenset[str]
    template: str


class Routing:
    """Names the route of each request, by the router's own patterns and in its order.

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
        # All of them in one pattern: to try sixty one by one takes a tenth of a millisecond.
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
        """Return the template of the route; of the first with another method if none has this."""
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
    """Return whether the request needs an identity before anything else of it is looked at."""
    path: str = scope["path"]
    return path.startswith(PROTECTED)


def declared_length(scope: Scope) -> int | None:
    """Return how long the body is by its head; None if only its end will tell."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return None
    # The server refuses a length that is not a number of at most 20 digits.
    return int(headers.get(b"content-length", b"0"))
