"""Callers: by a key, an identity provider's token, a session's cookie, or a signed address.

Users and operators have sessions of their own, with cookies of their own: neither is read where the
other's belongs.

The header is checked before the cookie: browsers send cookies by themselves, but never that header.
A change by cookie must come from our own pages: `Sec-Fetch-Site` and `Origin` must say so if the
browser sends them, and `X-CSRF-Token` must be that of the session. A WebSocket makes changes by a
GET request, to which a page can add no header; but browsers always send `Origin` with it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from fastapi import Request, Response

from runner.api.context import origin
from runner.api.e2b.callers import E2bCallers
from runner.api.e2b.paths import TRAFFIC_TOKEN, part_of
from runner.api.edge.doubt import DOUBT
from runner.api.edge.groups import CALLBACK, MCP, RUN_CODE, SIGN_IN, SIGNED
from runner.api.edge.routing import OPERATORS, TEMPLATE
from runner.api.edge.sockets import SOCKET
from runner.api.librechat import paths as librechat
from runner.api.traffic.destination import DESTINATION
from runner.auth import oidc, operating, sessions
from runner.auth.identity import (
    ANSWER,
    OPERATORS_ANSWER,
    authenticate,
    authenticate_operator,
    of_basic,
)
from runner.auth.oidc import Issuer
from runner.auth.sessions import Lifetime, SessionId
from runner.sandboxes.addresses import FileAddresses, FileOperation
from runner.store.db import Database
from runner.words.errors import NotAuthenticated, NotFound, NotPermitted
from runner.words.principal import Operator, Principal

OPEN = frozenset({"/v1/login", "/v1/login/accept"})
"""Routes that strangers may call in order to log in."""
BY_LINK = frozenset({SIGN_IN, CALLBACK})
"""Routes that strangers may call in order to log in, and to which other sites may send them. They
protect themselves: what they do is bound to a cookie of the same browser."""
SESSION = "runner.session"
ADDRESSED = "runner.addressed"
"""Key in the ASGI scope: the file of a request that came by a signed address."""
OPERATIONS = {"GET": FileOperation.READ, "PUT": FileOperation.WRITE}
CSRF_HEADER = "x-csrf-token"
UNATTENDED = "x-runner-unattended"
"""A page sends this header with what it asks by itself while nobody is at it: that is no use of the
session."""
TENANT_HEADER = "x-runner-tenant"
"""The name of the tenant in which somebody acts whose token does not say it."""
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
SOCKET_FROM_ELSEWHERE = "a WebSocket by cookie must come from this deployment's own pages"
FROM_ELSEWHERE = "a change by cookie must come from this deployment's own pages, with X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Cookies:
    """The cookie of a session's id. `secure` is False only in development on one host."""

    NAMES: ClassVar[tuple[str, ...]] = (
        "__Host-runner_session", "runner_session", "__Host-runner_operator", "runner_operator",
    )  # fmt: skip
    lifetime: Lifetime
    secure: bool = True
    kind: Literal["session", "operator"] = "session"

    @property
    def name(self) -> str:
        """The cookie's name; its prefix keeps other hosts and plain HTTP from setting it."""
        return f"{'__Host-' if self.secure else ''}runner_{self.kind}"

    @property
    def of_operators(self) -> Self:
        """The cookie of an operator's session."""
        return replace(self, kind="operator")

    def read(self, request: Request) -> SessionId | None:
        """Return the session id that a request carries, or None."""
        return sessions.parse(request.cookies.get(self.name))

    def write(self, response: Response, session: SessionId) -> None:
        """Give a session id to the browser, where scripts cannot read it."""
        response.set_cookie(
            self.name,
            session.text,
            max_age=int(self.lifetime.absolute.total_seconds()),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )

    def erase(self, response: Response) -> None:
        """Make the browser forget the session id."""
        response.delete_cookie(
            self.name, path="/", secure=self.secure, httponly=True, samesite="strict"
        )

    def is_from_elsewhere(self, request: Request) -> bool:
        """Return whether the browser says that another site's page made the request.

        Browsers send `Sec-Fetch-Site` over TLS, and `Origin` with everything that is not GET or
        HEAD (Fetch 3.1). A client that sends neither is no browser, and holds nobody's cookies.
        """
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in {"same-origin", "none"}:
            return True
        ours = f"{'https' if self.secure else 'http'}://{request.headers.get('host', '')}"
        return request.headers.get("origin", ours) != ours


