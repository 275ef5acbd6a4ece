"""`/v1/snapshots`: files of sandboxes, kept; and copies of sandboxes that run."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ConfigDict, Field, StringConstraints

from runner.api import cursors
from runner.api.counting import count
from runner.api.deps import Allow, CanUseSandboxes, Parts, SandboxId, id_in_path, require
from runner.api.edge.groups import Group
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, Text
from runner.api.idempotency import IdempotencyKey, under
from runner.api.problems import JSON_TAKEN, LIVING, responses
from runner.api.sandbox_requests import Metadata, Seconds
from runner.api.sandbox_views import SandboxView
from runner.api.uploads import attentive
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.sandboxes.copies import ForkTerms
from runner.sandboxes.order import DEFAULT_TIMEOUT_S
from runner.sandboxes.snapshots import NO_SNAPSHOT
from runner.store.idempotency import Once
from runner.store.snapshots import StoredSnapshot
from runner.words.lives import OnTimeout
from runner.words.resources import Resources
from runner.words.sandbox import Isolation

MOST_COPIES = 16
MOST_S = 3650 * 86_400

router = APIRouter(tags=["snapshots"], route_class=JsonRoute)

CanSnapshot = Annotated[Caller, Depends(Allow(Permission.SNAPSHOT_CREATE))]
CanReadSnapshots = Annotated[Caller, Depends(Allow(Permission.SNAPSHOT_READ))]
CanDeleteSnapshots = Annotated[Caller, Depends(Allow(Permission.SNAPSHOT_DELETE))]
SnapshotId = Annotated[UUID, Depends(id_in_path("snapshot_id", "The snapshot's id.", NO_SNAPSHOT))]


class NewSnapshot(Strict):
    """A snapshot to take."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "installed", "metadata": {"step": "2"}}]}
    )

    name: Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None = Field(
        default=None, description="Your own word for it, returned as it is."
    )
    metadata: Metadata = Field(
        default_factory=dict, description="Your own labels, returned as they are."
    )
    expires_s: Annotated[float, Field(ge=1, le=MOST_S)] | None = Field(
        default=None,
        description="For how many seconds it is kept; null until it is deleted. The tenant's quota "
        "`snapshot_days` may end it sooner.",
    )


class NewFork(Strict):
    """Copies of a sandbox to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"count": 2, "timeout_s": 600}]})

    count: int = Field(default=1, ge=1, le=MOST_COPIES)
    timeout_s: Seconds | None = Field(
        default=DEFAULT_TIMEOUT_S, description="How many seconds each lives; null for no end."
    )
    on_timeout: Annotated[OnTimeout, Field(strict=False)] | None = Field(
        default=None, description="What becomes of each then; by default, what the source has."
    )
    metadata: Metadata | None = Field(
        default=None, description="Labels of each; by default, those of the source."
    )


class SnapshotView(View):
    """The files of a sandbox's workspace, kept."""

    id: UUID
    name: str | None
    metadata: dict[str, str]
    sandbox: UUID = Field(description="The sandbox that it was taken of, which may have ended.")
    created_at: datetime
    expires_at: datetime | None = Field(description="When it is removed; null for never.")
    size_bytes: int = Field(description="Bytes of the archive of its files.")
    sha256: str = Field(description="Of that archive; checked whenever it is used.")
    image: str
    size: str
    limits: Resources
    isolation: Isolation

    @classmethod
    def of(cls, stored: StoredSnapshot) -> Self:
        """Return the view of a snapshot."""
        return cls(
            id=stored.id,
            name=stored.name,
            metadata=dict(stored.metadata),
            sandbox=stored.sandbox_id,
            created_at=stored.created_at,
            expires_at=stored.expires_at,
            size_bytes=stored.archive_bytes,
            sha256=stored.sha256,
            image=stored.spec.image,
            size=stored.size,
            limits=stored.spec.resources,
            isolation=stored.spec.isolation,
        )


