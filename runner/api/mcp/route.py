"""`/mcp`: the HTTP route, which loads the SDK when the first request comes."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from fastapi import APIRouter, HTTPException, Request, Response

from runner.api.context import caller
from runner.api.deps import Parts
from runner.api.edge.groups import MCP
from runner.api.edge.routing import declared_length
from runner.api.mcp.arguments import MAX_REQUEST
from runner.api.mcp.tool import ToolCall
from runner.auth.identity import ANSWER
from runner.auth.rights import HELD, Held
from runner.words.errors import NotAuthenticated, NotPermitted

FROM_ELSEWHERE = (
    "a page in a browser may call this only from an origin that the operator permits "
    "(RUNNER_CORS_ORIGINS)"
)
TOO_LARGE = (
    f"a request to {MCP} has at most {MAX_REQUEST // 2**20} MiB: write larger files by "
    "`PUT /v1/sandboxes/{id}/files/content`"
)

router = APIRouter()


# Not in the OpenAPI document: what it takes and answers is JSON-RPC, described by the protocol.
@router.post(MCP, status_code=HTTPStatus.OK, include_in_schema=False)
async def mcp(request: Request, parts: Parts) -> Response:
    """Answer one request of the Model Context Protocol.

    Raises NotAuthenticated, HTTPException for a body that is too large, and NotPermitted for a page
    from another origin: its name may have been made to point here (DNS rebinding), so `Host` proves
    nothing.
    """
    held = request.scope.get(HELD)
    if not isinstance(held, Held):
        raise NotAuthenticated(ANSWER)
    page = request.headers.get("origin")
    if page is not None and page not in parts.settings.cors_origins:
        raise NotPermitted(FROM_ELSEWHERE)
    if (declared_length(request.scope) or 0) > MAX_REQUEST:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    call = ToolCall(request, parts, caller(request, held.principal))
    # Loading takes most of a second once, in which the loop goes on.
    answer = await asyncio.to_thread(_sdk)
    return answer(call)


def _sdk() -> Callable[[ToolCall], Response]:
    """Return what answers; the SDK takes 20 MiB from the first call on."""
    from runner.api.mcp.server import McpAnswer

    return McpAnswer
