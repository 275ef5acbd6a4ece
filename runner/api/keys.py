"""`/v1/keys`: API keys made, listed by prefix, rotated with an overlap, and revoked at once."""

from datetime import datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_network
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from runner.api import cursors
from runner.api.deps import Allow, Parts, id_in_path
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, Text
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.keys import in_e2b_form
from runner.auth.permissions import Permission
from runner.store.keys import Grant, StoredKey
from runner.tenants import keys
from runner.tenants.keys import NO_KEY, MadeKey
from runner.words.principal import Role

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=JsonRoute)

CanReadKeys = Annotated[Caller, Depends(Allow(Permission.API_KEY_READ))]
CanWriteKeys = Annotated[Caller, Depends(Allow(Permission.API_KEY_WRITE))]

MAX_OVERLAP_S = 30 * 24 * 3600


def _network(written: str) -> str:
    try:
        ip_network(written)
    except ValueError:
        raise ValueError("must be a network such as 192.0.2.0/24 or 2001:db8::/32") from None
    return written


NetworkText = Annotated[
    str, StringConstraints(min_length=2, max_length=49), AfterValidator(_network)
]


class NewKeyBody(Strict):
    """A key to make. What you leave out is as in the key that makes the request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "ci", "role": "developer", "networks": ["192.0.2.0/24"]},
                {
                    "name": "dashboard",
                    "role": "viewer",
                    "permissions": ["execution:read"],
                    "expires_at": "2027-01-01T00:00:00Z",
                },
            ]
        }
    )

    name: Annotated[Text, StringConstraints(min_length=1, max_length=128)] = Field(
        description="What it is for."
    )
    role: Annotated[Role, Field(strict=False)] = Field(
        description="What it may do, within the role of the key that makes it."
    )
    permissions: list[Annotated[Permission, Field(strict=False)]] | None = Field(
        default=None, min_length=1, max_length=64, description="Only these of its role's."
    )
    networks: list[NetworkText] | None = Field(
        default=None, min_length=1, max_length=32, description="Where it may be used from."
    )
    expires_at: Annotated[cursors.Moment, Field(strict=False)] | None = Field(
        default=None, description="When it stops working; by default, when your key does."
    )

    def grant(self) -> Grant:
        """Return what is asked for."""
        return Grant(
            role=self.role,
            permissions=None if self.permissions is None else frozenset(self.permissions),
            networks=None if self.networks is None else tuple(map(ip_network, self.networks)),
            expires_at=None if self.expires_at is None else cursors.in_range(self.expires_at),
        )


class Rotation(Strict):
    """The terms on which a key is replaced."""

    overlap_s: float = Field(
        default=3600, ge=0, le=MAX_OVERLAP_S, description="Seconds the old key stays valid."
    )


class KeyView(View):
    """A key, without its secret part."""

    id: UUID
    prefix: str = Field(description="How it begins: `rk_` and this.")
    name: str
    role: Role
    permissions: list[str] | None = Field(description="Only these of its role's.")
    networks: list[str] | None = Field(description="Where it may be used from.")
    created_by: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Accurate to about a minute.")
    replaced_by: UUID | None = Field(description="The key that it was rotated to.")

    @classmethod
    def of(cls, key: StoredKey) -> Self:
        """Return the view of a key."""
        grant = key.grant
        return cls(
            id=key.id,
            prefix=key.prefix,
            name=key.name,
            role=grant.role,
            permissions=None if grant.permissions is None else sorted(grant.permissions),
            networks=None if grant.networks is None else [str(each) for each in grant.networks],
            created_by=key.created_by,
            created_at=key.created_at,
            expires_at=grant.expires_at,
            revoked_at=key.revoked_at,
            last_used_at=key.last_used_at,
            replaced_by=key.replaced_by,
        )


class NewKeyView(View):
    """A new key. `token` is shown only now, because only its hash is stored."""

    key: KeyView
    token: str = Field(examples=["rk_abcdefghijkl_…"])
    e2b_token: str = Field(
        description="The same key in the form that E2B's clients demand, for `E2B_API_KEY`.",
        examples=["e2b_726b5f…"],
    )

    @classmethod
    def of(cls, made: MadeKey) -> Self:
        """Return the view of a key with its token."""
        return cls(key=KeyView.of(made.key), token=made.token, e2b_token=in_e2b_form(made.token))


class KeyPage(View):
    """Keys, newest first."""

    items: list[KeyView]
    next_cursor: str | None


KeyId = Annotated[UUID, Depends(id_in_path("key_id", "The key's id.", NO_KEY))]


@router.get("", summary="List API keys", responses=responses())
async def list_keys(
    caller: CanReadKeys,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> KeyPage:
    """Return the tenant's keys, newest first, including expired and revoked ones."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await keys.list_newest(tx, before=cursors.decode_id(cursor), limit=limit + 1)
    page, next_cursor = cursors.page(found, limit, lambda each: each.id)
    return KeyPage(
        items=[KeyView.of(each) for each in page],
        next_cursor=next_cursor,
    )


@router.post(
    "",
    summary="Make an API key",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN),
)
async def create(body: NewKeyBody, caller: CanWriteKeys, parts: Parts) -> NewKeyView:
    """Make a key. Its rights, end and networks are within those of the key that you use."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        made = await keys.create(tx, caller, body.name, body.grant())
    return NewKeyView.of(made)


@router.get("/{key_id}", summary="Read an API key", responses=responses(HTTPStatus.NOT_FOUND))
async def read(key_id: KeyId, caller: CanReadKeys, parts: Parts) -> KeyView:
    """Return a key, without its secret part."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        return KeyView.of(await keys.read(tx, key_id))


@router.post(
    "/{key_id}/rotate",
    summary="Rotate an API key",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND),
)
async def rotate(key_id: KeyId, body: Rotation, caller: CanWriteKeys, parts: Parts) -> NewKeyView:
    """Make a key with the same rights. The old one keeps working for `overlap_s`."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        overlap = timedelta(seconds=body.overlap_s)
        made = await keys.rotate(tx, caller, key_id, overlap)
    return NewKeyView.of(made)


@router.delete(
    "/{key_id}",
    summary="Revoke an API key",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def revoke(key_id: KeyId, caller: CanWriteKeys, parts: Parts) -> None:
    """End a key at once, with the keys and invitations that it made, and so on.

    The key that it replaced ends as well. The key that makes this request stays, unless you name
    it. Revoking a key that has already ended revokes what it made. To keep what a key made, rotate
    it instead.
    """
    await keys.revoke(parts.database, caller, key_id)
