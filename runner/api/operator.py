"""`/operator/v1/tenants`: what the operator does with tenants.

The process serves these only if it has the operator's login of the database. An operator's key is a
principal of no tenant, and a tenant's key is refused here.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, Field

from runner.api import cursors
from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, id_in_path, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.fields import storable
from runner.api.problems import JSON_TAKEN, responses
from runner.api.tenant_requests import NewKeyOf, NewTenant, Suspension, TermsBody, TermsChange
from runner.api.usage import FirstDay, LastDay, UsageReport, report_of
from runner.api.views import View
from runner.auth.caller import By
from runner.store.tenants import Tenant
from runner.tenants import tenancy
from runner.tenants.tenancy import NO_TENANT, NewKey
from runner.words.principal import Operator, Tier
from runner.words.resources import Limits
from runner.words.sandbox import Isolation

router = APIRouter(
    prefix="/operator/v1/tenants",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)


class TenantView(View):
    """A tenant and what it may have."""

    id: UUID
    name: str
    tier: Tier
    max_concurrency: int | None
    max_limits: Limits
    required_isolation: Isolation | None
    egress_ceiling: list[dict[str, object]] | None
    retention_days: int | None
    quotas: dict[str, int | str]
    reuse: bool
    created_at: datetime
    suspended_at: datetime | None
    suspended_why: str | None

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        """Return the view of a tenant."""
        terms = tenant.terms
        return cls(
            id=tenant.id,
            name=tenant.name,
            tier=terms.tier,
            max_concurrency=terms.max_concurrency,
            max_limits=terms.max_limits,
            required_isolation=terms.required_isolation,
            egress_ceiling=None if terms.egress_ceiling is None else list(terms.egress_ceiling),
            retention_days=terms.retention_days,
            quotas=dict(terms.quotas),
            reuse=terms.reuse,
            created_at=tenant.created_at,
            suspended_at=tenant.suspended_at,
            suspended_why=tenant.suspended_why,
        )


class TenantPage(View):
    """Tenants by name."""

    items: list[TenantView]
    next_cursor: str | None


class TenantKeyView(View):
    """A new key for a tenant. `token` is shown only now."""

    tenant_id: UUID
    key_id: UUID
    token: str

    @classmethod
    def of(cls, made: NewKey) -> Self:
        """Return the view of a new key."""
        return cls(tenant_id=made.tenant_id, key_id=made.key_id, token=made.token)


class RemovedView(View):
    """The result of a deletion."""

    rows: dict[str, int] = Field(
        description="Removed rows by table; tables without any are left out."
    )
    objects: int = Field(description="Removed objects, such as artifacts.")
    audit_records: int = Field(description="Number of records in the removed audit log.")
    audit_head: str | None = Field(
        description="Hash of its last record, to check exported copies against."
    )


TenantId = Annotated[UUID, Depends(id_in_path("tenant_id", "The tenant's id.", NO_TENANT))]


@router.get("", summary="List tenants", responses=responses())
async def list_tenants(
    parts: Parts,
    name: Annotated[
        str | None,
        Query(max_length=63, description="A part of the name."),
        AfterValidator(lambda text: text and storable(text)),
    ] = None,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TenantPage:
    """Return every tenant by name, or those whose name has a part."""
    found = await tenancy.list_by_name(
        operators_database(parts),
        part=name,
        after=cursors.decode_name(cursor),
        limit=limit + 1,
    )
    page, next_cursor = cursors.page(found, limit, lambda each: each.name)
    return TenantPage(
        items=[TenantView.of(each) for each in page],
        next_cursor=next_cursor,
    )


@router.post(
    "",
    summary="Make a tenant",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT),
)
async def create(
    request: Request, body: NewTenant, operator: IsOperator, parts: Parts
) -> TenantKeyView:
    """Make a tenant and its first key, which has the role owner."""
    by = _by(request, operator)
    made = await tenancy.create(operators_database(parts), body.name, body.terms(parts), by)
    return TenantKeyView.of(made)


@router.get("/{tenant_id}", summary="Read a tenant", responses=responses(HTTPStatus.NOT_FOUND))
async def read(tenant_id: TenantId, parts: Parts) -> TenantView:
    """Return a tenant's terms, and nothing that it stores."""
    return TenantView.of(await tenancy.get(operators_database(parts), tenant_id))


