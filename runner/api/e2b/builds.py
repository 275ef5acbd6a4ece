"""Templates as E2B's clients build them: an id first, then files, then steps.

Files are stored among the tenant's own, below `e2b-builds/`, by the route for those. The answer
that says where has the caller's own key for it, which their client does not send by itself.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request

from runner.api.deps import Dependencies, Parts, id_in_path, require
from runner.api.e2b.build_requests import E2bBuild, E2bTemplate, Hash, steps_of
from runner.api.e2b.sandboxes import egress_order
from runner.api.e2b.views import BuildAnswer, BuildStatus, FilesAnswer
from runner.api.edge.json import JsonRoute
from runner.api.template_requests import DEFAULT_BUILD_S, DEFAULT_BUILD_SIZE
from runner.api.templates import CanBuild, CanReadTemplates
from runner.auth.caller import Caller
from runner.auth.keys import from_e2b_form
from runner.auth.permissions import Permission
from runner.base.recipe import read_recipe
from runner.sandboxes.catalogue import image_called, listed, names_of
from runner.store.files import StoredFile
from runner.templates.building import BuildTerms
from runner.templates.builds import NO_TEMPLATE, TemplateOrder
from runner.tenants import files
from runner.words.errors import Invalid, NotFound
from runner.words.sandbox import account_called

router = APIRouter(route_class=JsonRoute)

FILES = "e2b-builds"
"""The prefix of the names of stored files that E2B's clients have brought for a build."""
MOST_ENTRIES = 100
TemplateId = Annotated[UUID, Depends(id_in_path("template_id", "The template's id.", NO_TEMPLATE))]


@router.post("/v3/templates", status_code=HTTPStatus.ACCEPTED)
async def announce(body: E2bTemplate, caller: CanBuild, parts: Parts) -> BuildAnswer:
    """Give a template an id. Its steps come later."""
    name, (tag, *more) = body.named()
    announced = await parts.templates.announce(caller, name, tag, more, body.limits)
    return BuildAnswer.of(announced)


@router.get("/templates/{template_id}/files/{files_hash}", status_code=HTTPStatus.CREATED)
async def files_of(
    request: Request,
    template_id: TemplateId,
    files_hash: Annotated[Hash, Path()],
    caller: CanBuild,
    parts: Parts,
) -> FilesAnswer:
    """Return whether the files of a step are stored, and where to bring them."""
    await require(request, parts, caller, Permission.FILE_WRITE)
    await parts.templates.read(caller, template_id)
    token = from_e2b_form(request.headers.get("x-api-key", "")) or ""
    return FilesAnswer(
        present=bool(await _stored(parts, caller, [files_hash])),
        url=str(request.base_url.replace(path=f"/v1/files/{FILES}/{files_hash}")),
        headers={"Authorization": f"Bearer {token}"},
    )


@router.post("/v2/templates/{template_id}/builds/{build_id}", status_code=HTTPStatus.ACCEPTED)
async def begin(
    request: Request,
    body: E2bBuild,
    template_id: TemplateId,
    build_id: Annotated[UUID, Depends(id_in_path("build_id", "The build's id.", NO_TEMPLATE))],  # noqa: ARG001 - a template has one build, whose id is its own
    caller: CanBuild,
    parts: Parts,
) -> None:
    """Begin a build with these steps."""
    for each in (Permission.SANDBOX_CREATE, Permission.FILE_READ):
        await require(request, parts, caller, each)
    await parts.templates.read(caller, template_id)
    base = await _base(body, caller, parts)
    own = read_recipe(parts.settings.recipes_path, base.image).account
    account = account_called(base.user, own)
    wanted = [each.files_hash for each in body.steps if each.files_hash]
    stored = await _stored(parts, caller, wanted)
    egress = await egress_order(caller, parts, None, internet=None)
    order = TemplateOrder(
        name="",
        base=base.name,
        steps=tuple(steps_of(body.steps, account, base.env, stored, base.workdir)),
        startup=body.startup,
        anew=body.anew,
        terms=BuildTerms(
            size=DEFAULT_BUILD_SIZE,
            limits={},
            egress=egress.entries,
            egress_policy=egress.policy,
            secret_env={},
            within_s=DEFAULT_BUILD_S,
        ),
    )
    await parts.templates.begin(caller, template_id, order)


@router.get("/templates/{template_id}/builds/{build_id}/status", response_model_exclude_none=True)
async def status(
    template_id: TemplateId,
    build_id: Annotated[UUID, Depends(id_in_path("build_id", "The build's id.", NO_TEMPLATE))],  # noqa: ARG001 - as above
    caller: CanReadTemplates,
    parts: Parts,
    after: Annotated[int, Query(alias="logsOffset", ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=0, le=MOST_ENTRIES)] = MOST_ENTRIES,
) -> BuildStatus:
    """Return how a build goes on, and what it wrote after so many entries."""
    found = await parts.templates.read(caller, template_id)
    entries = await parts.templates.log(caller, template_id, after=after, limit=limit)
    return BuildStatus.of(found, entries)


@dataclass(frozen=True, slots=True)
class _Base:
    """What a template is built on."""

    name: str
    image: str
    """The deployment's image, which is below all."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    workdir: str | None = None
    user: str | None = None


async def _base(body: E2bBuild, caller: Caller, parts: Dependencies) -> _Base:
    images, names = parts.sandboxes.catalogue.images, parts.sandboxes.catalogue.image_names
    if (given := body.from_template) is not None and given not in images:
        found = await parts.templates.find(caller, given)
        if found is not None:
            return _Base(found.image, found.base_image, found.env, found.workdir, found.user)
    asked = given or body.from_image or ""
    image = image_called(asked, images, names)
    if image is None and given is not None:
        raise Invalid(f"there is no template {given!r}", "fromTemplate")
    if image is None:
        raise Invalid(
            f"there is no image {asked!r} to build on; there are "
            f"{listed(names_of(images, names))}. The operator names further ones in "
            "RUNNER_TEMPLATE_IMAGES",
            "fromImage",
        )
    return _Base(image, image)


async def _stored(parts: Dependencies, caller: Caller, hashes: list[str]) -> dict[str, StoredFile]:
    """Return the stored files of these hashes."""
    found = {}
    async with parts.database.tenant(caller.tenant_id) as tx:
        for each in hashes:
            with suppress(NotFound):
                found[each] = await files.look(tx, f"{FILES}/{each}")
    return found
