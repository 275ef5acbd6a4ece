"""Protected paths need an identity before anything of a request is read."""

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from runner.api.edge.routing import Routing, is_protected

ROUTES = ("/v1/executions", "/operator/v1/tenants", "/mcp", "/run_code", "/healthz", "/sandboxes")
PROTECTED = (
    "/v1/executions", "/v1/none", "/operator/v1/none", "/mcp", "/mcp%0A", "/run_code",
    "/run_code%0A", "/sandboxes", "/sandboxes/x",
)  # fmt: skip
OPEN = (
    "/healthz", "/mcpx", "/mcp-docs", "/mcp/x", "/run_codes", "/run_code/x", "/v1x", "/operator",
    "/sandboxesx",
)  # fmt: skip


async def answer(request: Request) -> PlainTextResponse:
    """Answer whether the request was protected; without a route, too."""
    return PlainTextResponse(str(is_protected(request.scope)))


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an app with these routes behind the real routing."""
    routes = [Route(path, answer, methods=["POST"]) for path in ROUTES]
    app = Starlette(routes=[*routes, Route("/{rest:path}", answer, methods=["GET", "POST"])])
    transport = httpx.ASGITransport(app=Routing(app, routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", PROTECTED)
async def test_a_route_that_needs_an_identity_is_protected_as_the_router_reads_it(
    path: str, method: str, client: httpx.AsyncClient
) -> None:
    """By every method, even one that the route does not take, and before a final newline."""
    assert (await client.request(method, path)).text == "True"


@pytest.mark.parametrize("path", OPEN)
async def test_a_longer_name_is_another_path(path: str, client: httpx.AsyncClient) -> None:
    """Whoever asks for `/mcpx` learns that it does not exist, not that it needs a key."""
    assert (await client.post(path)).text == "False"
