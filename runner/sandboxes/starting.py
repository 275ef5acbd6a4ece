"""Has a node make a sandbox whose row is stored. If that fails, the row says why.

A plain sandbox is made ready while its row is being stored. Nobody gets it before that.
"""

from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.door.client import Door
from runner.door.creation import Creation
from runner.door.grants import Knock
from runner.fleet.choice import NodeNeed
from runner.fleet.directory import NodeDirectory
from runner.sandboxes.place import KIND, knock_of
from runner.store import sandboxes
from runner.store.db import Database
from runner.store.nodes import StoredNode
from runner.words.errors import NodeAway, RunnerError, SandboxFault, SandboxNotStarted
from runner.words.lives import EndReason
from runner.words.living import SandboxRequest, StoredSandbox
from runner.words.templates import Startup, template_in

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class StartedAt:
    """Since when a sandbox takes commands, and at which door."""

    at: datetime
    door: str | None


class SandboxStart:
    """The start of one sandbox, for the context."""

    def __init__(
        self, database: Database, door: Door, nodes: NodeDirectory, caller: Caller, new: UUID
    ) -> None:
        self._database = database
        self._door = door
        self._nodes = nodes
        self.caller = caller
        self.new = new
        self._creation: Creation | None = None
        self._asked: set[str | None] = set()
        """The doors of the nodes that were asked."""
        self.startup: Startup | None = None
        """The start command of its template, once that is known."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._creation is not None:
            await self._creation.close()

    def ahead(self, wanted: SandboxRequest) -> None:
        """Let a node make it ready, as its row is about to be stored; only if it is plain."""
        if _is_plain(wanted):
            spec = wanted.spec
            need = NodeNeed(spec.image, spec.isolation, spec.resources.memory_mb)
            self._creation = self._door.create_ahead(self._best(need), spec)

    async def stored(self, new: StoredSandbox) -> StartedAt:
        """Have a node make the sandbox of the stored row, the best one that takes it.

        Raises SandboxNotStarted if it does not start, NodeAway if no node takes it, and whatever
        else its node reports.
        """
        try:
            return await self._make(NodeNeed(new.image, new.isolation, new.resources.memory_mb))
        except SandboxFault as error:
            # The fault is the node's or its images': the caller cannot mend it.
            await self._failed(error)
            _log.warning("sandbox_not_started", sandbox=str(self.new), detail=error.detail)
            why = f"the sandbox {self.new} did not start: {error.detail}"
            raise SandboxNotStarted(why) from error
        except RunnerError as error:
            await self._failed(error)
            raise

    async def _make(self, wanted: NodeNeed) -> StartedAt:
        """Ask one node after another. Only one makes it, as a node first claims its row."""
        away: NodeAway | None = None
        if self._creation is not None:
            try:
                at = await self._creation.stored()
                return StartedAt(at, *self._asked)
            except NodeAway as error:
                away = self._not_taken(error)
        for node in await self._nodes.takers(wanted):
            if (door := None if node is None else node.door) in self._asked:
                continue
            try:
                knock = self._knock(node)
                return StartedAt(await self._door.create(knock), door)
            except NodeAway as error:
                away = self._not_taken(error)
        raise away or NodeAway("no node takes this sandbox")

    async def _best(self, wanted: NodeNeed) -> Knock:
        """Return the knock for the node that is asked first."""
        return self._knock((await self._nodes.takers(wanted))[0])

    def _knock(self, node: StoredNode | None) -> Knock:
        door = None if node is None else node.door
        self._asked.add(door)
        if node is not None:
            self._nodes.sent(node)
        return knock_of(self.caller, self.new, door)

    def _not_taken(self, error: NodeAway) -> NodeAway:
        self._nodes.doubt()
        _log.info("sandbox_not_taken", sandbox=str(self.new), why=error.detail)
        return error

    async def _failed(self, error: RunnerError) -> None:
        """End a sandbox that was not handed to its caller."""
        new = self.new
        try:
            async with self._database.tenant(self.caller.tenant_id) as tx:
                if await sandboxes.end_unclaimed(tx, new, EndReason.START_FAILED, error.detail):
                    facts = {"reason": EndReason.START_FAILED.value}
                    self.caller.record(
                        tx, Action.SANDBOX_END, KIND, str(new), facts, outcome=Outcome.FAILURE
                    )
                else:
                    await sandboxes.ask_to_stop(tx, new)
        except RunnerError as failed:
            # No node holds it, or the node that does will end it, or else its lease runs out.
            _log.warning("start_not_undone", sandbox=str(new), detail=failed.detail)


def _is_plain(wanted: SandboxRequest) -> bool:
    """Return whether it is only a container: it gets no secrets, way out or template's files."""
    spec = wanted.spec
    special = wanted.egress or wanted.secret_env or spec.builds or template_in(spec.image)
    return not special
