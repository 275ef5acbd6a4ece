"""Rows of nodes: each process writes its own, the operator decides what it takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

from psycopg.rows import DictRow

from runner.store.transaction import Transaction
from runner.words.lives import OnShortage
from runner.words.nodes import NodeState
from runner.words.sandbox import Isolation

Ordered: TypeAlias = Literal[NodeState.READY, NodeState.DRAINING, NodeState.REMOVED]
"""States that an operator gives a node."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The facts about a node that stay the same for as long as its process lives."""

    node: str
    instance: str
    version: str
    door: str
    zone: str | None
    isolations: tuple[Isolation, ...]
    images: tuple[str, ...]
    slots: int
    sandboxes: int
    cpus: int
    memory_mb: int


@dataclass(frozen=True, slots=True)
class NodeUse:
    """The load of a node at the moment."""

    running: int
    """Executions."""
    living: int
    """Sandboxes that live, or are being made."""
    free_mb: int
    """Memory of its host that programs could still take."""
    templates: tuple[UUID, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class StoredNode:
    """A node as it has last told of itself."""

    node: str
    state: NodeState
    draining: bool
    """Whether it takes nothing new by the operator's order, also while it is away."""
    version: str
    door: str
    zone: str | None
    isolations: tuple[Isolation, ...]
    images: tuple[str, ...]
    templates: tuple[UUID, ...]
    slots: int
    sandboxes: int
    cpus: int
    memory_mb: int
    running: int
    living: int
    free_mb: int
    fault: str | None
    joined_at: datetime
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class HeldByNode:
    """An execution or a sandbox that a node still holds."""

    kind: Literal["execution", "sandbox"]
    tenant_id: UUID
    id: UUID
    state: str
    on_shortage: OnShortage | None
    since: datetime


async def join(
    tx: Transaction, facts: NodeFacts, *, free_mb: int, lasting: timedelta
) -> tuple[NodeState, bool] | None:
    """Store that a process is this node now; return the node's state, and whether it is new.

    Returns None if the node was removed. It counts as away after `lasting`.
    """
    row = await tx.one(
        "nodes.join",
        node=facts.node,
        instance=facts.instance,
        version=facts.version,
        door=facts.door,
        zone=facts.zone,
        isolations=[each.value for each in facts.isolations],
        images=list(facts.images),
        slots=facts.slots,
        sandboxes=facts.sandboxes,
        cpus=facts.cpus,
        memory_mb=facts.memory_mb,
        free_mb=free_mb,
        lasting=lasting,
    )
    return None if row is None else (NodeState(row["state"]), row["is_new"])


async def beat(
    tx: Transaction, node: str, instance: str, use: NodeUse, lasting: timedelta
) -> NodeState | None:
    """Store what a node holds; return its state, or None if another process is the node now."""
    row = await tx.one(
        "nodes.beat",
        node=node,
        instance=instance,
        running=use.running,
        living=use.living,
        free_mb=use.free_mb,
        templates=list(use.templates),
        fault=use.fault,
        lasting=lasting,
    )
    return None if row is None else NodeState(row["state"])


async def leave(tx: Transaction, node: str, instance: str) -> None:
    """Let a node count as away from now on."""
    await tx.run("nodes.leave", node=node, instance=instance)


async def list_all(tx: Transaction) -> list[StoredNode]:
    """Return every node by name, also those that were removed."""
    return [_of_row(row) for row in await tx.all("nodes.list")]


async def get(tx: Transaction, node: str) -> StoredNode | None:
    """Return a node; None if there never was one of that name."""
    row = await tx.one("nodes.get", node=node)
    return _of_row(row) if row else None


async def lock(tx: Transaction, node: str) -> NodeState | None:
    """Return a node's state, which nobody changes until the transaction ends."""
    row = await tx.one("nodes.lock", node=node)
    return _state(row) if row else None


async def order(tx: Transaction, node: str, state: Ordered) -> None:
    """Store what an operator wants of a node."""
    await tx.run("nodes.order", node=node, state=state)


async def held(tx: Transaction, node: str, limit: int) -> Sequence[HeldByNode]:
    """Return what a node holds, of any tenant, oldest first."""
    return [
        HeldByNode(**{**row, "on_shortage": OnShortage(kept) if kept else None})
        for row in await tx.all("nodes.held", node=node, limit=limit)
        for kept in [row["on_shortage"]]
    ]


def _of_row(row: DictRow) -> StoredNode:
    found = dict(row)
    found["draining"] = found["state"] == NodeState.DRAINING
    found["state"] = _state(found)
    del found["away"]
    found["isolations"] = tuple(map(Isolation, found["isolations"]))
    found["images"], found["templates"] = tuple(found["images"]), tuple(found["templates"])
    return StoredNode(**found)


def _state(row: DictRow) -> NodeState:
    stored = NodeState(row["state"])
    return NodeState.AWAY if row["away"] and stored is not NodeState.REMOVED else stored
