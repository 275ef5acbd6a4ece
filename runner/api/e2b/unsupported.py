"""Features of E2B that this deployment lacks: each refused by name, with advice."""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from runner.api.e2b.shape import refusal

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_TEMPLATES = (
    "templates are built, tagged and deleted, but not listed or changed by this interface: list"
    " them by GET /v1/templates"
)
_VOLUMES = "there are no volumes: keep files in snapshots, or by PUT /v1/files/{path}"
_SECRETS = (
    "secrets are not managed by this interface: write them by PUT /v1/secrets/{name}, and have the"
    " egress proxy set them by an egress policy"
)
_LOGS = (
    "a sandbox has no log of its own: read the output of its processes, and what happened to it by"
    " GET /v1/sandboxes/{id}/events"
)
REASONS: Mapping[str, str] = MappingProxyType(
    {
        "/sandboxes/{sandbox_id}/logs": _LOGS,
        "/v2/sandboxes/{sandbox_id}/logs": _LOGS,
        "/templates": _TEMPLATES,
        "/templates/{rest:path}": _TEMPLATES,
        "/default-templates": _TEMPLATES,
        "/v2/templates": _TEMPLATES,
        "/v2/templates/{rest:path}": _TEMPLATES,
        "/v3/templates": _TEMPLATES,
        "/v3/templates/{rest:path}": _TEMPLATES,
        "/volumes": _VOLUMES,
        "/volumes/{rest:path}": _VOLUMES,
        "/volumecontent/{rest:path}": _VOLUMES,
        "/secrets": _SECRETS,
        "/secrets/{rest:path}": _SECRETS,
    }
)
"""The reason why there is nothing at these paths."""


def _refusing(reason: str) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def refuse(request: Request) -> JSONResponse:
        return refusal(request, HTTPStatus.NOT_IMPLEMENTED, f"not supported here: {reason}")

    return refuse


router = APIRouter()
for _path, _reason in REASONS.items():
    router.add_api_route(
        _path, _refusing(_reason), methods=METHODS, response_model=None, include_in_schema=False
    )
