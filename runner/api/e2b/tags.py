"""Tags of templates, as E2B's clients move them: by a template's name, not by its id."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from runner.api.deps import Parts
from runner.api.e2b.build_requests import NewTags, OldTags
from runner.api.e2b.views import AssignedTags, TagAnswer
from runner.api.edge.json import JsonRoute
from runner.api.templates import CanBuild, CanReadTemplates
from runner.templates import tagging
from runner.words.errors import NotFound

router = APIRouter(route_class=JsonRoute)

NAME_LENGTH = 128


@router.post("/templates/tags", status_code=HTTPStatus.CREATED)
async def assign(body: NewTags, caller: CanBuild, parts: Parts) -> AssignedTags:
    """Give a template tags, taking them from other builds of its name."""
    found = await parts.templates.find(caller, body.target)
    if found is None:
        raise NotFound(f"there is no template {body.target!r}")
    await tagging.tag(parts.database, caller, found, body.tags)
    return AssignedTags(tags=body.tags, build_id=str(found.id))


@router.delete("/templates/tags", status_code=HTTPStatus.NO_CONTENT)
async def remove(body: OldTags, caller: CanBuild, parts: Parts) -> None:
    """Let tags of a name stand for nothing."""
    await tagging.untag(parts.database, caller, body.name, body.tags)


@router.get("/templates/{named}/tags")
async def read(
    named: Annotated[str, Path(max_length=NAME_LENGTH)], caller: CanReadTemplates, parts: Parts
) -> list[TagAnswer]:
    """Return every tag of a name, or of the name that a template's id has."""
    found = await parts.templates.find(caller, named)
    tags = await tagging.tags_of(parts.database, caller, found.name if found else named)
    if not tags:
        raise NotFound(f"there is no template {named!r}")
    return [
        TagAnswer(tag=each.tag, build_id=str(each.template_id), created_at=each.assigned_at)
        for each in tags
    ]
