"""Has a node make a sandbox whose row is stored. If that fails, the row says why."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.door.client import Door
from runner.fleet.choice import NodeNeed
from runner.fleet.directory import NodeDirectory
from runner.sandboxes.place import KIND, knock_of
from runner.store import sandboxes
from runner.store.db import Database
from runner.words.errors import NodeAway, RunnerError, SandboxFault, SandboxNotStarted
from runner.words.lives import EndReason
from runner.words.living import StoredSandbox

_log = structlog.get_logger("runner.api")


@dataclass(frozen=True, slots=True)
class StartedAt:
    """Since when a sandbox takes commands, and at which door."""

    at: datetime
    door: str | None


async def start(
    database: Database, door: Door, nodes: NodeDirectory, caller: Caller, new: StoredSandbox
) -> StartedAt:
    """Have a node make the sandbox, the best one that takes it.

    Raises SandboxNotStarted if it does not start, NodeAway if no node takes it, and whatever else
    its node reports.
    """
    try:
        return await _start(door, nodes, caller, new)
    except SandboxFault as error:
        # The fault is the node's or its images': the caller cannot mend it.
        await _failed(database, caller, new.id, error)
        _log.warning("sandbox_not_started", sandbox=str(new.id), detail=error.detail)
        raise SandboxNotStarted(f"the sandbox {new.id} did not start: {error.detail}") from error
    except RunnerError as error:
        await _failed(database, caller, new.id, error)
        raise


async def _start(door: Door, nodes: NodeDirectory, caller: Caller, new: StoredSandbox) -> StartedAt:
    """Ask one node after another. Only one makes it, as a node first claims its row."""
    wanted = NodeNeed(new.image, new.isolation, new.resources.memory_mb)
    away: NodeAway | None = None
    for node in await nodes.takers(wanted):
        at = None if node is None else node.door
        if node is not None:
            nodes.sent(node)
        try:
            return StartedAt(await door.create(knock_of(caller, new.id, at)), at)
        except NodeAway as error:
            nodes.doubt()
            away = error
            _log.info("sandbox_not_taken", sandbox=str(new.id), door=at, why=error.detail)
    raise away or NodeAway("no node takes this sandbox")


async def _failed(database: Database, caller: Caller, new: UUID, error: RunnerError) -> None:
    """End a sandbox that was not handed to its caller."""
    try:
        async with database.tenant(caller.tenant_id) as tx:
            if await sandboxes.end_unclaimed(tx, new, EndReason.START_FAILED, error.detail):
                facts = {"reason": EndReason.START_FAILED.value}
                caller.record(
                    tx, Action.SANDBOX_END, KIND, str(new), facts, outcome=Outcome.FAILURE
                )
            else:
                await sandboxes.ask_to_stop(tx, new)
    except RunnerError as failed:
        # No node holds it, or the node that does will end it, or else its lease runs out.
        _log.warning("start_not_undone", sandbox=str(new), detail=failed.detail)
