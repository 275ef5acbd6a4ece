"""An explanation follows from the rows and records of one life."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from runner.audit.events import Action, Listed, Newest
from runner.executions import meanings as of_executions
from runner.executions.explain import QueueStanding, explained, waiting
from runner.sandboxes import meanings as of_sandboxes
from runner.sandboxes.explain import explained as explained_sandbox
from runner.store.executions import Place
from runner.words.execution import Event, EventKind, Execution, never_ran
from runner.words.explanation import Hindrance, StageName
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import StoredSandbox
from runner.words.resources import Limits, Resources
from runner.words.sandbox import Isolation
from runner.words.states import Reason, State

BEGAN = datetime(2026, 1, 5, 12, tzinfo=UTC)
ID = UUID("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
RESOURCES = Resources(cpu=1.0, memory_mb=256, pids=64, disk_mb=128)
EXECUTION = Execution(
    id=ID, tenant_id=ID, state=State.QUEUED, attempt=0, created_at=BEGAN, started_at=None,
    ended_at=None, cancel_requested_at=None, project=None, image="python", size="small",
    language=None, metadata={}, isolation=Isolation.CONTAINER, interpret=False, reuse=False,
    limits=Limits(
        cpu=1.0, memory_mb=256, pids=64, disk_mb=128, timeout_s=30.0, output_kb=256
    ),
    output_keep="head", egress=(), egress_policy=None, result=None,
)  # fmt: skip
SANDBOX = StoredSandbox(
    id=ID, tenant_id=ID, state=Life.STARTING, reason=None, detail=None, created_at=BEGAN,
    started_at=None, ended_at=None, expires_at=None, timeout_s=None, on_timeout=OnTimeout.KILL,
    auto_resume=False, lives_until=None, project=None, image="python", size="small",
    resources=RESOURCES, isolation=Isolation.CONTAINER, egress=(), egress_policy=None, env={},
    secret_env={}, metadata={}, created_by="key:x",
)  # fmt: skip


def after(seconds: float) -> datetime:
    """Return a moment after the beginning."""
    return BEGAN + timedelta(seconds=seconds)


def change(seq: int, attempt: int, seconds: float, state: State, **data: Any) -> Event:
    """Return the event of a change of state."""
    return Event(seq, attempt, EventKind.STATE, after(seconds), {"state": state.value, **data})


def test_a_timeline_names_each_attempt_and_how_long_it_waited() -> None:
    """The first worker was drained; the second one took it from its stock."""
    result = never_ran(State.FAILED, Reason.EXIT_NONZERO, "The program exited with code 3.")
    execution = replace(
        EXECUTION, state=State.FAILED, attempt=2, started_at=after(7), ended_at=after(9),
        result=result,
    )  # fmt: skip
    found = explained(
        execution,
        [
            change(1, 0, 0, State.QUEUED),
            change(2, 1, 2, State.STARTING),
            change(3, 1, 3, State.QUEUED, detail="the worker was stopped"),
            change(4, 2, 6, State.STARTING),
            # This one was written with the end; the row says when the program began.
            change(5, 2, 9, State.RUNNING),
            change(6, 2, 9, State.FAILED, reason="exit_nonzero"),
        ],
        [{"metadata": {
            "attempt": 2, "node": "n1", "sandbox": "s1", "sandbox_runs_before": 0,
            "sandbox_from_stock": True,
        }}],
        None,
    )  # fmt: skip
    assert [(each.name, each.after_s, each.attempt) for each in found.stages] == [
        (StageName.SUBMITTED, None, None),
        (StageName.CLAIMED, 2.0, 1),
        (StageName.QUEUED_AGAIN, 1.0, 1),
        (StageName.CLAIMED, 3.0, 2),
        (StageName.STARTED, 1.0, 2),
        (StageName.ENDED, 2.0, 2),
    ]
    assert found.stages[2].detail == "the worker was stopped"
    started = found.stages[4]
    assert (started.node, started.sandbox, started.source) == ("n1", "s1", "stock")
    assert found.wait is None
    assert found.end is not None
    assert (found.end.reason, found.end.detail) == (result.reason, result.detail)
    assert found.end.meaning.advice == "Correct the program."


@pytest.mark.parametrize(
    ("facts", "source"),
    [
        ({"sandbox_runs_before": 0, "sandbox_from_stock": True}, "stock"),
        ({"sandbox_runs_before": 0, "sandbox_from_stock": False}, "fresh"),
        ({"sandbox_runs_before": 2, "sandbox_from_stock": True}, "reused"),
        # Records of earlier releases do not say it.
        ({"sandbox_runs_before": 0}, None),
    ],
    ids=["stock", "fresh", "reused", "unknown"],
)
def test_where_a_sandbox_came_from(facts: Mapping[str, Any], source: str | None) -> None:
    running = replace(EXECUTION, state=State.RUNNING, attempt=1, started_at=after(1))
    changes = [change(1, 0, 0, State.QUEUED), change(2, 1, 1, State.RUNNING)]
    found = explained(running, changes, [{"metadata": {"attempt": 1, **facts}}], None)
    assert found.stages[-1].source == source


@pytest.mark.parametrize(
    ("turn", "why", "said"),
    [
        (QueueStanding(Place(3, 1.5), suspended=True, active=2, concurrent=2),
         Hindrance.TENANT_SUSPENDED, "suspended"),
        (QueueStanding(Place(3, 1.5), suspended=False, active=2, concurrent=2), Hindrance.QUOTA,
         "runs 2 executions, and may run 2"),
        (QueueStanding(Place(3, 1.5), suspended=False, active=1, concurrent=2), Hindrance.QUEUE,
         "3 executions run before it"),
        (QueueStanding(Place(1, None), suspended=False, active=1, concurrent=2), Hindrance.QUEUE,
         "1 execution runs before it"),
        (QueueStanding(Place(0, 0.2), suspended=False, active=1, concurrent=2),
         Hindrance.NO_FREE_WORKER, "it is next"),
    ],
    ids=["suspended", "quota", "queue", "one before it", "next"],
)  # fmt: skip
def test_the_hindrance_is_the_one_that_would_remain(
    turn: QueueStanding, why: Hindrance, said: str
) -> None:
    found = waiting(turn, BEGAN)
    assert found.why is why
    assert said in found.detail
    assert turn.place is not None
    assert (found.position, found.starts_in_s) == (turn.place.position, turn.place.starts_in_s)


@pytest.mark.parametrize("reason", Reason, ids=str)
def test_each_reason_of_an_execution_has_a_meaning(reason: Reason) -> None:
    assert of_executions.MEANINGS[reason].means
    assert of_executions.MEANINGS[reason].advice.endswith(".")


@pytest.mark.parametrize("reason", EndReason, ids=str)
def test_each_reason_of_a_sandbox_has_a_meaning(reason: EndReason) -> None:
    assert of_sandboxes.MEANINGS[reason].means
    assert of_sandboxes.MEANINGS[reason].advice.endswith(".")


def listed(seq: int, seconds: float, action: Action, **facts: Any) -> Listed:
    """Return a record of the audit log."""
    record = {"action": action, "at": after(seconds).isoformat(), "outcome": "success",
              "metadata": facts}  # fmt: skip
    return Listed(seq, json.dumps(record), b"")


def test_a_sandbox_shows_its_pauses_and_why_they_were() -> None:
    sandbox = replace(
        SANDBOX, state=Life.ENDED, started_at=after(1), ended_at=after(60),
        reason=EndReason.EXPIRED, detail="its time was up",
    )  # fmt: skip
    records = [
        listed(1, 1.2, Action.SANDBOX_START, node="n1"),
        listed(2, 10, Action.SANDBOX_PAUSE, reason="quota", quota="cpu_s_per_day"),
        listed(3, 20, Action.SANDBOX_RESUME, auto=True),
    ]
    found = explained_sandbox(sandbox, Newest(records, 0), claimed=True)
    assert [(each.name, each.after_s, each.detail) for each in found.stages] == [
        (StageName.SUBMITTED, None, None),
        (StageName.STARTED, 1.0, None),
        (StageName.PAUSED, 9.0, "quota, cpu_s_per_day"),
        (StageName.RESUMED, 10.0, "by its use"),
        (StageName.ENDED, 40.0, None),
    ]
    assert found.stages[1].node == "n1"
    assert found.end is not None
    assert found.end.reason == "expired"


def test_a_long_life_shows_its_last_stages_and_how_many_are_left_out() -> None:
    records = [listed(9, 50, Action.SANDBOX_RESUME), listed(10, 55, Action.SANDBOX_PAUSE)]
    running = replace(SANDBOX, state=Life.PAUSED, started_at=after(1))
    found = explained_sandbox(running, Newest(records, 7), claimed=True)
    assert found.omitted == 7
    assert [each.after_s for each in found.stages] == [None, None, 5.0]


@pytest.mark.parametrize("claimed", [True, False], ids=["claimed", "unclaimed"])
def test_a_sandbox_waits_only_for_a_node(*, claimed: bool) -> None:
    found = explained_sandbox(SANDBOX, Newest([], 0), claimed=claimed)
    assert (found.wait is None) == claimed
