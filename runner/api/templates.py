"""`/v1/templates`: what sandboxes are made from, built by tenants."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import ConfigDict, Field

from runner.api import cursors
from runner.api.deps import Allow, Parts, id_in_path, require
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.template_requests import MAX_TAGS, NewTemplate, TemplateTag
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.templates import LogEntry, StoredTemplate, TemplateState
from runner.templates import tagging
from runner.templates.builds import NO_TEMPLATE

router = APIRouter(prefix="/v1/templates", tags=["templates"], route_class=JsonRoute)

CanBuild = Annotated[Caller, Depends(Allow(Permission.TEMPLATE_CREATE))]
CanReadTemplates = Annotated[Caller, Depends(Allow(Permission.TEMPLATE_READ))]
CanDeleteTemplates = Annotated[Caller, Depends(Allow(Permission.TEMPLATE_DELETE))]
TemplateId = Annotated[UUID, Depends(id_in_path("template_id", "The template's id.", NO_TEMPLATE))]


class TemplateView(View):
    """A template: what its sandboxes are made from, once it is ready."""

    id: UUID
    name: str
    tag: str
    image: str = Field(
        description="What a sandbox names as its `image` to be made from exactly this one."
    )
    state: TemplateState
    detail: str | None = Field(description="Why its build failed.")
    base: str = Field(description="The deployment's image below it.")
    steps: int = Field(description="How many steps made it, with those of templates below it.")
    env: dict[str, str]
    sandbox_limits: dict[str, float] = Field(
        description="Resources of its sandboxes that differ from the default size's."
    )
    workdir: str | None = Field(
        description="The folder in which processes of its sandboxes start; null for the home."
    )
    user: str | None = Field(
        description="The user of its sandboxes, whose home is `/home/` and this name; null for "
        "the base's own."
    )
    start: str | None = Field(description="The command that begins in each of its sandboxes.")
    ready: str | None = Field(description="The command that says when a new sandbox is ready.")
    ready_s: int | None = Field(description="How many seconds `ready` has.")
    size_bytes: int | None = Field(description="Bytes of what its own build has changed.")
    sha256: str | None = Field(description="Of the archive of that; checked whenever it is used.")
    tags: list[str] = Field(description="The tags that stand for it now.")
    public: bool = Field(
        description="Whether the operator has made it everybody's. Nobody changes it then."
    )
    created_by: str
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, stored: StoredTemplate) -> Self:
        """Return the view of a template."""
        startup = stored.startup
        return cls(
            id=stored.id,
            name=stored.name,
            tag=stored.tag,
            image=stored.image,
            state=stored.state,
            detail=stored.detail,
            base=stored.base_image,
            steps=len(stored.steps),
            env=dict(stored.env),
            sandbox_limits=dict(stored.limits),
            workdir=stored.workdir,
            user=stored.user,
            start=startup and startup.command,
            ready=startup and startup.ready,
            ready_s=startup and startup.within_s,
            size_bytes=stored.archive_bytes,
            sha256=stored.sha256,
            tags=list(stored.tags),
            public=stored.public,
            created_by=stored.created_by,
            created_at=stored.created_at,
            ended_at=stored.ended_at,
        )


class TemplatePage(View):
    """Templates, newest first."""

    items: list[TemplateView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page.")


class TemplateTags(Strict):
    """Tags for a template."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tags": ["stable", "v2"]}]})

    tags: list[TemplateTag] = Field(min_length=1, max_length=MAX_TAGS)


class TagView(View):
    """A tag of a name, and the template that it stands for."""

    tag: str
    template_id: UUID
    assigned_at: datetime


class TagList(View):
    """Every tag of a name."""

    items: list[TagView]


class LogEntryView(View):
    """Some of what a build wrote."""

    seq: int
    at: datetime
    text: str

    @classmethod
    def of(cls, entry: LogEntry) -> Self:
        """Return the view of an entry."""
        return cls(seq=entry.seq, at=entry.at, text=entry.text)


class TemplateLogView(View):
    """The log of a build, in order, and the build's progress."""

    state: TemplateState = Field(description="As of just before the entries were read.")
    items: list[LogEntryView]


