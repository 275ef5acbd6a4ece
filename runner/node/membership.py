"""This process as a node of its deployment: registers, says that it lives, and learns what it may.

A node whose row says that it drains claims nothing more. PostgreSQL says so again to each of its
claims, so that one that has not learned it yet takes nothing either.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import psutil
import structlog

from runner import __version__
from runner.audit import events as audit
from runner.base.settings import Settings
from runner.door.reaching import tls_address, unix_address
from runner.node.gate import Gate
from runner.store import nodes
from runner.store.db import Database
from runner.store.nodes import NodeFacts, NodeUse
from runner.words.errors import NotReady, SetupError
from runner.words.nodes import NodeState

BEAT_S = 2.0
LASTS_S = 10.0
"""How long after it was last heard a node counts as away."""
_MIB = 2**20
_log = structlog.get_logger("runner.worker")


class NodeMembership:
    """One node's. `beat` is a duty."""

    def __init__(self, database: Database, facts: NodeFacts, *, lasts_s: float = LASTS_S) -> None:
        """Take what this node tells of itself, which counts for `lasts_s` seconds."""
        self.gate = Gate()
        """It follows what the operator wants of this node."""
        self._database = database
        self._facts = facts
        self._lasting = timedelta(seconds=lasts_s)
        self._joined = False

    async def join(self) -> None:
        """Register. While PostgreSQL does not answer, leave that to the first beat.

        Raises SetupError if the operator has removed this node.
        """
        try:
            joined = await self._join()
        except NotReady as error:
            _log.warning("node_not_registered", node=self._facts.node, why=error.detail)
            return
        if not joined:
            raise SetupError(
                f"the node {self._facts.node} was removed from this deployment; "
                f"`runner nodes resume {self._facts.node}` takes it back"
            )

    async def beat(self, use: Callable[[], NodeUse]) -> None:
        """Say that this node lives and what it holds; learn what the operator wants of it."""
        if not self._joined and not await self._join():
            self._become(NodeState.REMOVED)
            return
        async with self._database.statements() as tx:
            state = await nodes.beat(
                tx, self._facts.node, self._facts.instance, use(), self._lasting
            )
        # Without a row of its own, another process is this node now.
        self._become(state or NodeState.REMOVED)

    async def leave(self) -> None:
        """Count as away from now on, so that nobody waits for this node."""
        try:
            async with self._database.statements() as tx:
                await nodes.leave(tx, self._facts.node, self._facts.instance)
        except NotReady as error:
            _log.warning("node_left_unsaid", node=self._facts.node, why=error.detail)

    async def _join(self) -> bool:
        async with self._database.no_tenant() as tx:
            found = await nodes.join(tx, self._facts, free_mb=free_mb(), lasting=self._lasting)
        if found is None:
            return False
        state, is_new = found
        self._joined = True
        self._become(state)
        if is_new:
            event = audit.AuditEvent(
                actor="system:worker",
                action=audit.Action.NODE_JOIN,
                outcome=audit.Outcome.SUCCESS,
                resource_type="node",
                resource_id=self._facts.node,
                metadata={"version": self._facts.version, "door": self._facts.door},
            )
            await audit.append_platform(self._database, event)
        return True

    def _become(self, state: NodeState) -> None:
        if self.gate.follow(state):
            _log.info("node_state_changed", node=self._facts.node, state=state.value)


@asynccontextmanager
async def joined(
    database: Database, settings: Settings, instance: str
) -> AsyncIterator[NodeMembership]:
    """Be a node of the deployment inside the context. Raises SetupError if it was removed."""
    membership = NodeMembership(
        database, facts_of(settings, instance), lasts_s=settings.patient(LASTS_S)
    )
    await membership.join()
    try:
        yield membership
    finally:
        await membership.leave()


def facts_of(settings: Settings, instance: str) -> NodeFacts:
    """Return what a process of this host tells of itself when it registers."""
    return NodeFacts(
        node=settings.node_id,
        instance=instance,
        version=__version__,
        door=tls_address(settings.door_address, settings.node_id)
        if settings.door_address
        else unix_address(settings.door_dir),
        zone=settings.zone,
        isolations=settings.isolation,
        images=settings.images,
        slots=settings.slots,
        sandboxes=settings.sandboxes,
        cpus=psutil.cpu_count() or 1,
        memory_mb=int(psutil.virtual_memory().total) // _MIB,
    )


def free_mb() -> int:
    """Return how many MiB of the host's memory programs could still take."""
    return int(psutil.virtual_memory().available) // _MIB
