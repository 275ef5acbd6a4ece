"""Sandboxes by E2B's control plane: made, connected to, listed, changed, paused, ended."""

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qsl, unquote

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import StringConstraints

from runner.api import cursors
from runner.api.deps import (
    Allow,
    CanReadSandboxes,
    CanUseSandboxes,
    Dependencies,
    Parts,
    SandboxId,
    require,
)
from runner.api.e2b import network, templates
from runner.api.e2b.requests import (
    Connecting,
    E2bFirstSandbox,
    E2bSandbox,
    NetworkChange,
    NetworkRules,
    Pausing,
    Refreshing,
    Resuming,
    TemplateName,
    Timing,
)
from runner.api.e2b.views import LISTED, ListedSandbox, SandboxAnswer, SandboxDetail
from runner.api.edge.json import JsonRoute
from runner.api.fields import storable
from runner.api.idempotency import IdempotencyKey, under
from runner.api.uploads import attentive
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.auth.sandbox_tokens import Use
from runner.sandboxes.copies import Beginning
from runner.sandboxes.egress import EgressOrder
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import NO_SANDBOX
from runner.store.sandboxes import ImageFilter, LifeChange, SandboxListing
from runner.tenants import policies
from runner.words.errors import Conflict, NotFound
from runner.words.lives import Life, OnTimeout
from runner.words.living import StoredSandbox

router = APIRouter(route_class=JsonRoute)

CanCreate = Annotated[Caller, Depends(Allow(Permission.SANDBOX_CREATE))]
CanDelete = Annotated[Caller, Depends(Allow(Permission.SANDBOX_DELETE))]
Filter = Annotated[str, StringConstraints(max_length=4096)]
MOST_LISTED = 1000
ORDERS = frozenset({None, "asc", "desc"})
MOST_LABELS = 64
"""How many labels a filter may have."""
SHORTEST_S = 1.0
"""E2B permits a time of 0, which ends a sandbox at once."""
_OVER = frozenset({Life.STOPPING, Life.ENDED})


@router.post("/v2/sandboxes", status_code=HTTPStatus.CREATED)
async def create(
    request: Request,
    body: E2bSandbox,
    caller: CanCreate,
    parts: Parts,
    key: IdempotencyKey = None,
) -> SandboxAnswer:
    """Make a sandbox from a template or a snapshot; answer when it takes commands."""
    return await _create(request, body, caller, parts, key)


@router.post("/sandboxes", status_code=HTTPStatus.CREATED)
async def create_first(
    request: Request,
    body: E2bFirstSandbox,
    caller: CanCreate,
    parts: Parts,
    key: IdempotencyKey = None,
) -> SandboxAnswer:
    """Make a sandbox, as clients of early versions ask for it."""
    return await _create(request, body, caller, parts, key)


async def _create(
    request: Request, body: E2bSandbox, caller: Caller, parts: Dependencies, key: str | None
) -> SandboxAnswer:
    # Without it there would be a sandbox that nobody can use.
    parts.tokens.require_key()
    catalogue = parts.sandboxes.catalogue
    source = await templates.find(body.template_id, catalogue, parts.templates, caller)
    egress = await egress_order(caller, parts, body.network, internet=body.internet)
    order = LivingOrder(
        image=source.image,
        egress=egress.entries,
        egress_policy=egress.policy,
        env=body.env_vars,
        metadata=body.metadata,
        timeout_s=max(SHORTEST_S, body.timeout),
        on_timeout=OnTimeout.PAUSE if body.auto_pause else OnTimeout.KILL,
        auto_resume=body.auto_resume is not None and body.auto_resume.enabled,
    )
    once = None if key is None else await under(key, request)
    if source.snapshot is None:
        made = await parts.sandboxes.create(caller, order, once=once)
    else:
        await require(request, parts, caller, Permission.SNAPSHOT_READ)
        making = parts.copies.create(caller, order, Beginning(snapshot=source.snapshot), once=once)
        made = await attentive(request, making, stays=once is not None)
    return await answer(made, caller, parts)


