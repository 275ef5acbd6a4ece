"""E2B's routes, from the routers themselves, so that tests cover new routes, too."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute

from runner.api.e2b import unsupported
from runner.api.e2b.paths import Part, part_of
from runner.api.e2b.routes import routers
from tests.support.routes import UNKNOWN_ID

BODIES: Mapping[str, Any] = {
    "POST /sandboxes": {"templateID": "nobodys"},
    "POST /v2/sandboxes": {"templateID": "nobodys"},
    "POST /sandboxes/{sandbox_id}/timeout": {"timeout": 60},
    "POST /templates/tags": {"target": "nobodys", "tags": ["v1"]},
    "DELETE /templates/tags": {"name": "nobodys", "tags": ["v1"]},
    "POST /v3/templates": {"name": "nobodys"},
    "POST /v2/templates/{template_id}/builds/{build_id}": {"fromImage": "e2bdev/base"},
}
"""Fields that a route needs in its body; the others take an empty object, or refuse it later."""
QUERIES: Mapping[str, Mapping[str, str]] = {
    "GET /sandboxes/metrics": {"sandbox_ids": UNKNOWN_ID},
}


@dataclass(frozen=True)
class TheirRoute:
    """One method of one of E2B's paths."""

    method: str
    route: APIRoute

    @property
    def name(self) -> str:
        """The route's name in tables."""
        return f"{self.method} {self.route.path}"

    @property
    def part(self) -> Part | None:
        """The part of E2B's interface that it belongs to."""
        return part_of(self.route.path)

    @property
    def names(self) -> list[str]:
        """The names of the path's parameters."""
        return list(self.route.param_convertors)

    def send(self, client: httpx.Client, **values: str) -> httpx.Response:
        """Send it with these values for the path's parameters, and unknown ones for the others."""
        path = self.route.path_format
        for name in self.names:
            unknown = {"context": "1", "files_hash": "0" * 64}.get(name, UNKNOWN_ID)
            path = path.replace(f"{{{name}}}", values.get(name, unknown))
        query = QUERIES.get(self.name)
        if self.method == "GET":
            return client.get(path, params=query)
        return client.request(self.method, path, params=query, json=BODIES.get(self.name, {}))


def all_routes() -> Iterator[TheirRoute]:
    """Yield every route of E2B's interface."""
    for router in routers():
        for route in router.routes:
            assert isinstance(route, APIRoute)
            for method in sorted(route.methods or ()):
                yield TheirRoute(method, route)


def supported() -> list[TheirRoute]:
    """Return the routes that do something."""
    refused = unsupported.router.routes
    return [each for each in all_routes() if each.route not in refused]


def document() -> dict[str, Any]:
    """Return an OpenAPI document of E2B's routes, which the deployment's own leaves out."""
    app = FastAPI()
    for router in routers():
        app.include_router(router)
    return app.openapi()