@router.get(
    "/{tenant_id}/usage",
    summary="Read a tenant's usage and quotas",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def usage(
    tenant_id: TenantId, parts: Parts, first: FirstDay = None, last: LastDay = None
) -> UsageReport:
    """Return what `GET /v1/usage` tells the tenant: sums, and nothing that it stores."""
    await tenancy.get(operators_database(parts), tenant_id)
    return await report_of(parts.database, tenant_id, first, last)


@router.patch(
    "/{tenant_id}",
    summary="Change some of a tenant's terms",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND),
)
async def change_some(
    request: Request, tenant_id: TenantId, body: TermsChange, operator: IsOperator, parts: Parts
) -> TenantView:
    """Change the terms that are given, as `runner tenants set` does; the others stay.

    `quotas` and `egress_ceiling` replace what the tenant had under that name.
    """
    database, by = operators_database(parts), _by(request, operator)
    before = await tenancy.get(database, tenant_id)
    changed = body.on(before.terms, parts)
    return TenantView.of(await tenancy.change(database, tenant_id, changed, by))


@router.put(
    "/{tenant_id}",
    summary="Change a tenant",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND),
)
async def change(
    request: Request, tenant_id: TenantId, body: TermsBody, operator: IsOperator, parts: Parts
) -> TenantView:
    """Give a tenant new terms, which bound executions submitted from now on.

    Terms that are left out become the defaults.
    """
    by = _by(request, operator)
    return TenantView.of(
        await tenancy.change(operators_database(parts), tenant_id, body.terms(parts), by)
    )


@router.post(
    "/{tenant_id}/suspend",
    summary="Suspend a tenant",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def suspend(
    request: Request, tenant_id: TenantId, body: Suspension, operator: IsOperator, parts: Parts
) -> TenantView:
    """Refuse all but reading, start nothing more, and end what waits or runs."""
    by = _by(request, operator)
    return TenantView.of(await tenancy.suspend(operators_database(parts), tenant_id, body.why, by))


@router.post(
    "/{tenant_id}/resume",
    summary="End a suspension",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def resume(
    request: Request, tenant_id: TenantId, operator: IsOperator, parts: Parts
) -> TenantView:
    """End a tenant's suspension."""
    by = _by(request, operator)
    return TenantView.of(await tenancy.resume(operators_database(parts), tenant_id, by))


@router.post(
    "/{tenant_id}/keys",
    summary="Make a key for a tenant",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND),
)
async def make_key(
    request: Request, tenant_id: TenantId, body: NewKeyOf, operator: IsOperator, parts: Parts
) -> TenantKeyView:
    """Make a key for a tenant that has lost its own. The tenant's audit log records it."""
    by = _by(request, operator)
    made = await tenancy.mint_key(operators_database(parts), tenant_id, body.role, body.name, by)
    return TenantKeyView.of(made)


@router.delete(
    "/{tenant_id}",
    summary="Delete a tenant",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def delete(
    request: Request, tenant_id: TenantId, operator: IsOperator, parts: Parts
) -> RemovedView:
    """Remove a suspended tenant with all its data, for good. It must not run anything."""
    by = _by(request, operator)
    removed = await tenancy.delete(operators_database(parts), parts.objects, tenant_id, by)
    return RemovedView(
        rows=dict(removed.rows),
        objects=removed.objects,
        audit_records=removed.audit_records,
        audit_head=removed.audit_head,
    )


def _by(request: Request, operator: Operator) -> By:
    return By(operator.actor, origin(request))
