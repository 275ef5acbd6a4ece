"""Callers by E2B's interface: an API key of ours in their form, or a sandbox's token.

A key counts only on the control plane, and a token only inside the sandbox that it names. E2B's
clients send no other token to a sandbox's contexts than that for its ports.
"""

from dataclasses import dataclass
from uuid import UUID

from fastapi import Request

from runner.api.context import origin
from runner.api.e2b.paths import ACCESS_TOKEN, TRAFFIC_TOKEN, Part, is_context, signature_of
from runner.api.e2b.shape import SANDBOX, named
from runner.api.edge.doubt import DOUBT
from runner.api.traffic.destination import PortTarget
from runner.auth.identity import of_key
from runner.auth.keys import from_e2b_form
from runner.auth.sandbox_tokens import ANSWER as TOKEN_ANSWER
from runner.auth.sandbox_tokens import UNSIGNED, SandboxTokens, SignedAddress, Use
from runner.store.db import Database
from runner.words.errors import NotAuthenticated
from runner.words.principal import Principal

READING = frozenset({"GET", "HEAD"})
PORT_ANSWER = f"a valid token of this sandbox is needed: `{TRAFFIC_TOKEN}`"
KEY_ANSWER = "a valid API key in E2B's form is needed: `X-API-KEY: e2b_…`"


@dataclass(frozen=True, slots=True)
class E2bCallers:
    """Finds out who calls."""

    database: Database
    tokens: SandboxTokens

    async def of(
        self, request: Request, part: Part | None, port: PortTarget | None = None
    ) -> Principal:
        """Return who calls a part of E2B's interface, or a port with a token in their header.

        Raises NotAuthenticated, KeyUnavailable and StoreUnavailable.
        """
        recorded = DOUBT not in request.scope
        if port is not None:
            return await self._at_port(request, port.sandbox_id, recorded=recorded)
        if part is Part.CONTROL:
            token = from_e2b_form(request.headers.get("x-api-key", ""))
            return await of_key(
                self.database,
                token or "",
                origin(request),
                recorded=recorded,
                answer=KEY_ANSWER,
            )
        use = Use.INSIDE
        token = request.headers.get(ACCESS_TOKEN)
        if token is None and is_context(request.scope["path"]):
            use = Use.TRAFFIC
            token = request.headers.get(TRAFFIC_TOKEN)
        if token is not None:
            acting = await self.tokens.authenticate(token, origin(request), use, recorded=recorded)
        elif (address := signed(request)) is not None:
            acting = await self.tokens.find(
                address, _named(request), origin(request), recorded=recorded
            )
        else:
            raise NotAuthenticated(TOKEN_ANSWER)
        request.scope[SANDBOX] = acting
        return acting.principal

    async def _at_port(self, request: Request, sandbox_id: UUID, *, recorded: bool) -> Principal:
        token = request.headers.get(TRAFFIC_TOKEN, "")
        acting = await self.tokens.authenticate(
            token, origin(request), Use.TRAFFIC, recorded=recorded
        )
        if acting.sandbox_id != sandbox_id:
            raise NotAuthenticated(PORT_ANSWER)
        return acting.principal


def signed(request: Request) -> SignedAddress | None:
    """Return the signed address of a request for a file; None if it is not signed."""
    if (query := signature_of(request.scope)) is None:
        return None
    return SignedAddress(
        path=query.get("path", ""),
        operation="read" if request.method in READING else "write",
        user=query.get("username", ""),
        expires=query.get("signature_expiration"),
        signature=query["signature"],
    )


def _named(request: Request) -> UUID | None:
    """Return the sandbox that a request names. Raises NotAuthenticated if it is no id."""
    text = named(request)
    try:
        return UUID(text) if text else None
    except ValueError:
        raise NotAuthenticated(UNSIGNED) from None
