"""Which spans an attempt has, by how far it came."""

from datetime import UTC, datetime
from typing import Any

import pytest

from runner.base.tracing import Clock, Fact, SpanKind, TraceSpan
from runner.node.runs.attempt import Attempt, StageTimes
from runner.node.runs.egress import MOST_PASSAGES, Passage, WayOut
from runner.node.runs.spans import spans
from runner.node.runs.start import Start
from runner.words.execution import Claim, ExecutionRequest, Program, Result, RunSpec, never_ran
from runner.words.ids import new_id
from runner.words.resources import Resources, RunBounds
from runner.words.sandbox import SandboxSpec
from runner.words.states import Reason, State
from runner.words.templates import image_of
from runner.words.trace import TracePlace

SUBMIT = TracePlace.new(sampled=True)
CLOCK = Clock(0)
SUCCEEDED = never_ran(State.SUCCEEDED, Reason.COMPLETED, "")


def attempt(
    times: StageTimes, result: Result | None = None, *, image: str = "python", **values: Any
) -> Attempt:
    """Return an attempt that came as far as these times say."""
    request = ExecutionRequest(
        SandboxSpec(image, Resources(1.0, 256, 64, 128)),
        RunSpec(Program(("canary",), {"CANARY": "canary"}), RunBounds(1.0, 1)),
        size="small",
        language="python",
        metadata={"canary": "canary"},
    )
    found = Attempt(Claim(new_id(), new_id(), 1), request, recorder=None, times=times)  # type: ignore[arg-type]  # as used
    found.settled = result
    for name, value in values.items():
        setattr(found, name, value)
    return found


def started(at: float) -> Start:
    start = Start(lambda: "")
    start.at = at
    return start


def by_name(of: Attempt) -> dict[str, TraceSpan]:
    return {span.name: span for span in spans(SUBMIT, 2.0, of, "node", CLOCK)}


def seconds(span: TraceSpan) -> tuple[float, float]:
    return span.began / 1e9, span.ended / 1e9


def test_the_stages_of_a_whole_attempt_follow_each_other() -> None:
    found = by_name(attempt(StageTimes(9, 10, 11, 13, 14, 15), SUCCEEDED, start=started(12.0)))
    assert {name: seconds(span) for name, span in found.items()} == {
        "execution": (8, 15),
        "queue": (8, 9),
        "claim": (9, 10),
        "sandbox": (10, 11),
        "prepare": (11, 12),
        "execute_tool python": (12, 13),
        "collect": (13, 14),
        "receipt": (14, 15),
    }
    whole = found.pop("execution")
    assert (whole.parent, whole.kind) == (SUBMIT.span_id, SpanKind.CONSUMER)
    assert {span.parent for span in found.values()} == {whole.place.span_id}
    assert {span.place.trace_id for span in found.values()} == {SUBMIT.trace_id}
    assert not any(span.failed for span in found.values())


@pytest.mark.parametrize(
    ("times", "start", "last"),
    [
        (StageTimes(9, 10), None, {"sandbox"}),
        (StageTimes(9, 10, 11), None, {"sandbox", "prepare"}),
        (StageTimes(9, 10, 11), started(12.0), {"sandbox", "prepare", "execute_tool python"}),
    ],
    ids=["no sandbox", "no program", "no end"],
)
def test_an_attempt_that_went_no_further_has_the_stages_that_began(
    times: StageTimes, start: Start | None, last: set[str]
) -> None:
    found = by_name(attempt(times, start=start))
    assert found.keys() == {"execution", "queue", "claim", *last}
    assert found["execution"].failed
    assert found["execution"].facts[Fact.STATE] == "interrupted"


def test_a_template_is_named_by_its_id_alone() -> None:
    """Its tenant chose its name, and may have put anything into it."""
    template = new_id()
    whole = by_name(attempt(StageTimes(9, 10), image=image_of("canary", template)))["execution"]
    assert whole.facts[Fact.IMAGE] == f"template:{template}"


def test_a_program_that_fails_is_a_failure_of_its_span_and_not_of_ours() -> None:
    failed = never_ran(State.FAILED, Reason.EXIT_NONZERO, "canary")
    found = by_name(attempt(StageTimes(9, 10, 11, 13, 14, 15), failed, start=started(12.0)))
    assert found["execute_tool python"].failed
    assert found["execute_tool python"].facts[Fact.ERROR] == "exit_nonzero"
    assert not found["execution"].failed


def test_connections_are_below_the_program_and_few() -> None:
    """They hold nothing that the program chose, and the proxy tells them when they are over."""
    passage = Passage(datetime.fromtimestamp(13, UTC), 0.5, "allowed", "rule", "connect", 1, 2)
    ran = attempt(StageTimes(9, 10, 11, 13, 14, 15), SUCCEEDED, start=started(12.0))
    ran.way_out = WayOut(passages=[passage] * MOST_PASSAGES)
    found = list(spans(SUBMIT, 2.0, ran, "node", CLOCK))
    assert len(found) == 8 + MOST_PASSAGES
    one = next(span for span in found if span.name == "egress")
    run = next(span for span in found if span.name == "execute_tool python")
    assert (one.parent, seconds(one)) == (run.place.span_id, (12.5, 13))


def test_nothing_of_the_request_is_in_a_span() -> None:
    failed = never_ran(State.FAILED, Reason.EXIT_NONZERO, "canary")
    ran = attempt(StageTimes(9, 10, 11, 13, 14, 15), failed, start=started(12.0))
    assert "canary" in repr(ran.request)
    assert "canary" not in repr(list(spans(SUBMIT, 2.0, ran, "node", CLOCK)))
