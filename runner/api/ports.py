"""`/v1/sandboxes/{id}/ports`: open ports of a sandbox, list and close those that are open."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from runner.api.deps import CanReadSandboxes, CanUseSandboxes, Parts, PortNumber, SandboxId
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.traffic.destination import PortAddresses
from runner.api.views import View
from runner.store.ports import OpenedPort

MOST_S = 30 * 86_400
DEFAULT_S = 3600

router = APIRouter(prefix="/v1/sandboxes/{sandbox_id}/ports", tags=["ports"], route_class=JsonRoute)


class Opening(Strict):
    """The terms on which to open a port."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"public": False, "expires_s": 600}]})

    public: bool = Field(default=False, description="Let everybody reach it, without a token.")
    expires_s: Annotated[float, Field(ge=1, le=MOST_S)] = Field(
        default=DEFAULT_S, description="For how many seconds it is open."
    )


class PortView(View):
    """An opened port."""

    port: int
    public: bool
    url: str = Field(
        description="Where the server is reached; relative to the API's own address unless the "
        "deployment has a domain for ports."
    )
    opened_by: str
    opened_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, opened: OpenedPort, url: str) -> Self:
        """Return the view of an opened port."""
        return cls(
            port=opened.port,
            public=opened.public,
            url=url,
            opened_by=opened.opened_by,
            opened_at=opened.opened_at,
            expires_at=opened.expires_at,
        )


class OpenedPortView(PortView):
    """A port that was just opened."""

    token: str | None = Field(
        description="Lets its holder reach the port, sent as `X-Access-Token`; shown only here. "
        "Null for a public port."
    )


class PortList(View):
    """The opened ports of a sandbox."""

    items: list[PortView]


@router.post(
    "/{port}",
    summary="Open a port of a sandbox",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE),
)
async def open_port(
    request: Request,
    caller: CanUseSandboxes,
    body: Opening,
    sandbox_id: SandboxId,
    port: PortNumber,
    parts: Parts,
) -> OpenedPortView:
    """Let others than holders of API keys reach a port, by a token or, if public, all of them.

    A server on this port inside answers at `/v1/sandboxes/{sandbox_id}/ports/{port}/…` by any HTTP
    method and by WebSocket, and at a name of its own if the deployment has a domain for that. An
    API key that may use the sandbox reaches every port, open or not. A port that is open already
    gets these terms and another token; requests that came with the old one end.
    """
    made = await parts.ports.open(
        caller, sandbox_id, port, public=body.public, lasts_s=body.expires_s
    )
    view = PortView.of(made.port, _url(request, parts, sandbox_id, port))
    return OpenedPortView(**view.model_dump(), token=made.token)


@router.get("", summary="List opened ports", responses=responses(HTTPStatus.NOT_FOUND))
async def list_ports(
    request: Request, caller: CanReadSandboxes, sandbox_id: SandboxId, parts: Parts
) -> PortList:
    """Return the ports of a sandbox that are open."""
    found = await parts.ports.list_open(caller, sandbox_id)
    return PortList(
        items=[PortView.of(each, _url(request, parts, sandbox_id, each.port)) for each in found]
    )


@router.delete(
    "/{port}",
    summary="Close a port of a sandbox",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def close_port(
    caller: CanUseSandboxes, sandbox_id: SandboxId, port: PortNumber, parts: Parts
) -> None:
    """Close a port: its token is worth nothing any more, and requests that came with it end."""
    await parts.ports.close(caller, sandbox_id, port)


def _url(request: Request, parts: Parts, sandbox_id: SandboxId, port: PortNumber) -> str:
    addresses = PortAddresses(parts.settings.ports_domain)
    host = request.headers.get("host", "")
    return addresses.url(sandbox_id, port, secure=parts.cookies.secure, host=host)
