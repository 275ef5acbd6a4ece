"""MCP clients that log in at an identity provider: what leads there, and whose tokens count.

The protocol: modelcontextprotocol.io, specification 2026-07-28, basic/authorization.
"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey

from runner.api.edge.groups import MCP
from runner.api.mcp.oauth import WELL_KNOWN
from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.authorization import AuthorizationServer, Memory, logged_in
from tests.support.deployment import NO_POOL, Deployment, bearing
from tests.support.issuers import AUDIENCE, Provider, encode, hmac_signed, new_key, provider
from tests.support.mcp import over_http, said

TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ACCEPT = {"Accept": "application/json, text/event-stream"}
METADATA = f"{WELL_KNOWN}{MCP}"


@dataclass(frozen=True)
class Guarded:
    """A deployment whose `/mcp` takes tokens of an issuer, and that issuer."""

    deployment: Deployment
    issuer: Provider
    server: AuthorizationServer

    @property
    def resource(self) -> str:
        """The audience of tokens for `/mcp`."""
        return f"{self.deployment.url}{MCP}"

    def token(self, *, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """Return a token for `/mcp` that differs from a valid one in these claims."""
        claims = {"aud": self.resource, **claims}
        return self.issuer.token("EC", self.issuer.claims(**claims), header=header)

    def ask(self, token: str | None, path: str = MCP) -> httpx.Response:
        """Ask `/mcp` for its tools."""
        headers = {**ACCEPT, **({"Authorization": f"Bearer {token}"} if token else {})}
        return httpx.post(f"{self.deployment.url}{path}", json=TOOLS, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def guarded(image: None) -> Iterator[Guarded]:
    """Return a deployment that lets clients log in at an authorization server."""
    with provider() as issuer, socket.socket() as free:
        issuer.keys = {kind: new_key(kind, kind) for kind in ("RSA", "EC")}
        server = AuthorizationServer(issuer)
        server.attach()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        with deployments.deployment(
            port=port,
            oidc_issuer=issuer.url,
            oidc_audience=AUDIENCE,
            oidc_roles={"developer": Role.DEVELOPER, "viewer": Role.VIEWER},
            mcp_resource=f"http://127.0.0.1:{port}{MCP}",
            **NO_POOL,
        ) as made:
            made.key("o-acme")
            made.key("o-other")
            yield Guarded(made, issuer, server)


async def test_the_official_client_logs_in_by_itself(guarded: Guarded) -> None:
    """It has only the address: refused, it finds the provider, logs in, and comes back."""
    memory = Memory()
    async with logged_in(guarded.resource, memory) as client:
        names = {each.name for each in (await client.list_tools()).tools}
        ran = await client.call_tool("run_code", {"code": "print(6 * 7)", "language": "python"})
    assert "run_code" in names
    assert "42" in said(ran)
    assert memory.tokens is not None
    assert guarded.server.resources[-1] == guarded.resource, "the token is for this server alone"
    actors = guarded.deployment.sql(
        "SELECT actor FROM audit_events WHERE starts_with(action, 'execution:')"
    )
    assert {"actor": "user:oidc:ada"} in actors


def test_a_refusal_leads_to_the_document_and_that_to_the_provider(guarded: Guarded) -> None:
    """The address in the challenge is the one where the document is (RFC 9728 5.1)."""
    refused = guarded.ask(None)
    assert refused.status_code == 401
    challenge = refused.headers["www-authenticate"]
    found = re.fullmatch(r'Bearer resource_metadata="([^"]+)"', challenge)
    assert found, challenge
    assert found[1] == f"{guarded.deployment.url}{METADATA}"
    for address in (found[1], f"{guarded.deployment.url}{WELL_KNOWN}"):
        document = httpx.get(address, timeout=30).json()
        assert document["resource"] == guarded.resource
        assert document["authorization_servers"] == [guarded.issuer.url]
        assert document["bearer_methods_supported"] == ["header"]
    wrong = guarded.ask("eyJ0eXAiOiJKV1QifQ.e30.AAAA").headers["www-authenticate"]
    assert wrong == f'{challenge}, error="invalid_token"'
    elsewhere = httpx.get(f"{guarded.deployment.url}/v1/me", timeout=30)
    assert elsewhere.headers["www-authenticate"] == "Bearer"


def test_without_the_setting_nothing_leads_anywhere(shared: Deployment) -> None:
    assert httpx.get(f"{shared.url}{METADATA}", timeout=30).status_code == 404
    refused = httpx.post(f"{shared.url}{MCP}", json=TOOLS, headers=ACCEPT, timeout=30)
    assert refused.headers["www-authenticate"] == "Bearer"


async def test_a_key_works_as_before(guarded: Guarded) -> None:
    async with over_http(guarded.deployment, guarded.deployment.key("o-acme")) as client:
        assert (await client.list_tools()).tools


Wrong = Callable[[Guarded], str]


def _stranger(guarded: Guarded) -> str:
    with provider() as other:
        other.rotate("EC")
        return other.token("EC", other.claims(aud=guarded.resource))


def _public_key(guarded: Guarded) -> str:
    key = guarded.issuer.keys["RSA"]
    assert isinstance(key, RSAKey)
    claims = guarded.issuer.claims(aud=guarded.resource)
    return hmac_signed({"alg": "HS256", "kid": "RSA"}, claims, key.as_pem(private=False))


def _unsigned(guarded: Guarded) -> str:
    header = encode({"alg": "none", "kid": "EC"})
    return f"{header}.{encode(guarded.issuer.claims(aud=guarded.resource))}."


WRONG: dict[str, Wrong] = {
    "the API's audience": lambda g: g.token(aud=AUDIENCE),
    "another resource": lambda g: g.token(aud="https://elsewhere.example/mcp"),
    "the resource with a slash more": lambda g: g.token(aud=f"{g.resource}/"),
    "the whole host": lambda g: g.token(aud=g.deployment.url),
    "no audience": lambda g: g.token(aud=None),
    "another issuer": _stranger,
    "no signature": _unsigned,
    "HMAC with the public key": _public_key,
    "expired": lambda g: g.token(exp=int(time.time()) - 60),
    "not yet": lambda g: g.token(nbf=int(time.time()) + 3600),
    "a logout token": lambda g: g.token(header={"typ": "logout+jwt"}),
    "a token for DPoP": lambda g: g.token(cnf={"jkt": "0ZcOCORZNYy"}),
    "an unknown key": lambda g: g.token(header={"kid": "nobodys"}),
    "an unknown tenant": lambda g: g.token(tenant="no-such-tenant"),
    "no tenant": lambda g: g.token(tenant=None),
    "no role": lambda g: g.token(role=None),
}  # fmt: skip


@pytest.mark.parametrize("attack", WRONG)
def test_a_token_that_is_not_for_this_door_is_refused(guarded: Guarded, attack: str) -> None:
    """A valid one beside it passes, and differs only there."""
    refused = guarded.ask(WRONG[attack](guarded))
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert guarded.ask(guarded.token()).status_code == 200


@pytest.mark.parametrize(
    "harmless",
    [
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "application/at+jwt"}},
        {"header": {"typ": "JWT"}},
        {"role": ["viewer", "football"]},
    ],
    ids=str,
)
def test_what_is_harmless_passes(guarded: Guarded, harmless: dict[str, Any]) -> None:
    assert guarded.ask(guarded.token(**harmless)).status_code == 200


def test_a_token_for_tools_opens_nothing_else(guarded: Guarded) -> None:
    """Whoever took it from a client cannot call the API with it; the API's token can."""
    url = f"{guarded.deployment.url}/v1/me"

    def asked(token: str) -> int:
        return httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code

    assert asked(guarded.token()) == 401
    assert asked(guarded.token(aud=AUDIENCE)) == 200
    assert asked(guarded.token(aud=[AUDIENCE, guarded.resource])) == 200


def test_a_token_in_the_address_counts_for_nothing(guarded: Guarded) -> None:
    """Addresses end up in logs. The same token in the header passes."""
    token = guarded.token()
    for name in ("access_token", "token"):
        assert guarded.ask(None, f"{MCP}?{name}={token}").status_code == 401
    assert guarded.ask(token).status_code == 200


def test_one_tenants_token_reaches_nothing_of_another(guarded: Guarded) -> None:
    """The tenant is the one that the token names, whatever ids a call contains."""
    with bearing(guarded.deployment.url, guarded.deployment.key("o-other")) as theirs:
        made = theirs.post("/v1/sandboxes", json={"size": "small"})
        assert made.status_code == 201, made.text
        id_ = made.json()["id"]
    call = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "run_command", "arguments": {"sandbox_id": id_, "command": "echo in"}},
    }  # fmt: skip

    def ran(tenant: str) -> str:
        headers = {**ACCEPT, "Authorization": f"Bearer {guarded.token(tenant=tenant)}"}
        return httpx.post(guarded.resource, json=call, headers=headers, timeout=60).text

    assert "no such sandbox" in ran("o-acme")
    assert "exit code: 0" in ran("o-other")
