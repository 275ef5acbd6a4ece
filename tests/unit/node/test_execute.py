"""How long an execution counts as running."""

from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from runner.base.tracing import NoTracer
from runner.node import traffic as traffics
from runner.node.measures import Measures
from runner.node.runs import execute
from runner.node.runs.execute import Executor
from runner.node.traffic import Traffic
from runner.words.execution import never_ran
from runner.words.states import Reason, State

pytestmark = pytest.mark.anyio


async def test_a_cancelled_execution_passes_until_its_sandbox_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Removing its container needs processor time, for which other work is put off."""
    monkeypatch.setattr(traffics, "QUIET_S", 0.0)
    monkeypatch.setattr(execute, "CANCELLED_HOLDS_S", 0.0)
    traffic, measures, busy = Traffic(), Measures(), []

    async def now(sandbox: object) -> None:
        busy.append((sandbox, traffic.busy))

    async def claim(*_: object) -> object:
        container = SimpleNamespace(assign=lambda _: None)
        return SimpleNamespace(runs=0, started_at=0.0, container=container)

    async def cancelled(*_: object) -> Any:
        return never_ran(State.CANCELLED, Reason.CANCEL_REQUESTED, "cancelled")

    async def finish(*_: object) -> bool:
        return True

    async def nothing() -> None:
        return

    async def guard(work: Awaitable[bool]) -> bool:
        return await work

    def keeper(**_: object) -> Any:
        return SimpleNamespace(
            guard=guard, fence=lambda _: None, release=lambda: None, cancel_requested=None
        )

    monkeypatch.setattr(execute, "LeaseKeeper", keeper)
    monkeypatch.setattr(execute, "Recorder", lambda **_: SimpleNamespace(stop=nothing))
    executor = Executor(
        database=SimpleNamespace(),  # type: ignore[arg-type]
        changes=SimpleNamespace(announce=lambda *_: None),  # type: ignore[arg-type]  # as used
        sandboxes=SimpleNamespace(claim=claim),
        disposals=SimpleNamespace(now=now, later=now),  # type: ignore[arg-type]  # as used
        policy=SimpleNamespace(lease=None, node="n"),  # type: ignore[arg-type]
        programs=SimpleNamespace(run=cancelled),  # type: ignore[arg-type]
        endings=SimpleNamespace(finisher=SimpleNamespace(finish=finish)),  # type: ignore[arg-type]
        traffic=traffic,
        measures=measures,
        tracer=NoTracer(),
    )
    claimed: Any = SimpleNamespace(
        claim=SimpleNamespace(tenant_id="t", execution_id="e", attempt=1),
        request=lambda: SimpleNamespace(
            run=SimpleNamespace(bounds=None), sandbox=None, reuse=False
        ),
        cancel_requested=False,
        waited_s=1.5,
        trace=None,
    )
    assert await executor.execute(claimed, 0.0)
    assert [under_way for _, under_way in busy] == [True]
    ended = 'runner_executions_ended_total{reason="cancel_requested",state="cancelled"} 1.0'
    assert ended in measures.text().decode()
    assert not traffic.busy
