"""Routes that the API's own document leaves out, because others describe them.

E2B's, LibreChat's, SandboxFusion's, and `/mcp`. They come from the application itself, so that
tests cover new routes, too. Each interface has errors of its own shape.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from runner.api.app import create_app
from runner.api.deps import Dependencies
from runner.api.e2b.paths import Part, is_call, part_of
from runner.api.edge.groups import MCP, RUN_CODE
from runner.api.edge.routing import Routing
from runner.api.librechat import paths as librechat
from runner.base.settings import LIBRECHAT, Settings
from tests.support.routes import UNKNOWN_ID

IMAGES = ("python", "base", LIBRECHAT)
EVERY: Mapping[str, Any] = {"images": IMAGES, "librechat": True, "sandbox_fusion": True}
"""Settings with which a deployment offers every interface."""
PROBLEM = "application/problem+json"
JSON = "application/json"
GONE_KEYS = {"sandboxId", "message", "code"}


class _Unopened:
    """Parts of an application that serves nothing, which needs only the settings."""

    settings = Settings(node="readers", **EVERY)
    operators = True

    def __getattr__(self, name: str) -> None:
        return None


def unserved() -> FastAPI:
    """Return the complete application, with every interface, without any services."""
    return create_app(cast("Dependencies", _Unopened()))


@dataclass(frozen=True)
class Hidden:
    """One method of one path that the document leaves out."""

    method: str
    template: str

    @property
    def name(self) -> str:
        """The route's name in reports."""
        return f"{self.method} {self.template}"

    @property
    def path(self) -> str:
        """Its path, with an id in place of each parameter."""
        return re.sub(r"\{\w+(:\w+)?\}", UNKNOWN_ID, self.template)

    def is_own_error(self, status: int, media_type: str, body: bytes) -> bool:
        """Return whether an answer is an error in the shape of the route's interface."""
        chat, theirs = librechat.is_theirs(self.template), part_of(self.template)
        if not chat and theirs is None:
            return media_type == PROBLEM and json.loads(body)["status"] == status
        if media_type != JSON:
            return False
        told = json.loads(body)
        if chat:
            return set(told) == {"error", "details"}
        if theirs is Part.INSIDE and set(told) == GONE_KEYS:
            return bool(told["code"] == status)
        code = told.get("code")
        named = isinstance(code, str) if is_call(self.template) else code == status
        return set(told) == {"code", "message"} and bool(named)


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Return every route of the application, in the router's order."""
    (checked,) = (each for each in app.user_middleware if each.cls is Routing)  # type: ignore[comparison-overlap]
    given = cast("list[BaseRoute]", checked.kwargs["routes"])
    return [each for each in given if isinstance(each, APIRoute)]


def streamed_of(app: FastAPI) -> frozenset[tuple[str, str]]:
    """Return the routes, by method and template, whose bodies nothing parses before them."""
    (checked,) = (each for each in app.user_middleware if each.cls is Routing)  # type: ignore[comparison-overlap]
    return cast("frozenset[tuple[str, str]]", checked.kwargs["streamed"])


def hidden(app: FastAPI) -> Iterator[Hidden]:
    """Yield every route of an interface that the application's document leaves out."""
    for route in routes_of(app):
        theirs = part_of(route.path) is not None or librechat.is_theirs(route.path)
        if theirs or route.path in {MCP, RUN_CODE}:
            for method in sorted(route.methods or ()):
                yield Hidden(method, route.path)
