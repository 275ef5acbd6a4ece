"""The way of a request to a port: the same checks as in front of the API's own routes."""

from http import HTTPStatus

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.callers import Callers
from runner.api.deps import Dependencies
from runner.api.e2b.paths import NAMED, PORTS, Part, part_of
from runner.api.edge.bounds import HeadBounds
from runner.api.edge.groups import TRAFFIC
from runner.api.edge.headers import SecurityHeaders
from runner.api.edge.rates import PrincipalRates, StrangerRates
from runner.api.edge.routing import BODY, TEMPLATE, Body
from runner.api.edge.shares import Shared, Shares
from runner.api.middleware import Authentication, LastResort
from runner.api.problems import problem
from runner.api.rights import EndsWithRight
from runner.api.traffic.callers import PortCallers
from runner.api.traffic.carried import FROM_INSIDE
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import DESTINATION, Nowhere, PortAddresses
from runner.api.traffic.proxy import PortProxy

NOTHING_OF_E2B = "this name is for what E2B's clients do inside a sandbox, and not for this path"
NO_SUCH_NAME = "no port of a sandbox has this address: it is a port's number and a sandbox's id"


class PortTraffic:
    """Takes requests to ports of sandboxes out of the API's way, by path or by name."""

    def __init__(self, app: ASGIApp, addresses: PortAddresses, ports: ASGIApp) -> None:
        self._app = app
        self._addresses = addresses
        self._ports = OursMarked(ports)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            destination = self._addresses.find(scope)
        except Nowhere:
            answer = problem(Request(scope), HTTPStatus.NOT_FOUND, NO_SUCH_NAME)
            await SecurityHeaders(answer)(scope, receive, send)
            return
        if destination is None:
            await self._app(scope, receive, send)
            return
        if destination.by_name and destination.port in PORTS:
            # There E2B's clients expect what this API does inside a sandbox, and nothing else.
            scope[NAMED] = (destination.sandbox_id, destination.port)
            if part_of(scope["path"]) is Part.INSIDE:
                await self._app(scope, receive, send)
                return
            answer = problem(Request(scope), HTTPStatus.NOT_FOUND, NOTHING_OF_E2B)
            await SecurityHeaders(answer)(scope, receive, send)
            return
        scope[DESTINATION] = destination
        scope[TEMPLATE] = TRAFFIC
        scope[BODY] = Body.STREAMED
        # All that looks at a path from here on sees one of ours, whatever is asked inside.
        scope["path"] = f"/v1/sandboxes/{destination.sandbox_id}/ports/{destination.port}/"
        await self._ports(scope, receive, send)


class OursMarked:
    """Puts our headers for browsers on answers of ours alone: those from inside have their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def as_it_is(scope: Scope, receive: Receive, marked: Send) -> None:
            async def chosen(message: Message) -> None:
                await (send if FROM_INSIDE in scope else marked)(message)

            await self._app(scope, receive, chosen)

        await SecurityHeaders(as_it_is)(scope, receive, send)


def way(parts: Dependencies, callers: Callers, cookie: PortCookie, shared: Shared) -> ASGIApp:
    """Return what serves requests to ports, from outside in.

    `shared` is what the API's own routes share, too: a connection counts once, whatever it asks.
    """
    settings = parts.settings
    issuer = settings.oidc_issuer
    app: ASGIApp = PortProxy(parts, cookie, issuer)
    app = EndsWithRight(app, rights=parts.rights)
    if settings.rate_limiting:
        app = PrincipalRates(app, limiter=parts.limiter, rates=settings.rate_limits)
    app = Shares(app, shared)
    keyed: ASGIApp = Authentication(app, callers=callers)
    if settings.rate_limiting:
        keyed = StrangerRates(keyed, limiter=parts.limiter, rates=settings.rate_limits)
    app = PortCallers(
        app,
        keyed,
        gates=parts.gates,
        cookie=cookie,
        issuer=issuer,
        limiter=parts.limiter if settings.rate_limiting else None,
        rates=settings.rate_limits,
    )
    return LastResort(HeadBounds(app))
