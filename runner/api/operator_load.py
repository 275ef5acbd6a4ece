"""`/operator/v1/load` and `/operator/v1/health`: the deployment as its operator watches it.

Numbers, and names of nodes and tenants: nothing that is a tenant's.
"""

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from runner.api.deps import Parts, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.gauges import Figures, read_figures
from runner.api.health import Readiness, readiness
from runner.api.nodes import NodeView
from runner.api.problems import responses
from runner.api.views import View
from runner.fleet.load import DeploymentLoad, read_load
from runner.store.scheduling import TenantLoad
from runner.words.lives import Life
from runner.words.principal import Tier
from runner.words.states import State

router = APIRouter(
    prefix="/operator/v1",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)


class TenantLoadView(View):
    """The work that a tenant has, and had in the last minute."""

    tenant: str = Field(description="Its name.")
    tier: Tier
    suspended: bool
    waiting: int = Field(description="Executions that wait.")
    active: int = Field(description="Executions that run.")
    concurrent: int = Field(description="Executions that it may run at once.")
    living: int = Field(description="Sandboxes that live.")
    ended_last_minute: int = Field(description="Executions that ended in the last minute.")

    @classmethod
    def of(cls, load: TenantLoad) -> Self:
        """Return the view of a tenant's load."""
        return cls.model_validate(load, from_attributes=True)


class LoadView(View):
    """The load of the deployment at a moment."""

    nodes: list[NodeView]
    tenants: list[TenantLoadView] = Field(
        description="Tenants that have work, or had some in the last minute: the longest queue "
        "first."
    )
    more: bool = Field(description="Whether further tenants have work.")

    @classmethod
    def of(cls, load: DeploymentLoad) -> Self:
        """Return the view of a load."""
        return cls(
            nodes=list(map(NodeView.of, load.nodes)),
            tenants=list(map(TenantLoadView.of, load.tenants)),
            more=load.more,
        )


class HealthView(View):
    """Whether the deployment is in order. Ages are in seconds, and 0 where nothing waits."""

    readiness: Readiness
    executions: dict[State, int] = Field(description="Executions that have not ended, by state.")
    sandboxes: dict[Life, int] = Field(description="Sandboxes that live, by state.")
    queue_oldest_s: float = Field(description="How long the first in the queue has waited.")
    queue_tenants: int = Field(description="Tenants whose executions wait.")
    executions_overdue: int = Field(
        description="Executions whose worker has not renewed its lease in time."
    )
    sandboxes_overdue: int = Field(
        description="Sandboxes whose node has not renewed its lease in time."
    )
    audit_unsealed_s: float = Field(
        description="Age of the oldest audit record that no checkpoint covers."
    )
    audit_undelivered_s: dict[str, float] = Field(
        description="Age of the oldest audit record that is yet to be forwarded, by sink."
    )

    @classmethod
    def of(cls, ready: Readiness, found: Figures) -> Self:
        """Return the view of the deployment's figures."""
        return cls(
            readiness=ready,
            executions=dict(found.executions),
            sandboxes=dict(found.sandboxes),
            queue_oldest_s=found.queue_oldest_s,
            queue_tenants=found.queue_tenants,
            executions_overdue=found.executions_overdue,
            sandboxes_overdue=found.sandboxes_overdue,
            audit_unsealed_s=found.audit_unsealed_s,
            audit_undelivered_s=dict(found.audit_undelivered_s),
        )


@router.get("/load", summary="Read the load", responses=responses())
async def load(parts: Parts, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> LoadView:
    """Return nodes, and the queue by tenant: what `runner top` shows."""
    return LoadView.of(await read_load(operators_database(parts), most=limit))


@router.get("/health", summary="Read the deployment's health", responses=responses())
async def health(parts: Parts) -> HealthView:
    """Return which parts are ready, and how much is late: the figures of `/metrics`."""
    return HealthView.of(await readiness(parts), await read_figures(parts.database))
