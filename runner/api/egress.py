"""`/v1/egress-policies`: named lists of rules that executions may ask for by name."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Path
from pydantic import ConfigDict, Field

from runner.api.deps import Allow, Parts
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.rules import EgressEntry, entries
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.egress_policies import StoredPolicy
from runner.tenants import policies

router = APIRouter(prefix="/v1/egress-policies", tags=["egress"], route_class=JsonRoute)

CanReadPolicies = Annotated[Caller, Depends(Allow(Permission.EGRESS_POLICY_READ))]
CanWritePolicies = Annotated[Caller, Depends(Allow(Permission.EGRESS_POLICY_WRITE))]

Name = Annotated[
    str,
    Path(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The policy's name."),
]


class PolicyBody(Strict):
    """The hosts that a policy permits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "rules": [
                        "files.example.com",
                        {
                            "host": "api.example.com",
                            "methods": ["POST"],
                            "path_prefix": "/v1/",
                            "inject": {
                                "header": "Authorization",
                                "secret": "example-token",
                                "prefix": "Bearer ",
                            },
                        },
                    ]
                }
            ]
        }
    )

    rules: list[EgressEntry] = Field(
        max_length=64, description="What is permitted; an empty list permits nothing."
    )


class PolicyView(View):
    """A named policy."""

    name: str
    rules: list[dict[str, Any]] = Field(description="Each rule with all its fields.")
    updated_at: datetime

    @classmethod
    def of(cls, stored: StoredPolicy) -> Self:
        """Return the view of a policy."""
        return cls(
            name=stored.name,
            rules=[dict(rule) for rule in stored.rules],
            updated_at=stored.updated_at,
        )


class PolicyList(View):
    """Every policy of the tenant."""

    items: list[PolicyView]


@router.get("", summary="List egress policies", responses=responses())
async def list_policies(caller: CanReadPolicies, parts: Parts) -> PolicyList:
    """Return this tenant's egress policies, by name."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await policies.list_all(tx)
    return PolicyList(items=[PolicyView.of(each) for each in found])


@router.get("/{name}", summary="Read an egress policy", responses=responses(HTTPStatus.NOT_FOUND))
async def read(name: Name, caller: CanReadPolicies, parts: Parts) -> PolicyView:
    """Return one egress policy."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        return PolicyView.of(await policies.read(tx, name))


@router.put(
    "/{name}",
    summary="Write an egress policy",
    responses=responses(*JSON_TAKEN),
)
async def write(name: Name, body: PolicyBody, caller: CanWritePolicies, parts: Parts) -> PolicyView:
    """Store a policy, replacing any of that name. Executions submitted later use it.

    A rule beyond the operator's ceiling is refused.
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        stored = await policies.write(tx, caller, name, entries(body.rules), parts.egress_ceiling)
    return PolicyView.of(stored)


@router.delete(
    "/{name}",
    summary="Delete an egress policy",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def delete(name: Name, caller: CanWritePolicies, parts: Parts) -> None:
    """Delete a policy. Executions submitted with it keep their rules."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await policies.delete(tx, caller, name)
