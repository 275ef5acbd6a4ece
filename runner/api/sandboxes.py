"""`/v1/sandboxes`: make, read, list, change, pause, resume and kill sandboxes that live."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from runner.api import cursors
from runner.api.deps import (
    Allow,
    CanReadSandboxes,
    CanUseSandboxes,
    Parts,
    SandboxId,
    require,
)
from runner.api.edge.json import JsonRoute
from runner.api.executions import Labels, labels
from runner.api.fields import Name
from runner.api.idempotency import IdempotencyKey, under
from runner.api.metrics_views import MetricsPointView, MetricsSeriesView, MetricsView
from runner.api.new_sandbox import NewSandbox
from runner.api.problems import JSON_TAKEN, LIVING, responses
from runner.api.sandbox_changes import SandboxChange
from runner.api.sandbox_views import SandboxPage, SandboxView
from runner.api.uploads import attentive
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.sandboxes import SandboxListing
from runner.words.lives import Life

router = APIRouter(prefix="/v1/sandboxes", tags=["sandboxes"], route_class=JsonRoute)

CanCreate = Annotated[Caller, Depends(Allow(Permission.SANDBOX_CREATE))]
CanDelete = Annotated[Caller, Depends(Allow(Permission.SANDBOX_DELETE))]


@router.post(
    "",
    summary="Make a sandbox",
    status_code=HTTPStatus.CREATED,
    responses={
        201: {
            "description": "It takes commands.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(*JSON_TAKEN, HTTPStatus.CONFLICT, HTTPStatus.GONE),
    },
)
async def create(
    request: Request,
    response: Response,
    body: NewSandbox,
    caller: CanCreate,
    parts: Parts,
    key: IdempotencyKey = None,
) -> SandboxView:
    """Make a sandbox that lives until its time is up or it is deleted; answer when it is ready.

    Every call on it needs its id. It keeps its files and its processes between calls. If you
    repeat a request with its idempotency key, you get the same sandbox, unless it did not start.
    """
    once = None if key is None else await under(key, request)
    begins = body.begins()
    if begins.snapshot is not None:
        await require(request, parts, caller, Permission.SNAPSHOT_READ)
    if begins.stored:
        await require(request, parts, caller, Permission.FILE_READ)
    if begins:
        making = parts.copies.create(caller, body.order(), begins, once=once)
        made = await attentive(request, making, stays=once is not None)
    else:
        made = await parts.sandboxes.create(caller, body.order(), once=once)
    response.headers["Location"] = f"/v1/sandboxes/{made.id}"
    return SandboxView.of(made)


@router.get("", summary="List sandboxes", responses=responses())
async def list_sandboxes(
    caller: CanReadSandboxes,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    project: Annotated[Name | None, Query()] = None,
    metadata: Labels = None,
    state: Annotated[list[Life] | None, Query(max_length=len(Life))] = None,
) -> SandboxPage:
    """Return the tenant's sandboxes, living and ended, newest first."""
    wanted = SandboxListing(
        limit=limit + 1,
        beyond=cursors.decode_id(cursor),
        project=project,
        metadata=labels(metadata),
        states=state,
    )
    found = await parts.sandboxes.list_some(caller, wanted)
    page, next_cursor = cursors.page(found, limit, lambda each: each.id)
    return SandboxPage(items=[SandboxView.of(each) for each in page], next_cursor=next_cursor)


@router.get("/{sandbox_id}", summary="Read one sandbox", responses=responses(HTTPStatus.NOT_FOUND))
async def read(sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts) -> SandboxView:
    """Return a sandbox as it is now; if it has ended, with the reason."""
    return SandboxView.of(await parts.sandboxes.read(caller, sandbox_id))


@router.patch(
    "/{sandbox_id}",
    summary="Change a sandbox",
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def change(
    body: SandboxChange, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> SandboxView:
    """Set how long it lives from now on, its labels, or what it may reach.

    When this is answered, the egress proxy decides by the new rules, and connections that they do
    not permit as before are cut. If the answer is 503, the rules are stored but may not be in force
    yet: repeat the request. Rules change only while the sandbox runs.
    """
    egress = body.egress_order()
    changed = await parts.sandboxes.update(caller, sandbox_id, body.change(), egress)
    return SandboxView.of(changed)


@router.delete(
    "/{sandbox_id}",
    summary="Kill a sandbox",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def kill(sandbox_id: SandboxId, caller: CanDelete, parts: Parts) -> None:
    """End a sandbox, whatever it is doing. Only its record stays.

    One that has ended stays as it is.
    """
    await parts.sandboxes.kill(caller, sandbox_id)


@router.get("/{sandbox_id}/metrics", summary="Measure a sandbox", responses=LIVING)
async def metrics(caller: CanReadSandboxes, sandbox_id: SandboxId, parts: Parts) -> MetricsView:
    """Return what a sandbox uses now."""
    return MetricsView.of(await parts.using.metrics(caller, sandbox_id))


@router.get("/{sandbox_id}/metrics/series", summary="Measure a sandbox over time", responses=LIVING)
async def series(
    caller: CanReadSandboxes, sandbox_id: SandboxId, parts: Parts
) -> MetricsSeriesView:
    """Return what a sandbox has used for the last hour, a sample each few seconds."""
    found = await parts.using.series(caller, sandbox_id)
    items = [MetricsPointView.at_moment(each) for each in found.points]
    return MetricsSeriesView(every_s=found.every_s, items=items)


@router.post("/{sandbox_id}/pause", summary="Pause a sandbox", responses=LIVING)
async def pause(sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts) -> SandboxView:
    """Freeze its processes: they keep their memory and get no processor time."""
    return SandboxView.of(await parts.sandboxes.pause(caller, sandbox_id))


@router.post("/{sandbox_id}/resume", summary="Resume a sandbox", responses=LIVING)
async def resume(sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts) -> SandboxView:
    """Let the processes of a paused sandbox go on."""
    return SandboxView.of(await parts.sandboxes.resume(caller, sandbox_id))
