"""The resources that sandboxes use, as E2B's clients read them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from runner.api import cursors
from runner.api.counting import count
from runner.api.deps import CanReadSandboxes, Dependencies, Parts, SandboxId
from runner.api.e2b.views import MeasureAnswer
from runner.api.edge.groups import Group
from runner.auth.caller import Caller
from runner.words.errors import Conflict, Gone, NotFound
from runner.words.living import MetricsPoint, StoredSandbox

router = APIRouter()

MOST_AT_ONCE = 100
AT_ONCE = 8
Seconds = Annotated[int, Query(ge=0, le=2**40)]


@router.get("/sandboxes/metrics")
async def measure_many(
    caller: CanReadSandboxes,
    parts: Parts,
    sandbox_ids: Annotated[str, Query(), StringConstraints(min_length=1, max_length=6000)],
) -> dict[str, dict[str, MeasureAnswer]]:
    """Return what each of these sandboxes used last; those that do not run are left out.

    It counts as one request for each of them.
    """
    try:
        ids = list(dict.fromkeys(map(UUID, sandbox_ids.split(","))))
    except ValueError:
        raise cursors.invalid("sandbox_ids", "must be ids of sandboxes, with commas") from None
    if len(ids) > MOST_AT_ONCE:
        raise cursors.invalid("sandbox_ids", f"must be at most {MOST_AT_ONCE} ids")
    await count(parts, caller, Group.USE, len(ids) - 1)
    turn = asyncio.Semaphore(AT_ONCE)

    async def last(sandbox_id: UUID) -> MeasureAnswer | None:
        async with turn:
            try:
                stored, points = await _series(caller, parts, sandbox_id)
            except (NotFound, Gone, Conflict):
                return None
            return last_measure(stored, points)

    measured = await asyncio.gather(*map(last, ids))
    return {
        "sandboxes": {
            str(id_): each for id_, each in zip(ids, measured, strict=True) if each is not None
        }
    }


@router.get("/sandboxes/{sandbox_id}/metrics")
async def measure(
    caller: CanReadSandboxes,
    parts: Parts,
    sandbox_id: SandboxId,
    start: Seconds | None = None,
    end: Seconds | None = None,
) -> list[MeasureAnswer]:
    """Return what a sandbox used in the last hour, or in a part of it, oldest first."""
    stored, points = await _series(caller, parts, sandbox_id)
    return [
        each
        for each in measures(stored, points)
        if (start is None or each.timestamp_unix >= start)
        and (end is None or each.timestamp_unix <= end)
    ]


async def _series(
    caller: Caller, parts: Dependencies, sandbox_id: UUID
) -> tuple[StoredSandbox, Sequence[MetricsPoint]]:
    stored = await parts.sandboxes.read(caller, sandbox_id)
    found = await parts.using.series(caller, sandbox_id)
    return stored, found.points


def last_measure(stored: StoredSandbox, points: Sequence[MetricsPoint]) -> MeasureAnswer | None:
    """Return the last sample alone, without building the others; None without any."""
    # Its share of the processor is that since the sample before.
    found = measures(stored, points[-2:])
    return found[-1] if found else None


def measures(stored: StoredSandbox, points: Sequence[MetricsPoint]) -> list[MeasureAnswer]:
    """Return samples in E2B's terms.

    The processor's share is of all that the sandbox may use, since the sample before; for the
    first one, since the sandbox was started.
    """
    resources = stored.resources
    began = (stored.started_at or stored.created_at, 0.0)
    times = [began, *((each.at, each.used.cpu_s or 0.0) for each in points)]
    shares = [_percent(before, after, resources.cpu) for before, after in pairwise(times)]
    mib = 2**20
    return [
        MeasureAnswer(
            timestamp=each.at,
            timestamp_unix=int(each.at.timestamp()),
            cpu_count=max(1, round(resources.cpu)),
            cpu_used_pct=share,
            mem_used=each.used.memory_bytes or 0,
            mem_total=resources.memory_mb * mib,
            disk_used=each.used.disk_bytes or 0,
            disk_total=resources.disk_mb * mib,
        )
        for each, share in zip(points, shares, strict=True)
    ]


def _percent(before: tuple[datetime, float], after: tuple[datetime, float], cpu: float) -> float:
    seconds = (after[0] - before[0]).total_seconds()
    if seconds <= 0:
        return 0.0
    return round(100 * max(0.0, after[1] - before[1]) / (seconds * cpu), 2)
