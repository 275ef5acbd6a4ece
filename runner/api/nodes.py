"""`/operator/v1/nodes`: what the operator does with nodes.

As those about tenants, they need the operator's login of the database.
"""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field

from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.problems import responses
from runner.api.views import View
from runner.auth.caller import By
from runner.fleet import operating
from runner.fleet.operating import NodeContents
from runner.store.nodes import HeldByNode, StoredNode
from runner.words.lives import OnShortage
from runner.words.nodes import NodeState
from runner.words.principal import Operator
from runner.words.sandbox import Isolation

router = APIRouter(
    prefix="/operator/v1/nodes",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)

NodeName = Annotated[
    str,
    Path(
        alias="node",
        description="The node's name, as `GET /operator/v1/nodes` shows it.",
        max_length=80,
        examples=["host-1-0a1b2c3d"],
    ),
]


class NodeView(View):
    """A node, as it has last told of itself."""

    node: str
    state: NodeState
    draining: bool = Field(description="Whether it takes nothing new, also while it is away.")
    version: str
    door: str = Field(description="Where the API reaches its living sandboxes.")
    zone: str | None
    isolations: list[Isolation]
    images: list[str]
    templates: list[UUID] = Field(description="Templates that it has made an image of.")
    slots: int = Field(description="Executions that it may run at once.")
    sandboxes: int = Field(description="Sandboxes that may live on it at once.")
    cpus: int
    memory_mb: int = Field(description="Memory of its host, in MiB.")
    running: int = Field(description="Executions that it runs.")
    living: int = Field(description="Sandboxes that live on it, or are being made.")
    free_mb: int = Field(description="Memory that programs could still take, in MiB.")
    fault: str | None = Field(description="Why it cannot start sandboxes now.")
    joined_at: datetime
    started_at: datetime = Field(description="When its process began.")
    seen_at: datetime

    @classmethod
    def of(cls, node: StoredNode) -> Self:
        """Return the view of a node."""
        return cls.model_validate(node, from_attributes=True)


class HeldView(View):
    """An execution or a sandbox that a node still holds."""

    kind: Literal["execution", "sandbox"]
    tenant_id: UUID
    id: UUID
    state: str
    on_shortage: OnShortage | None = Field(
        description="Of a sandbox: whether it becomes a snapshot while its node drains."
    )
    since: datetime

    @classmethod
    def of(cls, held: HeldByNode) -> Self:
        """Return the view of it."""
        return cls.model_validate(held, from_attributes=True)


class NodeContentsView(View):
    """A node, and what it holds."""

    node: NodeView
    held: list[HeldView] = Field(description="What it holds, oldest first: the first 200.")
    more: bool = Field(description="Whether it holds more than is listed.")

    @classmethod
    def of(cls, found: NodeContents) -> Self:
        """Return the view of a node and what it holds."""
        return cls(
            node=NodeView.of(found.node), held=list(map(HeldView.of, found.held)), more=found.more
        )


class NodeList(View):
    """Nodes by name."""

    items: list[NodeView]


@router.get("", summary="List nodes", responses=responses())
async def list_nodes(
    parts: Parts,
    *,
    removed: Annotated[bool, Query(description="Whether to list removed ones, too.")] = False,
) -> NodeList:
    """Return every node by name."""
    found = await operating.list_nodes(operators_database(parts), removed=removed)
    return NodeList(items=list(map(NodeView.of, found)))


@router.get("/{node}", summary="Read a node", responses=responses(HTTPStatus.NOT_FOUND))
async def read(node: NodeName, parts: Parts) -> NodeContentsView:
    """Return a node, and the executions and sandboxes that it holds."""
    return NodeContentsView.of(await operating.read(operators_database(parts), node))


@router.post(
    "/{node}/drain",
    summary="Drain a node",
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def drain(
    request: Request, node: NodeName, operator: IsOperator, parts: Parts
) -> NodeContentsView:
    """Let a node take nothing new; its executions end, and its sandboxes live on or are kept.

    A paused sandbox becomes a snapshot if its `on_shortage` is `snapshot`, and so does one that
    runs nothing. Read the node to learn what it still holds.
    """
    by = _by(request, operator)
    return NodeContentsView.of(await operating.drain(operators_database(parts), node, by))


@router.post(
    "/{node}/resume", summary="End a node's draining", responses=responses(HTTPStatus.NOT_FOUND)
)
async def resume(
    request: Request, node: NodeName, operator: IsOperator, parts: Parts
) -> NodeContentsView:
    """Let a node take executions and sandboxes again, also one that was removed."""
    by = _by(request, operator)
    return NodeContentsView.of(await operating.resume(operators_database(parts), node, by))


@router.delete(
    "/{node}",
    summary="Remove a node",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
)
async def remove(request: Request, node: NodeName, operator: IsOperator, parts: Parts) -> None:
    """Take a node out of the deployment. It must be away, or drained and empty."""
    await operating.remove(operators_database(parts), node, _by(request, operator))


def _by(request: Request, operator: Operator) -> By:
    return By(operator.actor, origin(request))
