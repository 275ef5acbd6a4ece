"""`/v1/executions`: submit, read, list, cancel."""

import asyncio
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Query, Request, Response

from runner.api import cursors
from runner.api.deps import (
    NO_EXECUTION,
    CanCancel,
    CanCreate,
    CanRead,
    Dependencies,
    ExecutionId,
    Parts,
    require,
)
from runner.api.edge.json import JsonRoute, aside
from runner.api.fields import Name
from runner.api.idempotency import IdempotencyKey, fingerprint, require_same
from runner.api.problems import responses
from runner.api.requests import Offer, Submission
from runner.api.rules import ceilings
from runner.api.views import ExecutionPage, ExecutionView
from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.egress.policy import rule_from_json
from runner.queue.changes import News
from runner.quotas.tiers import Standing, Waiting, ceiling, refusal
from runner.store import egress_policies, executions, files, projects, quotas, tenants
from runner.store.db import Transaction
from runner.words.errors import Invalid, NotFound, QueueUnavailable, QuotaExceeded
from runner.words.execution import ExecutionRequest, StoredObject
from runner.words.ids import new_id
from runner.words.states import ACTIVE, ENDED, State

LOOK_AGAIN_S = 1.0
"""Hints of a change may be lost with Redis: look by ourselves this often."""

router = APIRouter(prefix="/v1/executions", tags=["executions"], route_class=JsonRoute)
_log = structlog.get_logger("runner.api")


