"""The way for MCP clients to log in: a document that names the identity provider, and its address.

The deployment is an OAuth resource server and nothing else: it sees no password, code or refresh
token. A client without a token gets 401 with the address of the document (RFC 9728 5.1). There it
learns which authorization server to ask for a token whose audience is `/mcp` (RFC 8707).
"""

from http import HTTPStatus
from urllib.parse import urlsplit

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.deps import Parts
from runner.api.edge.groups import MCP
from runner.api.edge.routing import TEMPLATE

WELL_KNOWN = "/.well-known/oauth-protected-resource"
NAME = "Agent Runner"

router = APIRouter()


# Not in the OpenAPI document: RFC 9728 describes them. Clients look for the second where they do
# not read the challenge.
@router.get(f"{WELL_KNOWN}{MCP}", include_in_schema=False)
@router.get(WELL_KNOWN, include_in_schema=False)
async def protected_resource(given: Parts) -> Response:
    """Return which authorization server issues tokens for `/mcp` (RFC 9728 3.2)."""
    return JSONResponse(
        {
            "resource": given.settings.mcp_resource,
            "resource_name": NAME,
            "authorization_servers": [given.settings.oidc_issuer],
            "bearer_methods_supported": ["header"],
        }
    )


class Challenge:
    """Tells whoever is refused at `/mcp` for want of a valid token where to get one."""

    def __init__(self, app: ASGIApp, resource: str) -> None:
        self._app = app
        address = urlsplit(resource)
        document = f"{address.scheme}://{address.netloc}{WELL_KNOWN}{address.path}"
        self._without = f'Bearer resource_metadata="{document}"'.encode()
        # RFC 6750 3.1: the code says that there was a token, and that another one is needed.
        self._invalid = self._without + b', error="invalid_token"'

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope[TEMPLATE] != MCP:
            await self._app(scope, receive, send)
            return
        came = b"authorization" in dict(scope["headers"])

        async def challenged(message: Message) -> None:
            start = message["type"] == "http.response.start"
            if start and message["status"] == HTTPStatus.UNAUTHORIZED:
                message["headers"] = [
                    *(
                        each
                        for each in message["headers"]
                        if each[0].lower() != b"www-authenticate"
                    ),
                    (b"www-authenticate", self._invalid if came else self._without),
                ]
            await send(message)

        await self._app(scope, receive, challenged)
