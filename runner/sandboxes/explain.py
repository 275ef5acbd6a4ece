"""The explanation of a sandbox's late start, pause or end, from the tenant's audit log."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, Newest, Outcome
from runner.auth.caller import Caller
from runner.sandboxes.meanings import MEANINGS
from runner.sandboxes.place import NO_SANDBOX
from runner.store import sandboxes
from runner.store.db import Database
from runner.words.errors import NotFound
from runner.words.explanation import ExplainedEnd, Explanation, Hindrance, Stage, StageName, Wait
from runner.words.lives import Life
from runner.words.living import StoredSandbox

MOST_STAGES = 200
_STAGES: Final[Mapping[Action, StageName]] = MappingProxyType(
    {
        Action.SANDBOX_START: StageName.STARTED,
        Action.SANDBOX_PAUSE: StageName.PAUSED,
        Action.SANDBOX_RESUME: StageName.RESUMED,
        Action.SANDBOX_KILL: StageName.STOP_REQUESTED,
    }
)
"""Its creation and end are in its row."""
_WHY: Final = ("reason", "quota")


async def explain(database: Database, caller: Caller, sandbox_id: UUID) -> Explanation:
    """Return what has happened to a sandbox, and why. Raises NotFound."""
    async with database.tenant(caller.tenant_id, snapshot=True) as tx:
        sandbox = await sandboxes.get(tx, sandbox_id)
        where = await sandboxes.where(tx, sandbox_id)
        if sandbox is None or where is None:
            raise NotFound(NO_SANDBOX)
        newest = await audit.newest_of_life(tx, sandbox_id, MOST_STAGES)
    return explained(sandbox, newest, claimed=where.node is not None)


def explained(sandbox: StoredSandbox, newest: Newest, *, claimed: bool) -> Explanation:
    """Return the explanation of a sandbox from its row and the newest records of its life.

    `claimed` says whether a node has the sandbox.
    """
    stages = list(_stages(sandbox, [json.loads(each.body) for each in newest.records]))
    timed = [replace(each, after_s=_seconds(before, each)) for before, each in pairwise(stages)]
    if newest.omitted and timed:
        # What came right before it is left out.
        timed[0] = replace(timed[0], after_s=None)
    return Explanation(
        id=sandbox.id,
        kind="sandbox",
        state=sandbox.state.value,
        stages=(stages[0], *timed),
        omitted=newest.omitted,
        wait=_wait(sandbox, claimed=claimed),
        end=_end(sandbox),
    )


def _stages(sandbox: StoredSandbox, records: Sequence[Mapping[str, Any]]) -> Iterator[Stage]:
    yield Stage(StageName.SUBMITTED, sandbox.created_at)
    for record in records:
        # A refusal is on record, too, but changes nothing.
        if record["outcome"] == Outcome.DENIED:
            continue
        name, facts = _STAGES[Action(record["action"])], record["metadata"]
        at = datetime.fromisoformat(record["at"])
        if name is StageName.STARTED and sandbox.started_at is not None:
            at = sandbox.started_at
        detail = ", ".join(str(facts[each]) for each in _WHY if facts.get(each)) or None
        if facts.get("auto"):
            detail = detail or "by its use"
        yield Stage(name, at, node=facts.get("node"), detail=detail)
    if sandbox.ended_at is not None:
        yield Stage(StageName.ENDED, sandbox.ended_at)


def _seconds(before: Stage, stage: Stage) -> float:
    # The worker's clock gives some of the times, and the database's the others.
    return max(0.0, (stage.at - before.at).total_seconds())


def _wait(sandbox: StoredSandbox, *, claimed: bool) -> Wait | None:
    if sandbox.state is not Life.STARTING or claimed:
        return None
    detail = "no node has taken it yet; without one, it ends as start_failed within a minute"
    return Wait(Hindrance.NO_NODE, detail, sandbox.created_at)


def _end(sandbox: StoredSandbox) -> ExplainedEnd | None:
    if sandbox.reason is None:
        return None
    detail = sandbox.detail
    if sandbox.kept_as is not None:
        detail = f"its files are in the snapshot {sandbox.kept_as}"
    return ExplainedEnd(sandbox.reason.value, detail, MEANINGS[sandbox.reason])
