"""Makes living sandboxes follow their rows, even if nobody could tell the node of a change."""

import asyncio
from collections.abc import Iterable

import structlog

from runner.node.residents.resident import Resident
from runner.words.errors import RunnerError

FOLLOW_S = 30.0
"""How often rows are read again: seldom, as there is a statement for each sandbox."""
AT_ONCE = 8
"""How many rows are read at once."""

_log = structlog.get_logger("runner.worker")


async def follow(residents: Iterable[Resident]) -> None:
    """Have each sandbox read its row again. One that fails is logged, and the next sweep's."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(resident: Resident) -> None:
        async with turns:
            if resident.over:
                return
            try:
                await resident.refresh()
            except RunnerError as error:
                sandbox = str(resident.hold.sandbox_id)
                _log.warning("sandbox_not_followed", sandbox=sandbox, why=error.detail)

    await asyncio.gather(*map(one, residents))