@router.post(
    "",
    summary="Run a program",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        200: {"model": ExecutionView, "description": "It ended within `wait_s`."},
        202: {
            "description": "It is queued or running; `Location` tells where to ask.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.CONFLICT,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            HTTPStatus.TOO_MANY_REQUESTS,
        ),
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
    """Store an execution and queue it; with `wait_s`, answer with its result if it comes in time.

    The program runs in a hardened container of its own, without any network but what `egress`
    permits by way of the proxy.
    """
    # Asked before anything is stored: without the queue nothing is accepted.
    await parts.doorbell.require()
    if body.keys:
        await require(request, parts, caller, Permission.FILE_READ)
    if body.artifacts_to is not None:
        await require(request, parts, caller, Permission.FILE_WRITE)
    new = new_id()
    sent = await request.json()
    own = await aside(request.scope, partial(fingerprint, sent)) if key is not None else b""
    waiting = await parts.admission.look()
    with parts.changes.watch(new, News.ENDED) as watch:
        try:
            used = await _store(body, caller, parts, key, own, new, waiting)
        except QuotaExceeded as refused:
            await _audit_refusal(caller, parts, refused)
            raise
        id_ = used.execution_id if used else new
        if used:
            await require_same(request.scope, used.request_hash, own, sent, body)
        deadline = asyncio.get_running_loop().time() + body.wait_s
        if id_ == new:
            await _ring(parts, caller, id_)
            # It cannot have ended before a worker heard of it: there is nothing to read yet.
            await watch.wait(min(body.wait_s, LOOK_AGAIN_S))
        while True:
            view = await _view(parts, caller, id_)
            left = deadline - asyncio.get_running_loop().time()
            if view.state in ENDED or left <= 0:
                break
            await watch.wait(min(left, LOOK_AGAIN_S))
    response.headers["Location"] = f"/v1/executions/{id_}"
    response.status_code = HTTPStatus.OK if view.state in ENDED else HTTPStatus.ACCEPTED
    return view


@router.get("", summary="List executions", responses=responses())
async def list_executions(
    caller: CanRead,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    project: Annotated[Name | None, Query()] = None,
    state: Annotated[list[State] | None, Query(max_length=len(State))] = None,
    created_after: Annotated[cursors.Moment | None, Query()] = None,
    created_before: Annotated[cursors.Moment | None, Query()] = None,
) -> ExecutionPage:
    """Return this tenant's executions, newest first, without their output."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await executions.list_newest(
            tx,
            before=cursors.decode_id(cursor),
            project=project,
            states=state,
            created_after=cursors.in_range(created_after),
            created_before=cursors.in_range(created_before),
            limit=limit + 1,
        )
    page = found[:limit]
    return ExecutionPage(
        items=[ExecutionView.of(execution) for execution in page],
        next_cursor=cursors.encode(page[-1].id) if len(found) > limit else None,
    )


@router.get(
    "/{execution_id}",
    summary="Read one execution",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read(execution_id: ExecutionId, caller: CanRead, parts: Parts) -> ExecutionView:
    """Return an execution; once it has ended, with its output and artifacts."""
    return await _view(parts, caller, execution_id)


@router.post(
    "/{execution_id}/cancel",
    summary="Cancel an execution",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        200: {"model": ExecutionView, "description": "It has ended."},
        202: {"description": "The worker was asked to end it."},
        **responses(HTTPStatus.NOT_FOUND),
    },
)
async def cancel(
    response: Response,
    execution_id: ExecutionId,
    caller: CanCancel,
    parts: Parts,
) -> ExecutionView:
    """End a queued execution at once, and a running one shortly. An ended one stays as it is."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        before = await executions.cancel(tx, execution_id)
        if before is None:
            raise NotFound(NO_EXECUTION)
        if before not in ENDED:
            caller.record(
                tx,
                Action.EXECUTION_CANCEL,
                "execution",
                str(execution_id),
                {"state": before.value},
            )
    # Before anything that could fail: it is stored, and a worker has to hear of it.
    parts.changes.announce(execution_id, News.CANCELLING if before in ACTIVE else News.ENDED)
    view = await _view(parts, caller, execution_id)
    response.status_code = HTTPStatus.OK if view.state in ENDED else HTTPStatus.ACCEPTED
    return view


async def _store(
    body: Submission,
    caller: Caller,
    parts: Dependencies,
    key: str | None,
    own: bytes,
    new: UUID,
    waiting: Waiting,
) -> executions.KeyUse | None:
    """Store the execution; if its idempotency key was used before, return that use instead."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        # From here to the end of the transaction, so that the last place is given away once.
        tenant, standing = await quotas.alone(tx)
        if tenant is None:
            raise NotFound("this key's tenant is gone")
        if key is not None and (used := await executions.reserve_key(tx, key, own, new)):
            return used
        settled = await _in_project(tx, body)
        wanted = settled.resolve(await _offer(tx, parts, tenant, standing, settled))
        if refused := refusal(standing, egress=bool(wanted.egress)):
            raise refused
        parts.admission.require(waiting, standing.queued)
        executions.insert_later(tx, new, _naming(wanted, new))
        for path in sorted(body.keys):
            caller.record(tx, Action.FILE_READ, "file", path, {"execution": str(new)})
        facts = {
            "image": wanted.sandbox.image,
            "size": wanted.size,
            "language": wanted.language,
            "isolation": wanted.sandbox.isolation.value,
        }
        caller.record(tx, Action.EXECUTION_SUBMIT, "execution", str(new), facts)
    return None


async def _audit_refusal(caller: Caller, parts: Dependencies, refused: QuotaExceeded) -> None:
    facts = {"quota": refused.quota, "limit": refused.limit, "used": refused.used}
    async with parts.database.tenant(caller.tenant_id) as tx:
        caller.record(
            tx, Action.EXECUTION_SUBMIT, "execution", metadata=facts, outcome=Outcome.DENIED
        )


def _naming(wanted: ExecutionRequest, id_: UUID) -> ExecutionRequest:
    """Return the request with its id in place of the word for it."""
    if wanted.artifacts_to is None:
        return wanted
    return replace(wanted, artifacts_to=wanted.artifacts_to.replace("{execution_id}", str(id_)))


async def _in_project(tx: Transaction, body: Submission) -> Submission:
    """Return the submission with its project's settings where it says nothing itself."""
    if body.project is None:
        return body
    project = await projects.get(tx, body.project)
    if project is None:
        raise Invalid(f"there is no project {body.project!r}", "project")
    return body.model_copy(update={"egress_policy": body.egress_policy or project.egress_policy})


async def _offer(
    tx: Transaction,
    parts: Dependencies,
    tenant: tenants.Tenant,
    standing: Standing,
    body: Submission,
) -> Offer:
    policy = body.egress_policy and await egress_policies.get(tx, body.egress_policy)
    return Offer(
        sizes=parts.sizes,
        images=parts.settings.images,
        isolations=parts.settings.isolation,
        max_limits=ceiling(tenant.terms.max_limits, standing.quotas, parts.sizes),
        required_isolation=tenant.terms.required_isolation,
        reuse=tenant.terms.reuse,
        egress_ceilings=ceilings(parts.egress_ceiling, tenant.terms),
        egress_policy=tuple(map(rule_from_json, policy.rules)) if policy else None,
        stored={
            path: StoredObject(each.object_key, each.size, each.sha256)
            for path, each in (await files.hold(tx, body.keys)).items()
        },
    )


async def _ring(parts: Dependencies, caller: Caller, id_: UUID) -> None:
    try:
        await parts.doorbell.ring(caller.tenant_id, id_)
    except QueueUnavailable as error:
        # It is stored, and the worker's reconciler rings again for what waits without a ring.
        _log.warning("ring_lost", execution=str(id_), detail=error.detail)


async def _view(parts: Dependencies, caller: Caller, id_: UUID) -> ExecutionView:
    found = await executions.whole(parts.database, caller.tenant_id, id_)
    if found is None:
        raise NotFound(NO_EXECUTION)
    execution = found.execution
    if execution.state is State.QUEUED:
        async with parts.database.tenant(caller.tenant_id) as tx:
            return ExecutionView.of(execution, place=await executions.queue_place(tx, id_))
    if execution.state not in ENDED:
        return ExecutionView.of(execution)
    left = [each.artifact for each in found.artifacts]
    return ExecutionView.of(execution, output=found.output, artifacts=left)