class SnapshotPage(View):
    """Snapshots, newest first."""

    items: list[SnapshotView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page.")


class ForkView(View):
    """The copies of a sandbox."""

    items: list[SandboxView]


@router.post(
    "/v1/sandboxes/{sandbox_id}/snapshots",
    summary="Take a snapshot",
    status_code=HTTPStatus.CREATED,
    responses={
        201: {
            "description": "It is kept.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **LIVING,
        **responses(*JSON_TAKEN),
    },
)
async def take(
    request: Request,
    response: Response,
    body: NewSnapshot,
    sandbox_id: SandboxId,
    caller: CanSnapshot,
    parts: Parts,
    key: IdempotencyKey = None,
) -> SnapshotView:
    """Keep what is in a running sandbox's `/workspace`: files, not memory or processes.

    Processes go on meanwhile, so a file that is being written may be kept half written. It counts
    in the tenant's `snapshot_bytes`, `storage_bytes` and `stored_objects`, and is sealed to the
    tenant. If you hang up before the answer, nothing is kept, unless you sent an idempotency key.
    """
    once = await _once(key, request, sandbox_id)
    taking = parts.copies.snapshots.take(
        caller,
        sandbox_id,
        name=body.name,
        metadata=body.metadata,
        lasts_s=body.expires_s,
        once=once,
    )
    stored = await attentive(request, taking, stays=once is not None)
    response.headers["Location"] = f"/v1/snapshots/{stored.id}"
    return SnapshotView.of(stored)


@router.get("/v1/snapshots", summary="List snapshots", responses=responses())
async def list_snapshots(
    caller: CanReadSnapshots,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> SnapshotPage:
    """Return the tenant's snapshots, newest first."""
    before = cursors.decode_id(cursor)
    found = await parts.copies.snapshots.list_newest(caller, before=before, limit=limit + 1)
    page, next_cursor = cursors.page(found, limit, lambda each: each.id)
    return SnapshotPage(items=[SnapshotView.of(each) for each in page], next_cursor=next_cursor)


@router.get(
    "/v1/snapshots/{snapshot_id}",
    summary="Read one snapshot",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def read(snapshot_id: SnapshotId, caller: CanReadSnapshots, parts: Parts) -> SnapshotView:
    """Describe a snapshot. Its files are read in a sandbox that is made from it."""
    return SnapshotView.of(await parts.copies.snapshots.read(caller, snapshot_id))


@router.delete(
    "/v1/snapshots/{snapshot_id}",
    summary="Delete a snapshot",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(snapshot_id: SnapshotId, caller: CanDeleteSnapshots, parts: Parts) -> None:
    """Delete a snapshot. Sandboxes that were made from it keep their files."""
    await parts.copies.snapshots.delete(caller, snapshot_id)


@router.post(
    "/v1/sandboxes/{sandbox_id}/fork",
    summary="Copy a sandbox",
    status_code=HTTPStatus.CREATED,
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def fork(
    request: Request,
    body: NewFork,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    key: IdempotencyKey = None,
) -> ForkView:
    """Make sandboxes like a running one, with the files that are in its `/workspace`.

    They have its image, limits, isolation, egress rules, variables and secrets. None of its
    processes runs in them. Either all are made, or none; none if you hang up before the answer,
    unless you sent an idempotency key. Needs `sandbox:create`, too. Each copy counts as one request
    that makes a sandbox.
    """
    await require(request, parts, caller, Permission.SANDBOX_CREATE)
    # Each copy costs what a new sandbox costs; the request itself has paid for the first.
    await count(parts, caller, Group.SUBMIT, body.count - 1)
    terms = ForkTerms(body.timeout_s, body.on_timeout, body.metadata)
    once = await _once(key, request, sandbox_id)
    copying = parts.copies.fork(caller, sandbox_id, terms, count=body.count, once=once)
    made = await attentive(request, copying, stays=once is not None)
    return ForkView(items=[SandboxView.of(each) for each in made])


async def _once(key: str | None, request: Request, sandbox_id: UUID) -> Once | None:
    return None if key is None else await under(key, request, beside={"of": str(sandbox_id)})
