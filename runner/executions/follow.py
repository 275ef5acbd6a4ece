"""An execution's events as they happen, from any point on, until it has ended."""

from collections.abc import AsyncGenerator
from uuid import UUID

from runner.auth.caller import Caller
from runner.queue.changes import Changes
from runner.store import executions
from runner.store.db import Database
from runner.words.execution import Event, EventKind
from runner.words.states import ENDED

PAGE = 200
LOOK_AGAIN_S = 1.0


async def follow(
    database: Database, changes: Changes, caller: Caller, execution_id: UUID, *, after: int
) -> AsyncGenerator[Event, None]:
    """Yield the events after number `after`, each once and in order.

    Close the generator (`contextlib.aclosing`) when you want no more.
    """
    with changes.watch(execution_id) as watch:
        while True:
            async with database.tenant(caller.tenant_id) as tx:
                page = await executions.events_after(tx, execution_id, after, PAGE)
                execution = await executions.get(tx, execution_id)
            for event in page:
                after = event.seq
                yield event
                if event.kind is EventKind.STATE and event.data["state"] in ENDED:
                    return
            # A reader that resumes after the last event has nothing to wait for.
            if not page and (execution is None or execution.state in ENDED):
                return
            if len(page) < PAGE:
                await watch.wait(LOOK_AGAIN_S)
