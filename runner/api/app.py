"""The HTTP application: routes, middleware, error shape, and the OpenAPI document."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import ProcessCollector
from pydantic.json_schema import models_json_schema
from starlette.middleware.cors import CORSMiddleware

from runner import __version__
from runner.api import (
    artifacts,
    audit,
    audit_webhook,
    console,
    contexts,
    egress,
    events,
    executions,
    explanations,
    files,
    fusion,
    health,
    keys,
    login,
    members,
    node_invitations,
    nodes,
    operator,
    operator_audit,
    operator_load,
    operator_session,
    operator_sessions,
    ports,
    problems,
    processes,
    projects,
    public_templates,
    receipts,
    reference,
    sandbox_archives,
    sandbox_events,
    sandbox_files,
    sandboxes,
    secrets,
    sign_in,
    signed_files,
    snapshots,
    tcp,
    templates,
    terminals,
    usage,
)
from runner.api.callers import Callers
from runner.api.context_views import RunEventView
from runner.api.deps import Allow, Dependencies
from runner.api.e2b.callers import E2bCallers
from runner.api.e2b.routes import routers as e2b_routers
from runner.api.edge.address import ClientAddress
from runner.api.edge.bounds import HeadBounds
from runner.api.edge.browsers import PagesForBrowsers
from runner.api.edge.cors import cors
from runner.api.edge.fair import HOLD_S, TenantTurns
from runner.api.edge.headers import SecurityHeaders
from runner.api.edge.json import StrictJson
from runner.api.edge.pace import Pace
from runner.api.edge.query import KnownQuery
from runner.api.edge.rates import PrincipalRates, StrangerRates
from runner.api.edge.routing import Routing
from runner.api.edge.shares import Shared, Shares
from runner.api.edge.sockets import Handshakes
from runner.api.edge.traced import TraceChoice, Traced
from runner.api.edge.tunnel import Switches
from runner.api.gauges import DeploymentGauges
from runner.api.librechat import calling
from runner.api.librechat import routes as librechat
from runner.api.mcp import oauth
from runner.api.mcp import route as mcp
from runner.api.middleware import (
    Authentication,
    BodyBounds,
    LastResort,
    Metrics,
    RequestId,
)
from runner.api.rights import EndsWithRight
from runner.api.sandbox_events import SandboxEventView
from runner.api.sandbox_views import FileChangesView, OutputEventView
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import PortAddresses
from runner.api.traffic.way import PortTraffic, way
from runner.api.views import EventView

MODULES = (
    executions, events, artifacts, sandboxes, sandbox_events, processes, terminals, contexts,
    sandbox_files, signed_files, sandbox_archives, snapshots, templates, ports, tcp, files,
    projects, egress, secrets, keys, login, sign_in, members, audit, audit_webhook, receipts,
    explanations, usage, health, reference, mcp,
)  # fmt: skip
_SUCCESS = {
    "204": "Done; there is nothing to return.",
    "303": "Go on at the address in `Location`.",
}
DESCRIPTION = """\
Runs code written by AI agents, each program in a hardened container of its own.

