"""Callers that may reach a port: a key that may use the sandbox, a port's token, or anybody.

E2B's clients have a token for all ports of a sandbox, in `E2B-Traffic-Access-Token`: it acts for
the key that it was made for.

A token comes in `X-Access-Token`. A browser, which cannot send that, brings it once in the query of
the port's own name: the answer sets a cookie there, and leads on without it. Cookies of the API
never count: a page may make a browser send them.
"""

from http import HTTPStatus

from fastapi import Request
from fastapi.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runner.api.e2b.paths import TRAFFIC_TOKEN
from runner.api.edge.address import site
from runner.api.edge.ratelimit import RateLimiter
from runner.api.middleware import PRINCIPAL
from runner.api.problems import of, problem
from runner.api.traffic.asked import ACCESS_TOKEN, is_ours
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import DESTINATION, IN_QUERY, PortTarget
from runner.base.rates import RateLimits
from runner.sandboxes.ports import PortGates, opens, principal_of
from runner.store.ports import FoundPort
from runner.words.errors import RunnerError, TooManyAttempts

GATE = "runner.gate"
"""In the scope of a request that was let in without a key: the port as it was found open."""
ANSWER = (
    "this port needs a token in `X-Access-Token`, or an API key that may use the sandbox; "
    "without one, only a port that was opened as public can be reached"
)
FROM_ELSEWHERE = "another site's page made this request: only the port's own pages may, by cookie"
SAFE = frozenset({"GET", "HEAD"})


class PortCallers:
    """Settles who calls. Requests with a key of ours go to `keyed`, the others to `let_in`."""

    def __init__(
        self,
        let_in: ASGIApp,
        keyed: ASGIApp,
        *,
        gates: PortGates,
        cookie: PortCookie,
        issuer: str | None,
        limiter: RateLimiter | None,
        rates: RateLimits,
    ) -> None:
        self._let_in = let_in
        self._keyed = keyed
        self._gates = gates
        self._cookie = cookie
        self._issuer = issuer
        self._limiter = limiter
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope["headers"])
        authorization = headers.get(b"authorization", b"")
        if is_ours(authorization, self._issuer) or TRAFFIC_TOKEN.encode() in headers:
            await self._keyed(scope, receive, send)
            return
        request = Request(scope)
        try:
            refusal = await self._admit(request, scope[DESTINATION])
        except RunnerError as error:
            refusal = of(request, error)
        await (refusal or self._let_in)(scope, receive, send)

    async def _admit(self, request: Request, destination: PortTarget) -> Response | None:
        """Note whom a request acts as; return the answer if it goes no further."""
        sandbox_id, port = destination.sandbox_id, destination.port
        header = request.headers.get(ACCESS_TOKEN.decode())
        in_query = destination.token if destination.by_name and header is None else None
        in_cookie = None
        if destination.by_name and header is None and in_query is None:
            in_cookie = self._cookie.read(request.scope["headers"])
        token = header or in_query or in_cookie
        if not self._gates.knows(sandbox_id, port):
            await self._count(request, only_look=True)
        found = await self._gates.find(sandbox_id, port)
        if found is None or not opens(found, token):
            await self._count(request, only_look=False)
            return problem(request, HTTPStatus.UNAUTHORIZED, ANSWER)
        # A public port needs no token, so nobody has shown that this is one.
        if in_query is not None and self._private(found):
            return self._led_on(request, destination, in_query)
        if in_cookie is not None and self._private(found) and self._is_from_elsewhere(request):
            return problem(request, HTTPStatus.FORBIDDEN, FROM_ELSEWHERE)
        request.scope[GATE] = found
        request.scope[PRINCIPAL] = principal_of(found, sandbox_id, port)
        return None

    @staticmethod
    def _private(found: FoundPort) -> bool:
        return found.token_hash is not None

    def _led_on(self, request: Request, destination: PortTarget, token: str) -> Response:
        """Hand a browser its cookie, and lead it to the page without the token in its address."""
        if request.method not in SAFE:
            detail = (
                f"`{IN_QUERY.decode()}` in the query is for pages: send a token in `X-Access-Token`"
            )
            return problem(request, HTTPStatus.BAD_REQUEST, detail)
        # A path that begins with two slashes would name another host.
        where = "/" + destination.target.decode("latin-1").lstrip("/\\")
        answer = Response(status_code=HTTPStatus.SEE_OTHER, headers={"Location": where})
        answer.raw_headers.append((b"set-cookie", self._cookie.written(token)))
        return answer

    def _is_from_elsewhere(self, request: Request) -> bool:
        """Return whether another site's page made a request; to follow a link to a page is fine."""
        headers = request.headers
        came_from = headers.get("sec-fetch-site")
        if came_from is None:
            ours = f"{'https' if self._cookie.secure else 'http'}://{headers.get('host', '')}"
            return headers.get("origin", ours) != ours
        followed = (
            request.method in SAFE
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        return came_from not in {"same-origin", "none"} and not followed

    async def _count(self, request: Request, *, only_look: bool) -> None:
        """Count an address that asks for ports which it may not reach. Raises TooManyAttempts."""
        if self._limiter is None:
            return
        address = site(request.client.host if request.client else "none")
        ask = self._limiter.look if only_look else self._limiter.hit
        verdict = await ask(self._rates.anonymous, "address", address, "ports")
        if not verdict.allowed:
            wait_s = max(1, verdict.tightest.reset_s)
            raise TooManyAttempts(
                f"this address asked for too many ports that are not open; try again in {wait_s} s",
                wait_s,
            )
