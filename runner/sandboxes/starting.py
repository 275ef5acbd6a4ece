"""Has a node make a sandbox whose row is stored. If that fails, the row says why."""

from datetime import datetime
from uuid import UUID

import structlog

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.door.client import Door
from runner.sandboxes.place import KIND, knock_of
from runner.store import sandboxes
from runner.store.db import Database
from runner.words.errors import RunnerError, SandboxFault, SandboxNotStarted
from runner.words.lives import EndReason

_log = structlog.get_logger("runner.api")


async def start(database: Database, door: Door, caller: Caller, new: UUID) -> datetime:
    """Have the node make the sandbox, and return since when it takes commands.

    Raises SandboxNotStarted if it does not start, and whatever else the node reports.
    """
    try:
        return await door.create(knock_of(caller, new))
    except SandboxFault as error:
        # The fault is the node's or its images': the caller cannot mend it.
        await _failed(database, caller, new, error)
        _log.warning("sandbox_not_started", sandbox=str(new), detail=error.detail)
        raise SandboxNotStarted(f"the sandbox {new} did not start: {error.detail}") from error
    except RunnerError as error:
        await _failed(database, caller, new, error)
        raise


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
