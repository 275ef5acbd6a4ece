"""Code for a client that waits for its end, whose interface knows no queue."""

from http import HTTPStatus

from fastapi import HTTPException, Request

from runner.api.deps import Dependencies
from runner.api.requests import Submission
from runner.api.uploads import left
from runner.auth.caller import Caller
from runner.base.tasks import attended
from runner.executions.cancel import cancel
from runner.executions.read import Seen
from runner.executions.through import through
from runner.words.execution import Result

QUEUE_S = 600.0
"""How long code may wait for its turn; clients give up earlier, and it is then cancelled."""


async def run_to_its_end(
    request: Request, parts: Dependencies, caller: Caller, submission: Submission
) -> tuple[Seen, Result]:
    """Run code and return how it ended. If the client hangs up, the code is cancelled.

    The request's body must have been read. Raises HTTPException if the code gets no turn.
    """
    await parts.doorbell.require()
    submitted = await parts.submitting.submit(caller, submission.order())
    waiting = through(parts.submitting, caller, submitted, queue_s=QUEUE_S)
    seen = await attended(waiting, left(request))
    if seen is None or seen.execution.result is None:
        await cancel(parts.database, parts.changes, caller, submitted.execution.id)
        raise HTTPException(
            HTTPStatus.GATEWAY_TIMEOUT,
            "the code did not get its turn, and was cancelled: the deployment is busy, or its "
            "worker is away; try again later",
        )
    return seen, seen.execution.result
