"""`/v1/secrets`: written and used, never read back."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from runner.api.deps import Allow, Parts
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, storable
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.secrets import StoredSecret
from runner.tenants import secrets

router = APIRouter(prefix="/v1/secrets", tags=["secrets"], route_class=JsonRoute)

CanReadSecrets = Annotated[Caller, Depends(Allow(Permission.SECRET_READ))]
CanWriteSecrets = Annotated[Caller, Depends(Allow(Permission.SECRET_WRITE))]

Name = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", description="The secret's name."),
]
MAX_BYTES = 8 * 1024


def _storable(value: SecretStr) -> SecretStr:
    if len(storable(value.get_secret_value()).encode()) > MAX_BYTES:
        raise ValueError(f"must not exceed {MAX_BYTES} bytes")
    return value


class SecretBody(Strict):
    """A secret's value."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"value": "s3cr3t-t0ken"}]})

    # A short value can be guessed, and would be masked in places where it means nothing.
    value: Annotated[
        SecretStr, Field(min_length=8, max_length=MAX_BYTES), AfterValidator(_storable)
    ]


class SecretView(View):
    """A secret, without its value."""

    name: str
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, stored: StoredSecret) -> Self:
        """Return the view of a secret."""
        return cls(name=stored.name, created_at=stored.created_at, updated_at=stored.updated_at)


class SecretList(View):
    """All secrets of the tenant, without their values."""

    items: list[SecretView]


@router.get("", summary="List secrets", responses=responses())
async def list_secrets(caller: CanReadSecrets, parts: Parts) -> SecretList:
    """Return the names of the tenant's secrets and when they were written, not their values."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await secrets.list_all(tx)
    return SecretList(items=[SecretView.of(each) for each in found])


@router.put(
    "/{name}",
    summary="Write a secret",
    responses=responses(*JSON_TAKEN),
)
async def write(name: Name, body: SecretBody, caller: CanWriteSecrets, parts: Parts) -> SecretView:
    """Store a secret, replacing any of that name. Executions that begin later use it."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        value = body.value.get_secret_value()
        stored = await secrets.write(tx, parts.vault, caller, name, value)
    return SecretView.of(stored)


@router.delete(
    "/{name}",
    summary="Delete a secret",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(name: Name, caller: CanWriteSecrets, parts: Parts) -> None:
    """Delete a secret. Executions that have begun keep the value they were given."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await secrets.delete(tx, caller, name)
