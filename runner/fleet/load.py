"""The load that an operator watches: nodes, and tenants that have work. Numbers and names alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from runner.fleet.operating import list_nodes
from runner.store import scheduling
from runner.store.db import Database
from runner.store.nodes import StoredNode
from runner.store.scheduling import TenantLoad


@dataclass(frozen=True, slots=True)
class DeploymentLoad:
    """The deployment at a moment. `more` says whether there are tenants that are not listed."""

    nodes: Sequence[StoredNode]
    tenants: Sequence[TenantLoad]
    more: bool


async def read_load(database: Database, *, most: int) -> DeploymentLoad:
    """Return the nodes, and of the tenants that have work those with the longest queues."""
    nodes = await list_nodes(database)
    async with database.no_tenant() as tx:
        tenants = await scheduling.load_by_tenant(tx, most + 1)
    return DeploymentLoad(nodes, tenants[:most], more=len(tenants) > most)