@router.get("/sandboxes", response_model_exclude_none=True)
async def list_running(
    caller: CanReadSandboxes, parts: Parts, metadata: Annotated[Filter | None, Query()] = None
) -> list[ListedSandbox]:
    """Return the tenant's running sandboxes, newest first."""
    wanted = SandboxListing(
        limit=MOST_LISTED, metadata=_metadata(metadata), states=sorted(LISTED["running"])
    )
    found = await parts.sandboxes.list_some(caller, wanted)
    return [ListedSandbox.of(each) for each in found]


@router.get("/v2/sandboxes")
async def list_sandboxes(
    response: Response,
    caller: CanReadSandboxes,
    parts: Parts,
    metadata: Annotated[Filter | None, Query()] = None,
    state: Annotated[Filter | None, Query()] = None,
    order: Annotated[Filter | None, Query()] = None,
    template: Annotated[TemplateName | None, Query()] = None,
    started_after: Annotated[cursors.Moment | None, Query(alias="startedAfter")] = None,
    token: Annotated[str | None, Query(alias="nextToken", max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> list[ListedSandbox]:
    """Return the tenant's running and paused sandboxes a page at a time, by default newest first.

    `template` is a template's id, or its name: then it stands for all builds of that name, or,
    with a tag, for the one that has the tag now.
    """
    if order not in ORDERS:
        raise cursors.invalid("order", "it is asc or desc")
    wanted = SandboxListing(
        limit=limit + 1,
        beyond=cursors.decode_id(token),
        oldest_first=order == "asc",
        metadata=_metadata(metadata),
        states=_states(state),
        image=await _image(template, caller, parts),
        started_from=cursors.in_range(started_after),
    )
    found = await parts.sandboxes.list_some(caller, wanted)
    page, following = cursors.page(found, limit, lambda each: each.id)
    if following is not None:
        response.headers["x-next-token"] = following
    return [ListedSandbox.of(each) for each in page]


@router.get("/sandboxes/{sandbox_id}")
async def read(sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts) -> SandboxDetail:
    """Return a sandbox as it is now."""
    found = await _living(caller, parts, sandbox_id)
    return SandboxDetail.with_domain(found, parts.settings.ports_domain)


@router.delete("/sandboxes/{sandbox_id}", status_code=HTTPStatus.NO_CONTENT)
async def kill(sandbox_id: SandboxId, caller: CanDelete, parts: Parts) -> None:
    """End a sandbox, whatever it is doing."""
    await _living(caller, parts, sandbox_id)
    await parts.sandboxes.kill(caller, sandbox_id)


@router.post("/v2/sandboxes/{sandbox_id}/connect")
async def connect(
    body: Connecting,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    response: Response,
) -> SandboxAnswer:
    """Resume a sandbox if it is paused, and have it live for this time at least."""
    return await _connect(body, sandbox_id, caller, parts, response)


@router.post("/sandboxes/{sandbox_id}/connect")
async def connect_first(
    body: Connecting,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    response: Response,
) -> SandboxAnswer:
    """Resume a sandbox if it is paused, as clients of early versions ask for it."""
    return await _connect(body, sandbox_id, caller, parts, response)


@router.post("/sandboxes/{sandbox_id}/resume", status_code=HTTPStatus.CREATED)
async def resume(
    body: Resuming,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    response: Response,
) -> SandboxAnswer:
    """Resume a paused sandbox."""
    found = await _living(caller, parts, sandbox_id)
    if found.state is Life.RUNNING:
        raise Conflict("this sandbox is running already")
    return await _connect(body, sandbox_id, caller, parts, response)


async def _connect(
    body: Connecting, sandbox_id: SandboxId, caller: Caller, parts: Dependencies, response: Response
) -> SandboxAnswer:
    found = await _living(caller, parts, sandbox_id)
    paused = found.state in LISTED["paused"]
    # First its time: one that was paused because its time was up would be paused again at once.
    await _extend(caller, parts, found, body.timeout, shortens=paused)
    if paused:
        found = await parts.sandboxes.resume(caller, sandbox_id)
        response.status_code = HTTPStatus.CREATED
    return await answer(found, caller, parts)


@router.post("/sandboxes/{sandbox_id}/timeout", status_code=HTTPStatus.NO_CONTENT)
async def set_timeout(
    body: Timing, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> None:
    """Have a sandbox live for this time from now on."""
    found = await _living(caller, parts, sandbox_id)
    await _extend(caller, parts, found, body.timeout, shortens=True)


@router.post("/sandboxes/{sandbox_id}/refreshes", status_code=HTTPStatus.NO_CONTENT)
async def refresh(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    body: Refreshing | None = None,
) -> None:
    """Have a sandbox live for this time at least."""
    found = await _living(caller, parts, sandbox_id)
    await _extend(caller, parts, found, (body or Refreshing()).duration, shortens=False)


@router.post("/sandboxes/{sandbox_id}/pause", status_code=HTTPStatus.NO_CONTENT)
async def pause(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    body: Pausing | None = None,  # noqa: ARG001 - what it asks for is checked, and is what there is
) -> None:
    """Freeze a sandbox, with its memory; one that is paused already is answered 409."""
    found = await _living(caller, parts, sandbox_id)
    if found.state is Life.PAUSED:
        raise Conflict("this sandbox is paused already")
    await parts.sandboxes.pause(caller, sandbox_id)


@router.put("/sandboxes/{sandbox_id}/network", status_code=HTTPStatus.NO_CONTENT)
async def change_network(
    body: NetworkChange, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> None:
    """Replace what a sandbox may reach; when this is answered, the new rules decide."""
    await _living(caller, parts, sandbox_id)
    egress = await egress_order(caller, parts, body, internet=body.allow_internet_access)
    await parts.sandboxes.update(caller, sandbox_id, LifeChange(), egress)


async def answer(made: StoredSandbox, caller: Caller, parts: Dependencies) -> SandboxAnswer:
    """Return the answer for a sandbox, with the caller's token for it. Raises KeyUnavailable."""
    prefix = caller.principal.name
    token, traffic = (parts.tokens.issue(made.id, prefix, use) for use in Use)
    await parts.tokens.note_holder(caller, made.id, made.created_by)
    return SandboxAnswer.of(made, token, traffic, parts.settings.ports_domain)


async def _living(caller: Caller, parts: Dependencies, sandbox_id: SandboxId) -> StoredSandbox:
    """Return a sandbox that lives; to E2B's clients, one that has ended is not there."""
    found = await parts.sandboxes.read(caller, sandbox_id)
    if found.state in _OVER:
        raise NotFound(NO_SANDBOX)
    return found


async def _extend(
    caller: Caller, parts: Dependencies, found: StoredSandbox, seconds: int, *, shortens: bool
) -> None:
    """Set how long a sandbox lives from now on; unless `shortens`, only if that is longer."""
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    if shortens or (found.expires_at is not None and found.expires_at < ends):
        change = LifeChange(sets_timeout=True, timeout_s=max(SHORTEST_S, seconds))
        await parts.sandboxes.update(caller, found.id, change)


async def egress_order(
    caller: Caller, parts: Dependencies, asked: NetworkRules | None, *, internet: bool | None
) -> EgressOrder:
    """Return the egress rules for what a client asks of the network."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        opened = await policies.exists(tx, network.INTERNET)
    return network.order(asked, internet=internet, opened=opened)


def _metadata(text: str | None) -> dict[str, str]:
    """Return the labels of a filter, whose names and values clients quote twice.

    Raises RequestValidationError if there are too many, or if one cannot be stored.
    """
    try:
        pairs = parse_qsl(text or "", keep_blank_values=True, max_num_fields=MOST_LABELS)
    except ValueError:
        raise cursors.invalid("metadata", f"at most {MOST_LABELS} labels are taken") from None
    try:
        return {storable(unquote(name)): storable(unquote(value)) for name, value in pairs}
    except ValueError as error:
        raise cursors.invalid("metadata", f"names and values {error}") from None


async def _image(name: str | None, caller: Caller, parts: Dependencies) -> ImageFilter:
    """Return which images a filter by template stands for. Raises Invalid for a snapshot's id."""
    if name is None:
        return ImageFilter()
    found = await templates.images_of(name, parts.sandboxes.catalogue, parts.templates, caller)
    if found.ends is not None:
        await templates.require_no_snapshot(name, parts.copies.snapshots, caller)
    return found


def _states(text: str | None) -> list[Life]:
    names = LISTED.keys() if text is None else text.split(",")
    if unknown := next((each for each in names if each not in LISTED), None):
        raise cursors.invalid("state", f"{unknown[:32]!r} is not one of {', '.join(LISTED)}")
    return sorted({life for name in names for life in LISTED[name]})
