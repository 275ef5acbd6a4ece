"""The operator's use cases of nodes, by route or by command. Each change is on record.

The records are in the deployment's own log: a node belongs to no tenant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from runner.audit import events as audit
from runner.audit.events import Action
from runner.auth.caller import By
from runner.store import nodes
from runner.store.db import Database
from runner.store.nodes import HeldByNode, Ordered, StoredNode
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NotFound
from runner.words.ids import PLATFORM_TENANT
from runner.words.nodes import NodeState

KIND = "node"
NO_NODE = "no such node"
SHOWN = 200
"""How many of the things that a node holds are listed."""


@dataclass(frozen=True, slots=True)
class NodeContents:
    """A node with what it holds, oldest first; `more` if not all of that is listed."""

    node: StoredNode
    held: Sequence[HeldByNode]
    more: bool


async def list_nodes(database: Database, *, removed: bool = False) -> list[StoredNode]:
    """Return every node by name; those that were removed only with `removed`."""
    async with database.no_tenant() as tx:
        found = await nodes.list_all(tx)
    return [each for each in found if removed or each.state is not NodeState.REMOVED]


async def read(database: Database, node: str) -> NodeContents:
    """Return a node and what it holds. Raises NotFound."""
    async with database.no_tenant() as tx:
        found = await nodes.get(tx, node)
        if found is None:
            raise NotFound(NO_NODE)
        held = await nodes.held(tx, node, SHOWN + 1)
    return NodeContents(found, held[:SHOWN], more=len(held) > SHOWN)


async def drain(database: Database, node: str, by: By) -> NodeContents:
    """Let a node take nothing new, and return what it still holds.

    Its executions end by themselves. Paused or idle sandboxes whose owners permit that a short host
    ends them become snapshots; the others live on. Raises NotFound, and Conflict if it was removed.
    """
    async with database.tenant(PLATFORM_TENANT) as tx:
        state = await _locked(tx, node)
        if state is NodeState.REMOVED:
            raise Conflict("this node was removed")
        await _order(tx, node, NodeState.DRAINING, Action.NODE_DRAIN, by)
    return await read(database, node)


async def resume(database: Database, node: str, by: By) -> NodeContents:
    """Let a node take something again, also one that was removed. Raises NotFound."""
    async with database.tenant(PLATFORM_TENANT) as tx:
        await _locked(tx, node)
        await _order(tx, node, NodeState.READY, Action.NODE_RESUME, by)
    return await read(database, node)


async def remove(database: Database, node: str, by: By) -> None:
    """Take a node out of the deployment: it takes nothing more, even if it comes back.

    What a node that is away has left ends when its leases end. Raises NotFound, and Conflict unless
    it is away, or drains and holds nothing.
    """
    async with database.tenant(PLATFORM_TENANT) as tx:
        state = await _locked(tx, node)
        if state is NodeState.READY:
            raise Conflict("this node is at work: drain it first")
        if state is NodeState.DRAINING and await nodes.held(tx, node, 1):
            raise Conflict("this node still holds executions or sandboxes: wait, or end them")
        await _order(tx, node, NodeState.REMOVED, Action.NODE_REMOVE, by)


async def _locked(tx: Transaction, node: str) -> NodeState:
    state = await nodes.lock(tx, node)
    if state is None:
        raise NotFound(NO_NODE)
    return state


async def _order(tx: Transaction, node: str, state: Ordered, action: Action, by: By) -> None:
    await nodes.order(tx, node, state)
    audit.append(tx, PLATFORM_TENANT, by.did(action, KIND, node))