@router.post(
    "",
    summary="Build a template",
    status_code=HTTPStatus.ACCEPTED,
    responses={
        202: {
            "description": "Its build has begun.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **responses(HTTPStatus.CONFLICT, *JSON_TAKEN),
    },
)
async def build(
    request: Request, response: Response, body: NewTemplate, caller: CanBuild, parts: Parts
) -> TemplateView:
    """Begin to build a template: read its state until that is `ready` or `failed`.

    The steps run as root in a sandbox of gVisor, where root is nobody on the host. That sandbox
    counts as one of yours while the build lasts. What the steps have written outside of `/tmp` is
    part of the template: its sandboxes find it there, owned by root and read-only, and what was
    written in the home is copied to theirs. Needs `sandbox:create`, too.
    """
    await require(request, parts, caller, Permission.SANDBOX_CREATE)
    stored = await parts.templates.build(caller, body.order())
    response.headers["Location"] = f"/v1/templates/{stored.id}"
    return TemplateView.of(stored)


@router.get("", summary="List templates", responses=responses())
async def list_templates(
    caller: CanReadTemplates,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    name: Annotated[str | None, Query(max_length=128)] = None,
    public: Annotated[bool, Query(description="List the operator's instead.")] = False,  # noqa: FBT002 - FastAPI passes it by name
) -> TemplatePage:
    """Return the tenant's templates, newest first, with builds that go on or have failed."""
    before = cursors.decode_id(cursor)
    found = await parts.templates.list_newest(
        caller, before=before, limit=limit + 1, name=name, public=public
    )
    page, next_cursor = cursors.page(found, limit, lambda each: each.id)
    return TemplatePage(items=[TemplateView.of(each) for each in page], next_cursor=next_cursor)


@router.get(
    "/{template_id}", summary="Read one template", responses=responses(HTTPStatus.NOT_FOUND)
)
async def read(template_id: TemplateId, caller: CanReadTemplates, parts: Parts) -> TemplateView:
    """Describe a template of yours or the operator's, and how its build goes on or has ended."""
    return TemplateView.of(await parts.templates.read(caller, template_id))


@router.get(
    "/{template_id}/logs",
    summary="Read a build's log",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def logs(
    template_id: TemplateId,
    caller: CanReadTemplates,
    parts: Parts,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> TemplateLogView:
    """Return what a build has written. Give the last `seq` as `after` to read what follows."""
    stored = await parts.templates.read(caller, template_id)
    found = await parts.templates.log(caller, template_id, after=after, limit=limit)
    return TemplateLogView(state=stored.state, items=[LogEntryView.of(each) for each in found])


@router.get(
    "/{template_id}/tags",
    summary="List a template's tags",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def list_tags(template_id: TemplateId, caller: CanReadTemplates, parts: Parts) -> TagList:
    """Return every tag of the template's name, with the template that each stands for."""
    stored = await parts.templates.read(caller, template_id)
    found = await tagging.tags_of(parts.database, caller, stored.name)
    return TagList(
        items=[
            TagView(tag=each.tag, template_id=each.template_id, assigned_at=each.assigned_at)
            for each in found
        ]
    )


@router.post(
    "/{template_id}/tags",
    summary="Tag a template",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def tag(
    template_id: TemplateId, body: TemplateTags, caller: CanBuild, parts: Parts
) -> TemplateView:
    """Let tags of its name stand for this template from now on, whatever they stood for before."""
    stored = await parts.templates.read(caller, template_id)
    await tagging.tag(parts.database, caller, stored, body.tags)
    return TemplateView.of(await parts.templates.read(caller, template_id))


@router.delete(
    "/{template_id}/tags/{tag}",
    summary="Remove a template's tag",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def untag(
    template_id: TemplateId,
    tag: Annotated[str, Path(max_length=64)],
    caller: CanBuild,
    parts: Parts,
) -> None:
    """Let a tag stand for nothing. The template stays, and has its other tags."""
    stored = await parts.templates.read(caller, template_id)
    await tagging.untag(parts.database, caller, stored.name, [tag], template_id)


@router.delete(
    "/{template_id}",
    summary="Delete a template",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def delete(template_id: TemplateId, caller: CanDeleteTemplates, parts: Parts) -> None:
    """Delete a template, unless another one is built on it. Its sandboxes live on."""
    await parts.templates.delete(caller, template_id)
