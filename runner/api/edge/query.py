"""Permits only query parameters that the request's route has, each of them once.

A route ignores parameters that it does not know. So a filter with a typing error would filter
nothing: the answer would hold everything, and nobody would notice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, get_args, get_origin

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.edge.groups import CALLBACK
from runner.api.edge.routing import TEMPLATE
from runner.api.problems import INVALID, MAX_FIELD_NAME, MAX_SHOWN_ERRORS, FieldProblem, problem

Known = Mapping[str, bool]
"""A route's query parameters by name, and whether each may be repeated."""
ADDED_TO = frozenset({CALLBACK})
"""Routes whose query a stranger writes: an identity provider adds what it likes, and what is not
known must be ignored (RFC 6749 4.1.2). Nothing may be there twice (RFC 6749 3.1)."""


class KnownQuery:
    """Refuses query parameters that the route does not have, and names those that it has."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._known = {
            (method, route.path): known(route)
            for route in routes
            if isinstance(route, Route)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the router itself answers one that has no route."""
        if scope["type"] == "http" and scope["query_string"]:
            has = self._known.get((scope["method"], scope[TEMPLATE]))
            # Read them as routes do, so that this sees exactly what a route would see.
            given = QueryParams(scope["query_string"])
            if has is not None and scope[TEMPLATE] in ADDED_TO:
                has = {**dict.fromkeys(given, False), **has}
            if has is not None and (wrong := faults(has, given)):
                names = ", ".join(each.field for each in wrong)
                refusal = problem(
                    Request(scope),
                    HTTPStatus.UNPROCESSABLE_ENTITY,
                    f"the request is not valid: {names}: {wrong[0].message}",
                    kind=INVALID,
                    fields=wrong,
                )
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def known(route: Route) -> Known:
    """Return the query parameters of a route; none if it is not FastAPI's."""
    if not isinstance(route, APIRoute):
        return {}
    return dict(_parameters(route.dependant))


def faults(has: Known, given: QueryParams) -> list[FieldProblem]:
    """Return what is wrong with the names of a request's query parameters."""
    listed = f"known here: {', '.join(sorted(has))}" if has else "this route has none"
    counted = Counter(name for name, _ in given.multi_items())
    messages = dict.fromkeys(counted.keys() - has.keys(), f"unknown query parameter; {listed}")
    messages |= {
        name: "give this parameter once"
        for name, count in counted.items()
        if count > 1 and has.get(name) is False
    }
    shown = sorted(messages)[:MAX_SHOWN_ERRORS]
    return [
        FieldProblem(field=f"query.{name}"[:MAX_FIELD_NAME], message=messages[name])
        for name in shown
    ]


def _parameters(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    for field in dependant.query_params:
        yield field.alias, _repeats(field.field_info.annotation)
    for dependency in dependant.dependencies:
        yield from _parameters(dependency)


def _repeats(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_repeats, get_args(annotation)))
