"""Which route a request is for: found once, and what every check in front of routes goes by.

A check that read the path by a pattern of its own would sooner or later read it differently from
the router: `$` also matches before a final newline (`%0A`), and a URL put together from `Host` and
path may have another path when it is taken apart again.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

TEMPLATE = "runner.template"
"""In the scope: the path of the request's route, with its parameters' names; "" if it has none."""
NO_ROUTE = ""
OPERATORS = "/operator/v1/"
PROTECTED = ("/v1/", OPERATORS)
"""Below these nobody is served without an identity, and nothing that has no route either."""


@dataclass(frozen=True, slots=True)
class _Row:
    pattern: re.Pattern[str]
    methods: frozenset[str]
    template: str


class Routing:
    """Names the route of each request, by the router's own patterns and in its order."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._rows = [
            _Row(route.path_regex, frozenset(route.methods or ()), route.path)
            for route in routes
            if isinstance(route, Route)
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope[TEMPLATE] = self.template(scope["method"], scope["path"])
        await self._app(scope, receive, send)

    def template(self, method: str, path: str) -> str:
        """Return the template of the route; of the first with another method if none has this."""
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
