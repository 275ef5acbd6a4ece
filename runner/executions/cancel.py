"""Ends an execution before it ends by itself."""

from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.executions.read import NO_EXECUTION, Seen, read
from runner.queue.changes import Changes, News
from runner.store import executions
from runner.store.db import Database
from runner.words.errors import NotFound
from runner.words.states import ACTIVE, ENDED


async def cancel(database: Database, changes: Changes, caller: Caller, execution_id: UUID) -> Seen:
    """End a queued execution at once, and a running one soon. An ended one stays as it is.

    Returns the execution as it is afterwards. Raises NotFound.
    """
    async with database.tenant(caller.tenant_id) as tx:
        before = await executions.cancel(tx, execution_id)
        if before is None:
            raise NotFound(NO_EXECUTION)
        if before not in ENDED:
            facts = {"state": before.value}
            caller.record(tx, Action.EXECUTION_CANCEL, "execution", str(execution_id), facts)
    # Announce first: the request is stored, and nothing that fails now must keep it from a worker.
    changes.announce(execution_id, News.CANCELLING if before in ACTIVE else News.ENDED)
    return await read(database, caller, execution_id)
