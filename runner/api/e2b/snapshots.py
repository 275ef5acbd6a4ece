"""Snapshots of sandboxes, which E2B's clients use as templates; and copies of sandboxes."""

from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from runner.api import cursors
from runner.api.counting import count
from runner.api.deps import CanUseSandboxes, Parts, SandboxId, require
from runner.api.e2b import templates
from runner.api.e2b.requests import E2bSnapshot, NewForks, TemplateName
from runner.api.e2b.sandboxes import MOST_LISTED, SHORTEST_S, answer
from runner.api.e2b.views import ForkAnswer, SnapshotAnswer, TemplateAnswer
from runner.api.edge.groups import Group
from runner.api.edge.json import JsonRoute
from runner.api.snapshots import CanDeleteSnapshots, CanReadSnapshots, CanSnapshot
from runner.api.uploads import attentive
from runner.auth.permissions import Permission
from runner.sandboxes.copies import ForkTerms
from runner.words.errors import NotFound

router = APIRouter(route_class=JsonRoute)


@router.post("/sandboxes/{sandbox_id}/snapshots", status_code=HTTPStatus.CREATED)
async def take(
    request: Request, body: E2bSnapshot, sandbox_id: SandboxId, caller: CanSnapshot, parts: Parts
) -> SnapshotAnswer:
    """Keep the files of a running sandbox."""
    taking = parts.copies.snapshots.take(caller, sandbox_id, name=body.name, metadata={})
    return SnapshotAnswer.of(await attentive(request, taking))


@router.get("/snapshots")
async def list_snapshots(
    response: Response,
    caller: CanReadSnapshots,
    parts: Parts,
    sandbox: Annotated[UUID | None, Query(alias="sandboxID")] = None,
    name: Annotated[TemplateName | None, Query()] = None,
    token: Annotated[str | None, Query(alias="nextToken", max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> list[SnapshotAnswer]:
    """Return the tenant's snapshots, newest first, a page at a time."""
    found = await parts.copies.snapshots.list_newest(
        caller, before=cursors.decode_id(token), limit=limit + 1, of=sandbox, name=name
    )
    page, following = cursors.page(found, limit, lambda each: each.id)
    if following is not None:
        response.headers["x-next-token"] = following
    return [SnapshotAnswer.of(each) for each in page]


@router.delete("/templates/{template}", status_code=HTTPStatus.NO_CONTENT)
async def delete(
    request: Request, template: TemplateName, caller: CanDeleteSnapshots, parts: Parts
) -> None:
    """Delete a snapshot or a template. Templates that are images belong to the deployment."""
    if (built := await parts.templates.find(caller, template)) is not None:
        await require(request, parts, caller, Permission.TEMPLATE_DELETE)
        await parts.templates.delete(caller, built.id)
        return
    if (snapshot := templates.snapshot_in(template)) is None:
        raise NotFound(f"there is no snapshot or template {template!r}")
    await parts.copies.snapshots.delete(caller, snapshot)


@router.get("/templates/aliases/{alias}")
async def read_alias(alias: TemplateName, caller: CanReadSnapshots, parts: Parts) -> TemplateAnswer:
    """Return what a template's name stands for."""
    source = await templates.find(alias, parts.sandboxes.catalogue, parts.templates, caller)
    if source.snapshot is not None:
        kept = await parts.copies.snapshots.read(caller, source.snapshot)
        return TemplateAnswer(template_id=str(kept.id), public=False)
    return TemplateAnswer(
        template_id=str(source.template or source.image or ""), public=source.public
    )


@router.post("/sandboxes/{sandbox_id}/fork", status_code=HTTPStatus.CREATED)
async def fork(
    request: Request, body: NewForks, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> list[ForkAnswer]:
    """Make sandboxes with the files of a running one: all of them, or none."""
    await require(request, parts, caller, Permission.SANDBOX_CREATE)
    parts.tokens.require_key()
    await count(parts, caller, Group.SUBMIT, body.count - 1)
    terms = ForkTerms(max(SHORTEST_S, body.timeout))
    copying = parts.copies.fork(caller, sandbox_id, terms, count=body.count)
    made = await attentive(request, copying)
    return [ForkAnswer(sandbox=await answer(each, caller, parts)) for each in made]
