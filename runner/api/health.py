"""`/healthz`, `/readyz`, `/metrics`: for load balancers and monitoring, without a key."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from runner.api.deps import Dependencies, Parts
from runner.api.gauges import DeploymentGauges
from runner.api.problems import RETRY_AFTER_S, responses
from runner.api.views import View
from runner.words.errors import NotReady

PROBE_TIMEOUT_S = 4.0

router = APIRouter(tags=["operations"])

Answer = Literal["ok", "unavailable"]


class Health(View):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(View):
    """Each part that requests need."""

    status: Answer
    parts: dict[Literal["postgres", "redis", "rights"], Answer]


@router.get("/healthz", summary="Is the process alive")
async def healthz() -> Health:
    """Answer as long as this process lives, even if PostgreSQL or Redis is away."""
    return Health()


@router.get(
    "/readyz",
    summary="Can requests be served",
    responses={503: {"model": Readiness, "description": "The parts marked are not ready."}},
)
async def readyz(response: Response, parts: Parts) -> Readiness:
    """Ask each part, and name those that do not answer.

    `rights` is whether PostgreSQL says, a few times a second, which requests may still go on.
    Workers are no part of this: without one, submissions are taken and wait.
    """
    found = await readiness(parts)
    if found.status != "ok":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return found


async def readiness(parts: Dependencies) -> Readiness:
    """Return which of the parts that requests need are ready."""
    postgres, redis = await asyncio.gather(
        _answers(_postgres(parts)), _answers(parts.doorbell.ping())
    )
    rights: Answer = "ok" if parts.rights.confirming else "unavailable"
    return Readiness(
        status="ok" if postgres == redis == rights == "ok" else "unavailable",
        parts={"postgres": postgres, "redis": redis, "rights": rights},
    )


async def registry(request: Request) -> CollectorRegistry:
    """Return this app's metrics."""
    found: CollectorRegistry = request.app.state.registry
    return found


async def gauges(request: Request) -> DeploymentGauges:
    """Return the deployment's gauges, as this app reads them."""
    found: DeploymentGauges = request.app.state.gauges
    return found


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses={503: responses()[503]},
)
async def metrics(
    counted: Annotated[CollectorRegistry, Depends(registry)],
    deployment: Annotated[DeploymentGauges, Depends(gauges)],
) -> Response:
    """Return counters of this process and gauges of the deployment in Prometheus' text format.

    The gauges may be a second old.
    """
    told = await deployment.text()
    return Response(generate_latest(counted) + told, media_type=CONTENT_TYPE_LATEST)


async def _postgres(parts: Dependencies) -> None:
    async with parts.database.no_tenant() as tx:
        await tx.one("session.ping")


async def _answers(probe: Coroutine[Any, Any, None]) -> Answer:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe
    except (NotReady, TimeoutError):
        return "unavailable"
    return "ok"