Authenticate with `Authorization: Bearer rk_…`. Every error is `application/problem+json`.
"""


def create_app(parts: Dependencies) -> FastAPI:
    """Return the application over open parts. Nothing is opened or closed here."""
    app = FastAPI(
        title="Agent Runner",
        version=__version__,
        summary="Self-hosted, multi-tenant runner for code written by AI agents.",
        description=DESCRIPTION,
        redirect_slashes=False,
        # FastAPI's pages load scripts from elsewhere; `reference` has no script at all.
        docs_url=None,
        redoc_url=None,
        # If the environment names a collector, it would make spans with paths and logs in them.
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    registry = parts.registry
    ProcessCollector(registry=registry)
    app.state.parts = parts
    app.state.registry = registry
    app.state.gauges = DeploymentGauges(parts.database)
    problems.install(app)
    settings = parts.settings
    routers = [*(each.router for each in MODULES), *_wanted(parts)]
    theirs = e2b_routers()
    every = (*routers, *theirs)
    routes = [*app.routes, *(route for router in every for route in router.routes)]
    streamed = frozenset(
        (method, route.path)
        for route in routes
        if isinstance(route, APIRoute) and _streams(route)
        for method in route.methods or ()
    )
    declared = frozenset(
        (method, route.path)
        for route in routes
        if isinstance(route, APIRoute) and HTTPStatus.LENGTH_REQUIRED in route.responses
        for method in route.methods or ()
    )
    # The middleware that is added last sees a request first.
    app.add_middleware(TenantTurns, hold_s=settings.patient(HOLD_S))
    app.add_middleware(StrictJson, max_bytes=settings.max_body_mb * 2**20)
    app.add_middleware(
        BodyBounds,
        max_bytes=settings.max_body_mb * 2**20,
        max_streamed_bytes=settings.max_file_mb * 2**20,
        # The document lists 411 for the routes that reserve space before they read a body.
        declared=declared,
    )
    app.add_middleware(KnownQuery, routes=routes)
    app.add_middleware(EndsWithRight, rights=parts.rights, operators=parts.operator_rights)
    app.add_middleware(Pace, client_s=settings.client_timeout_s)
    if settings.rate_limiting:
        app.add_middleware(PrincipalRates, limiter=parts.limiter, rates=settings.rate_limits)
    shared = Shared.of(settings.max_connections)
    app.add_middleware(Shares, shared=shared)
    callers = Callers(
        parts.database,
        parts.operators,
        parts.cookies,
        parts.issuer,
        E2bCallers(parts.database, parts.tokens),
        parts.addresses,
    )
    app.add_middleware(
        Traced,
        tracer=parts.tracer,
        choice=TraceChoice(
            ratio=settings.traces_ratio, per_minute=settings.traces_per_minute, registry=registry
        ),
    )
    app.add_middleware(Authentication, callers=callers)
    if settings.mcp_resource:
        app.add_middleware(oauth.Challenge, resource=settings.mcp_resource)
    if settings.rate_limiting:
        app.add_middleware(StrangerRates, limiter=parts.limiter, rates=settings.rate_limits)
    app.add_middleware(Routing, routes=routes, streamed=streamed)
    if settings.cors_origins:
        app.add_middleware(CORSMiddleware, **cors(settings.cors_origins))
    app.add_middleware(HeadBounds)
    app.add_middleware(LastResort)
    app.add_middleware(PagesForBrowsers)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(
        PortTraffic,
        addresses=PortAddresses(settings.ports_domain),
        ports=way(parts, callers, PortCookie(secure=not settings.insecure_cookies), shared),
    )
    app.add_middleware(Metrics, registry=registry)
    app.add_middleware(ClientAddress, trusted=settings.trusted_proxies)
    app.add_middleware(RequestId)
    app.add_middleware(Switches)
    app.add_middleware(Handshakes)
    for router in routers:
        app.include_router(router)
    for router in theirs:
        # E2B's own specification describes them.
        app.include_router(router, include_in_schema=False)
    app.openapi = lambda: _openapi(app, routers)  # type: ignore[method-assign]
    return app


def _wanted(parts: Dependencies) -> list[APIRouter]:
    """Return the routers that this process has only if the operator wants them."""
    settings = parts.settings
    pages = console.router(
        console.assets(settings.console_path) if settings.console else {},
        operators=bool(parts.operators),
    )
    optional = (
        (operator.router, parts.operators),
        (operator_session.router, parts.operators),
        (operator_sessions.router, parts.operators),
        (operator_load.router, parts.operators),
        (operator_audit.router, parts.operators),
        (nodes.router, parts.operators),
        (node_invitations.router, parts.operators),
        (public_templates.router, parts.operators),
        (fusion.router, settings.sandbox_fusion),
        (librechat.router, settings.librechat),
        (calling.router, settings.librechat),
        (oauth.router, settings.mcp_resource),
        (pages, settings.console),
    )
    return [router for router, wanted in optional if wanted]


def _openapi(app: FastAPI, routers: Sequence[APIRouter]) -> dict[str, Any]:
    """Return FastAPI's document with our shape of errors, and what each route needs."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        _, ours = models_json_schema(
            # The other views are sent as events, whose content FastAPI does not know.
            [
                (problems.Problem, "serialization"),
                *(
                    (each, "serialization")
                    for each in (
                        EventView,
                        OutputEventView,
                        FileChangesView,
                        SandboxEventView,
                        RunEventView,
                    )
                ),
            ],
            ref_template="#/components/schemas/{model}",
        )
        schemas.update(ours["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for route in (route for router in routers for route in router.routes):
            if isinstance(route, APIRoute) and (needed := _permission(route)):
                for method in route.methods or ():
                    document["paths"][route.path_format][method.lower()]["x-permission"] = needed
        for item in document["paths"].values():
            for operation in item.values():
                for status, response in operation["responses"].items():
                    if response["description"] == "Successful Response":
                        response["description"] = _SUCCESS.get(status, "Done.")
    return app.openapi_schema or {}


def _streams(route: APIRoute) -> bool:
    """Return whether the route streams its body: then the document says that it is not JSON."""
    extra = route.openapi_extra or {}
    return bool(extra) and "application/json" not in extra.get("requestBody", {}).get(
        "content", {"application/json": None}
    )


def _permission(route: APIRoute) -> str | None:
    """Return the permission that a route requires of its caller, or None."""
    waiting = [route.dependant]
    while waiting:
        for dependency in waiting.pop(0).dependencies:
            if isinstance(dependency.call, Allow):
                return dependency.call.permission.value
            waiting.append(dependency)
    return None
