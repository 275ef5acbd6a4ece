"""The HTTP application: routes, middleware, error shape, and the OpenAPI document."""

from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic.json_schema import models_json_schema

from runner import __version__
from runner.api import (
    artifacts,
    audit,
    egress,
    events,
    executions,
    health,
    keys,
    operator,
    problems,
    projects,
    receipts,
    secrets,
)
from runner.api.deps import Dependencies
from runner.api.middleware import Authentication, BodyBounds, LastResort, Metrics, RequestId

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
    )
    registry = CollectorRegistry()
    app.state.parts = parts
    app.state.registry = registry
    problems.install(app)
    # The last one added sees a request first.
    app.add_middleware(BodyBounds, max_bytes=parts.settings.max_body_mb * 2**20)
    app.add_middleware(Authentication, database=parts.database, operators=parts.operators)
    app.add_middleware(LastResort)
    app.add_middleware(Metrics, registry=registry)
    app.add_middleware(RequestId)
    for module in (
        executions, events, artifacts, projects, egress, secrets, keys, audit, receipts, health,
    ):  # fmt: skip
        app.include_router(module.router)
    if parts.operators is not None:
        app.include_router(operator.router)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return FastAPI's document with our one error shape in place of its own."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        schemas = document["components"]["schemas"]
        _, ours = models_json_schema(
            [(problems.Problem, "serialization")], ref_template="#/components/schemas/{model}"
        )
        schemas.update(ours["$defs"])
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
    return app.openapi_schema or {}
