"""An OAuth authorization server over a provider, and a client that logs in without a browser.

It does what the protocol's clients need: registration (RFC 7591), codes with PKCE (RFC 7636), and
tokens whose audience is the resource that was asked for (RFC 8707). Everybody is let in as `ada`.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from tests.support.issuers import Answer, Provider

BACK = "http://127.0.0.1:9/back"
"""The address to which a browser would be sent after the login; nothing needs to answer there."""


@dataclass
class AuthorizationServer:
    """Answers for a provider, and notes which resources tokens were asked for."""

    provider: Provider
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    resources: list[str] = field(default_factory=list)

    def attach(self) -> None:
        """Make the provider an authorization server."""
        url = self.provider.url
        self.provider.says = {
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "registration_endpoint": f"{url}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }
        self.provider.more = self.answer

    def answer(self, method: str, path: str, body: bytes) -> Answer | None:
        """Answer one request."""
        asked = urlsplit(path)
        match method, asked.path:
            case "POST", "/register":
                made = {**json.loads(body), "client_id": "a-client"}
                return 201, {}, json.dumps(made).encode()
            case "GET", "/authorize":
                return self._authorize(dict(parse_qsl(asked.query)))
            case "POST", "/token":
                return self._token(dict(parse_qsl(body.decode())))
            case _:
                return 404, {}, b""

    def _authorize(self, asked: dict[str, str]) -> Answer:
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        back = urlencode({"code": code, "state": asked["state"]})
        return 302, {"Location": f"{asked['redirect_uri']}?{back}"}, b""

    def _token(self, asked: dict[str, str]) -> Answer:
        granted = self.codes.pop(asked["code"])
        digest = hashlib.sha256(asked["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (challenge, asked["resource"]) != (granted["code_challenge"], granted["resource"]):
            return 400, {}, b'{"error": "invalid_grant"}'
        self.resources.append(asked["resource"])
        claims = self.provider.claims(aud=asked["resource"])
        token = self.provider.token("EC", claims, header={"typ": "at+jwt"})
        given = {"access_token": token, "token_type": "Bearer", "expires_in": 300}
        return 200, {}, json.dumps(given).encode()


@dataclass
class Memory:
    """The memory of a client: its registration and its tokens."""

    tokens: OAuthToken | None = None
    registered: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        """Return the tokens."""
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        """Keep the tokens."""
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        """Return the registration."""
        return self.registered

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Keep the registration."""
        self.registered = client_info


@asynccontextmanager
async def logged_in(url: str, memory: Memory, **options: Any) -> AsyncIterator[Client]:
    """Yield the official client, which logs in by itself when `url` refuses it."""
    arrived: dict[str, str] = {}

    async def visit(address: str) -> None:
        async with httpx2.AsyncClient(follow_redirects=False) as browser:
            answer = await browser.get(address)
        found = parse_qs(urlsplit(answer.headers["location"]).query)
        arrived.update({name: values[0] for name, values in found.items()})

    async def back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=arrived["code"], state=arrived["state"])

    login = OAuthClientProvider(
        server_url=url,
        client_metadata=OAuthClientMetadata(
            redirect_uris=[AnyUrl(BACK)],
            client_name="test",
            token_endpoint_auth_method="none",  # noqa: S106 - no password
        ),
        storage=memory,
        redirect_handler=visit,
        callback_handler=back,
    )
    async with (
        httpx2.AsyncClient(auth=login, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), cache=None, **options) as client,
    ):
        yield client
