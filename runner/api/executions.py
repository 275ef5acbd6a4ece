"""`/v1/executions`: submit, read, list, cancel."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import AfterValidator, StringConstraints

from runner.api import cursors
from runner.api.deps import Allow, CanRead, ExecutionId, Parts, require
from runner.api.edge.json import JsonRoute
from runner.api.fields import Name, storable
from runner.api.idempotency import IdempotencyKey, under
from runner.api.problems import JSON_TAKEN, responses
from runner.api.requests import Submission
from runner.api.views import ExecutionPage, ExecutionView
from runner.auth.caller import Caller
from runner.auth.permissions import Permission, may
from runner.executions.cancel import cancel as cancel_one
from runner.executions.read import Seen, list_newest
from runner.executions.read import read as read_whole
from runner.store.executions import ExecutionQuery
from runner.words.states import State

MAX_LABELS = 32
LABEL_FILTER = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}=[\s\S]{0,512}$"

router = APIRouter(prefix="/v1/executions", tags=["executions"], route_class=JsonRoute)

CanCreate = Annotated[Caller, Depends(Allow(Permission.EXECUTION_CREATE))]
CanCancel = Annotated[Caller, Depends(Allow(Permission.EXECUTION_CANCEL))]


@router.post(
    "",
    summary="Run a program",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        200: {"model": ExecutionView, "description": "It ended within `wait_s` seconds."},
        202: {
            "description": "It is queued or running; ask for it at `Location`.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(*JSON_TAKEN, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS),
    },
)
async def submit(
    request: Request,
    response: Response,
    body: Submission,
    caller: CanCreate,
    parts: Parts,
    key: IdempotencyKey = None,
) -> ExecutionView:
    """Store an execution and queue it. With `wait_s`, answer with the result if it comes in time.

    The program runs in a hardened container of its own. It has no network; through the egress proxy
    it reaches what `egress` permits.
    """
    # Check this before anything is stored: without the queue, nothing is accepted.
    await parts.doorbell.require()
    order = body.order()
    if order.keys:
        await require(request, parts, caller, Permission.FILE_READ)
    if order.artifacts_to is not None:
        await require(request, parts, caller, Permission.FILE_WRITE)
    once = None if key is None else await under(key, request, body)
    seen = await parts.submitting.submit(caller, order, once=once, wait_s=body.wait_s)
    response.headers["Location"] = f"/v1/executions/{seen.execution.id}"
    response.status_code = _status(seen)
    return _view(caller, seen)


Labels = Annotated[
    list[Annotated[str, StringConstraints(pattern=LABEL_FILTER), AfterValidator(storable)]] | None,
    Query(
        max_length=MAX_LABELS,
        description="`KEY=VALUE`: only executions with this label in their metadata. Repeat the "
        "parameter to ask for several labels at once.",
        examples=[["agent=analyst-7"]],
    ),
]


def labels(wanted: list[str] | None) -> dict[str, str]:
    """Return the labels that executions must have. Raises RequestValidationError."""
    pairs = [each.partition("=")[::2] for each in wanted or ()]
    if len(dict(pairs)) < len(set(pairs)):
        raise cursors.invalid("metadata", "one label cannot have two values")
    return dict(pairs)


@router.get("", summary="List executions", responses=responses())
async def list_executions(
    caller: CanRead,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    project: Annotated[Name | None, Query()] = None,
    metadata: Labels = None,
    state: Annotated[list[State] | None, Query(max_length=len(State))] = None,
    created_after: Annotated[cursors.Moment | None, Query()] = None,
    created_before: Annotated[cursors.Moment | None, Query()] = None,
) -> ExecutionPage:
    """Return the tenant's executions, newest first, without their output."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await list_newest(
            tx,
            ExecutionQuery(
                before=cursors.decode_id(cursor),
                project=project,
                metadata=labels(metadata),
                states=state,
                created_after=cursors.in_range(created_after),
                created_before=cursors.in_range(created_before),
                limit=limit + 1,
            ),
        )
    page, next_cursor = cursors.page(found, limit, lambda each: each.id)
    return ExecutionPage(
        items=[ExecutionView.of(Seen(each)) for each in page],
        next_cursor=next_cursor,
    )


@router.get(
    "/{execution_id}",
    summary="Read one execution",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> ExecutionView:
    """Return an execution; after its end, with its output and artifacts."""
    return ExecutionView.of(await read_whole(parts.database, caller, execution_id))


@router.post(
    "/{execution_id}/cancel",
    summary="Cancel an execution",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        200: {"model": ExecutionView, "description": "It has ended."},
        202: {"description": "The worker has been asked to end it."},
        **responses(HTTPStatus.NOT_FOUND),
    },
)
async def cancel(
    response: Response,
    execution_id: ExecutionId,
    caller: CanCancel,
    parts: Parts,
) -> ExecutionView:
    """End a queued execution at once and a running one soon. One that has ended stays as it is."""
    seen = await cancel_one(parts.database, parts.changes, caller, execution_id)
    response.status_code = _status(seen)
    return _view(caller, seen)


def _view(caller: Caller, seen: Seen) -> ExecutionView:
    """Return what a caller may see: output and artifacts' names only with `execution:read`."""
    may_read = may(caller.principal, Permission.EXECUTION_READ)
    return ExecutionView.of(seen if may_read else Seen(seen.execution, seen.place))


def _status(seen: Seen) -> HTTPStatus:
    return HTTPStatus.OK if seen.has_ended else HTTPStatus.ACCEPTED
