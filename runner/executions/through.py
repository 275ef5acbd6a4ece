"""An execution for somebody who waits: returned when it has ended, cancelled when unwanted."""

import asyncio

from runner.auth.caller import Caller
from runner.base.tasks import uninterrupted
from runner.executions.cancel import cancel
from runner.executions.read import Seen, read
from runner.executions.submit import LOOK_AGAIN_S, Submitting
from runner.queue.changes import News


async def through(
    submitting: Submitting, caller: Caller, submitted: Seen, *, queue_s: float
) -> Seen | None:
    """Return the execution once it has ended; None if it waits for longer than `queue_s`.

    If this is cancelled, or fails, so is the execution: nobody else knows of it.
    """
    id_, changes = submitted.execution.id, submitting.changes
    try:
        with changes.watch(id_, News.ENDED) as watch:
            async with asyncio.timeout(queue_s + submitted.execution.limits.timeout_s):
                while True:
                    seen = await read(submitting.database, caller, id_)
                    if seen.has_ended:
                        return seen
                    await watch.wait(LOOK_AGAIN_S)
    except TimeoutError:
        return None
    except BaseException:
        await uninterrupted(cancel(submitting.database, changes, caller, id_))
        raise
