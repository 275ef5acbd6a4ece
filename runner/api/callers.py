"""Who calls: from a key, an identity provider's token, or a session's cookie.

A header is looked at before a cookie: browsers send cookies by themselves, and never that header.
What changes something by cookie must come from our own pages: its `Sec-Fetch-Site` and `Origin`
say so where the browser sends them, and its `X-CSRF-Token` is that of the session.
"""

from dataclasses import dataclass

from fastapi import Request, Response

from runner.api.context import origin
from runner.api.edge.doubt import DOUBT
from runner.api.edge.routing import OPERATORS, TEMPLATE
from runner.auth import oidc, sessions
from runner.auth.identity import ANSWER, authenticate, authenticate_operator
from runner.auth.oidc import Issuer
from runner.auth.sessions import Lifetime, SessionId
from runner.store.db import Database
from runner.words.errors import NotAuthenticated, NotFound, NotPermitted
from runner.words.principal import Operator, Principal

OPEN = frozenset({"/v1/login", "/v1/login/accept"})
"""What strangers may call: to cease to be strangers."""
SESSION = "runner.session"
CSRF_HEADER = "x-csrf-token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 9.2.1)."""
FROM_ELSEWHERE = "a change by cookie must come from this deployment's own pages, with X-CSRF-Token"


@dataclass(frozen=True, slots=True)
class Cookies:
    """How a session's id travels. `secure` is False in development on one host alone."""

    lifetime: Lifetime
    secure: bool = True

    @property
    def name(self) -> str:
        """With the prefix by which browsers let no other host and no plain HTTP set it."""
        return "__Host-runner_session" if self.secure else "runner_session"

    def read(self, request: Request) -> SessionId | None:
        """Return the session's id that a request carries."""
        return sessions.parse(request.cookies.get(self.name))

    def write(self, response: Response, session: SessionId) -> None:
        """Hand a session's id to the browser, out of its scripts' reach."""
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
        """Let the browser forget it."""
        response.delete_cookie(
            self.name, path="/", secure=self.secure, httponly=True, samesite="strict"
        )

    def is_from_elsewhere(self, request: Request) -> bool:
        """Return whether the browser says that another site's page made the request.

        Browsers send `Sec-Fetch-Site` over TLS, and `Origin` with everything that is not GET or
        HEAD (Fetch 3.1). What sends neither is no browser, and holds no one's cookies.
        """
        site = request.headers.get("sec-fetch-site")
        if site is not None and site not in {"same-origin", "none"}:
            return True
        ours = f"{'https' if self.secure else 'http'}://{request.headers.get('host', '')}"
        return request.headers.get("origin", ours) != ours


@dataclass(frozen=True, slots=True)
class Callers:
    """What it takes to know who calls."""

    database: Database
    operators: Database | None
    cookies: Cookies
    issuer: Issuer | None

    async def of(self, request: Request) -> Principal | Operator | None:
        """Return who calls; None where strangers may.

        Raises NotAuthenticated, NotPermitted for a change by cookie from elsewhere, and NotReady.
        """
        header = request.headers.get("authorization")
        recorded = DOUBT not in request.scope
        if request.scope["path"].startswith(OPERATORS):
            if self.operators is None:
                raise NotFound("this process has no operator's routes")
            return await authenticate_operator(
                self.operators, header, origin(request), recorded=recorded
            )
        if request.scope[TEMPLATE] in OPEN:
            if self.cookies.is_from_elsewhere(request):
                raise NotPermitted(FROM_ELSEWHERE)
            return None
        if header is None and (presented := self.cookies.read(request)) is not None:
            return await self._in_session(request, presented)
        _, _, token = (header or "").partition(" ")
        if self.issuer is not None and oidc.looks_like_one(token):
            return await self.issuer.authenticate(token, ANSWER)
        return await authenticate(self.database, header, origin(request), recorded=recorded)

    async def _in_session(self, request: Request, presented: SessionId) -> Principal:
        found = await sessions.find(self.database, presented, self.cookies.lifetime.idle)
        if found is None:
            raise NotAuthenticated(ANSWER)
        principal, session = found
        if request.method not in SAFE and (
            self.cookies.is_from_elsewhere(request)
            or not sessions.csrf_matches(session, request.headers.get(CSRF_HEADER))
        ):
            raise NotPermitted(FROM_ELSEWHERE)
        request.scope[SESSION] = session
        return principal
