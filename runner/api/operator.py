"""`/operator/v1/tenants`: what the operator does with tenants.

The process serves these only if it has the operator's login of the database. An operator's key is a
principal of no tenant, and a tenant's key is refused here.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, Field, StringConstraints

from runner.api import cursors
from runner.api.context import origin
from runner.api.deps import (
    Dependencies,
    IsOperator,
    Parts,
    id_in_path,
    is_operator,
    operators_database,
)
from runner.api.edge.json import JsonRoute
from runner.api.fields import Name, Strict, Text
from runner.api.problems import JSON_TAKEN, responses
from runner.api.rules import EgressEntry, entries
from runner.api.views import View
from runner.auth.caller import By
from runner.egress.policy import rule_to_json
from runner.quotas.tiers import overrides
from runner.store.tenants import Tenant, Terms
from runner.tenants import tenancy
from runner.tenants.policies import permitted
from runner.tenants.tenancy import NO_TENANT, NewKey
from runner.words.errors import Invalid
from runner.words.principal import Operator, Role, Tier
from runner.words.resources import Limits
from runner.words.sandbox import Isolation

router = APIRouter(
    prefix="/operator/v1/tenants",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)


class TermsBody(Strict):
    """The terms of a tenant."""

    tier: Annotated[Tier, Field(strict=False)] = Tier.FREE
    max_concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="How many executions may run at once; by default the tier's number.",
    )
    quotas: dict[str, int | str] = Field(
        default_factory=dict,
        max_length=16,
        description="Quotas that replace the tier's: `queued`, `cpu_s_per_day`, "
        "`egress_bytes_per_day`, "
        "`storage_bytes`, `max_size`, `weight`.",
    )
    max_size: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")] = Field(
        default="large", description="The size whose limits no execution may exceed."
    )
    required_isolation: Literal["gvisor"] | None = Field(
        default=None,
        description="The isolation that its executions must use; by default they may choose.",
    )
    egress_ceiling: list[EgressEntry] | None = Field(
        default=None,
        max_length=256,
        description="Rules that bound the tenant's own, in addition to the deployment's ceiling.",
    )
    retention_days: int | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="Days for which ended executions are kept; by default as in the deployment.",
    )

    reuse: bool = Field(
        default=False,
        description="Whether its executions may ask for a sandbox that serves several in turn.",
    )

    def terms(self, parts: Dependencies) -> Terms:
        """Return the terms. Raises Invalid for an unknown size, or a rule beyond the ceiling."""
        if self.max_size not in parts.sizes:
            known = ", ".join(sorted(parts.sizes))
            raise Invalid(f"there is no size {self.max_size!r}; choose one of {known}", "max_size")
        ceiling = self.egress_ceiling
        return Terms(
            tier=self.tier,
            max_concurrency=self.max_concurrency,
            max_limits=parts.sizes[self.max_size],
            required_isolation=self.required_isolation and Isolation(self.required_isolation),
            egress_ceiling=None
            if ceiling is None
            else tuple(
                rule_to_json(rule)
                for rule in permitted(
                    entries(ceiling), (parts.egress_ceiling,), field="egress_ceiling"
                )
            ),
            retention_days=self.retention_days,
            quotas=overrides(self.quotas, parts.sizes),
            reuse=self.reuse,
        )


class NewTenant(TermsBody):
    """A tenant to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "acme", "tier": "pro", "max_concurrency": 16}]}
    )

    name: Name = Field(description="Unique in the deployment; cannot be changed.")


class Suspension(Strict):
    """The reason why a tenant is suspended. The tenant sees it."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"why": "unpaid since June"}]})

    why: Annotated[Text, StringConstraints(min_length=1, max_length=512)]


class NewKeyOf(Strict):
    """A key to make for a tenant that has lost its own."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=128)] = "made by the operator"
    role: Annotated[Role, Field(strict=False)] = Role.OWNER


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
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TenantPage:
    """Return every tenant by name."""
    found = await tenancy.list_by_name(
        operators_database(parts), after=cursors.decode_name(cursor), limit=limit + 1
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


@router.put(
    "/{tenant_id}",
    summary="Change a tenant",
    responses=responses(*JSON_TAKEN, HTTPStatus.NOT_FOUND),
)
async def change(
    request: Request, tenant_id: TenantId, body: TermsBody, operator: IsOperator, parts: Parts
) -> TenantView:
    """Give a tenant new terms, which bound executions submitted from now on."""
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
