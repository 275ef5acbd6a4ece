"""The SDK has a method for each route of a tenant."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute

import runner.api
from agent_runner import ApiError, Client
from tests.support.answering import Request, reply, served
from tests.unit.client.test_strangers import KEY, USES

NOT_OF_THE_SDK = {
    "HEAD /v1/files/{path:path}": "`list` tells the same",
    "GET /v1/sandboxes/{sandbox_id}/tcp/{port}": "`ports.forward`: tests/e2e/test_sdk.py",
    "GET /v1/sandboxes/{sandbox_id}/files/signed/content": "opened by an address, without a key",
    "PUT /v1/sandboxes/{sandbox_id}/files/signed/content": "opened by an address, without a key",
    "POST /v1/login": "people log in, not programs",
    "POST /v1/login/accept": "people's",
    "GET /v1/login": "people's",
    "GET /v1/login/oidc": "browsers sign in, not programs",
    "GET /v1/login/oidc/callback": "browsers'",
    "POST /v1/logout": "people's",
    "PUT /v1/me/password": "people's",
    "GET /v1/sessions": "people's",
    "DELETE /v1/sessions/{session_id}": "people's",
}
"""Routes of tenants that no method of the SDK asks for, and why."""


def tenants_routes() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield the name of each route of a tenant, and what matches requests for it."""
    for module in pkgutil.walk_packages(runner.api.__path__, "runner.api."):
        router = getattr(importlib.import_module(module.name), "router", None)
        for route in router.routes if isinstance(router, APIRouter) else ():
            if isinstance(route, APIRoute) and route.path.startswith("/v1/"):
                for method in route.methods or ():
                    yield (
                        f"{method} {route.path}",
                        re.compile(f"{method} {route.path_regex.pattern.removeprefix('^')}"),
                    )


def unreached(uses: Iterable[Callable[[Client], Any]]) -> set[str]:
    """Return the routes of tenants that none of these uses of a client asks for."""
    asked: set[str] = set()

    def answer(request: Request) -> None:
        asked.add(f"{request.command} {request.path.partition('?')[0]}")
        reply(request, 200, b"{}", "application/json")

    with served(answer) as url, Client(url, KEY) as api:
        for use in uses:
            with suppress(ApiError):
                use(api)
    return {
        name
        for name, pattern in tenants_routes()
        if not any(pattern.fullmatch(each) for each in asked)
    }


def test_the_sdk_does_what_the_api_does_for_a_tenant() -> None:
    """Whatever has no method is on the list, with the reason; the list holds nothing else."""
    assert unreached(USES.values()) == set(NOT_OF_THE_SDK)


def test_a_route_without_a_method_would_be_seen() -> None:
    uses = {name: use for name, use in USES.items() if name != "secrets"}
    assert unreached(uses.values()) - set(NOT_OF_THE_SDK) == {"GET /v1/secrets"}