@dataclass(frozen=True, slots=True)
class Callers:
    """Finds out who calls."""

    database: Database
    operators: Database | None
    cookies: Cookies
    issuer: Issuer | None
    e2b: E2bCallers
    addresses: FileAddresses

    async def of(self, request: Request) -> Principal | Operator | None:
        """Return who calls, or None for a stranger on a route that permits strangers.

        Raises NotAuthenticated, NotPermitted for a change by cookie from elsewhere, and NotReady.
        """
        part = part_of(request.scope["path"])
        port = request.scope.get(DESTINATION) if TRAFFIC_TOKEN in request.headers else None
        if part is not None or port is not None:
            return await self.e2b.of(request, part, port)
        if request.scope[TEMPLATE] == SIGNED:
            # Nothing else counts here: a browser adds a cookie by itself.
            return await self._by_address(request)
        if request.scope[TEMPLATE] in BY_LINK:
            return None
        return await self._by_credential(request)

    async def _by_credential(self, request: Request) -> Principal | Operator | None:
        header = request.headers.get("authorization")
        if request.scope[TEMPLATE] == RUN_CODE:
            header = of_basic(header)
        recorded = DOUBT not in request.scope
        if librechat.is_theirs(request.scope["path"]):
            header = librechat.bearer(request.headers)
            return await authenticate(self.database, header, origin(request), recorded=recorded)
        if request.scope["path"].startswith(OPERATORS):
            return await self._operator(request, header, recorded=recorded)
        if request.scope[TEMPLATE] in OPEN:
            if self.cookies.is_from_elsewhere(request):
                raise NotPermitted(FROM_ELSEWHERE)
            return None
        if header is None and (presented := self.cookies.read(request)) is not None:
            return await self._in_session(request, presented)
        _, _, token = (header or "").partition(" ")
        if self.issuer is not None and oidc.looks_like_one(token):
            at_mcp = request.scope[TEMPLATE] == MCP
            tenant = request.headers.get(TENANT_HEADER)
            return await self.issuer.authenticate(token, ANSWER, tenant=tenant, at_mcp=at_mcp)
        return await authenticate(self.database, header, origin(request), recorded=recorded)

    async def _by_address(self, request: Request) -> Principal:
        found = await self.addresses.read(
            request.query_params.get("token", ""),
            request.query_params.get("path", ""),
            request.scope["path"].split("/")[3],
            OPERATIONS.get(request.method),
            origin(request),
            recorded=DOUBT not in request.scope,
        )
        request.scope[ADDRESSED] = found
        return found.principal

    async def _in_session(self, request: Request, presented: SessionId) -> Principal:
        found = await sessions.find(
            self.database,
            presented,
            self.cookies.lifetime.idle,
            attended=UNATTENDED not in request.headers,
        )
        if found is None:
            raise NotAuthenticated(ANSWER)
        principal, session = found
        if SOCKET in request.scope and (
            "origin" not in request.headers or self.cookies.is_from_elsewhere(request)
        ):
            raise NotPermitted(SOCKET_FROM_ELSEWHERE)
        self._require_our_page(request, session.csrf)
        request.scope[SESSION] = session
        return principal

    async def _operator(self, request: Request, header: str | None, *, recorded: bool) -> Operator:
        if self.operators is None:
            raise NotFound("this process has no operator's routes")
        presented = None if header is not None else self.cookies.of_operators.read(request)
        if presented is None:
            return await authenticate_operator(
                self.operators, header, origin(request), recorded=recorded
            )
        found = await operating.find(
            self.operators,
            presented,
            self.cookies.lifetime,
            attended=UNATTENDED not in request.headers,
        )
        if found is None:
            raise NotAuthenticated(OPERATORS_ANSWER)
        operator, session = found
        self._require_our_page(request, session.csrf)
        request.scope[SESSION] = session
        return operator

    def _require_our_page(self, request: Request, csrf: str) -> None:
        """Raise NotPermitted for a change by cookie that no page of ours has asked for."""
        if request.method not in SAFE and (
            self.cookies.is_from_elsewhere(request)
            or not sessions.csrf_matches(csrf, request.headers.get(CSRF_HEADER))
        ):
            raise NotPermitted(FROM_ELSEWHERE)
