"""The spans of one attempt at an execution, made when it is over from the times of its stages."""

from collections.abc import Iterator

from runner.base.tracing import Clock, Fact, Facts, SpanKind, SpanTracer, TraceSpan, Value, tool
from runner.node.runs.attempt import Attempt
from runner.node.runs.egress import Passage
from runner.store.scheduling import Claimed
from runner.words.execution import Result
from runner.words.states import State
from runner.words.templates import template_in
from runner.words.trace import TracePlace

COMMAND = "command"
"""The name of the tool if the client named a program, and no language."""
NOTHING: Facts = {}
INTERRUPTED = "interrupted"
"""The state of an attempt without a result: the execution is queued again, or another's."""


def record_attempt(tracer: SpanTracer, claimed: Claimed, attempt: Attempt, node: str) -> None:
    """Export the attempt's spans, if the request that submitted the execution is traced."""
    if claimed.trace is None or not (claimed.trace.sampled and tracer.exports):
        return
    for span in spans(claimed.trace, claimed.waited_s, attempt, node, Clock.read()):
        tracer.record(span)


def spans(
    trace: TracePlace, waited_s: float, attempt: Attempt, node: str, clock: Clock
) -> Iterator[TraceSpan]:
    """Yield the spans: one of the whole attempt, and below it one of each stage that began.

    `trace` is the place of the request that submitted the execution, which may be long over.
    """
    times, result, request = attempt.times, attempt.settled, attempt.request
    whole, now = trace.child(), clock.now()

    def at(moment: float | None) -> int:
        return now if moment is None else clock.at(moment)

    def stage(name: str, began: float, ended: float | None, facts: Facts = NOTHING) -> TraceSpan:
        place = whole.child()
        return TraceSpan(name, place, whole.span_id, at(began), at(ended), facts)

    queued = times.claimed - waited_s
    # A worker may have asked before there was anything to claim.
    asked = max(queued, times.asked)
    yield stage("queue", queued, asked)
    yield stage("claim", asked, times.claimed)
    yield stage("sandbox", times.claimed, times.sandbox, {Fact.SOURCE: attempt.source})
    began = attempt.start.at if attempt.start else None
    if times.sandbox is not None:
        yield stage("prepare", times.sandbox, began or times.collected)
    if began is not None:
        run = _run(whole, attempt, at(began), at(times.run))
        yield run
        yield from (_passage(run.place, each) for each in attempt.way_out.passages)
    if times.run is not None:
        yield stage("collect", times.run, times.collected)
    if times.collected is not None:
        yield stage("receipt", times.collected, times.finished)
    yield TraceSpan(
        "execution",
        whole,
        trace.span_id,
        at(queued),
        at(times.finished),
        {
            Fact.TENANT: str(attempt.claim.tenant_id),
            Fact.EXECUTION: str(attempt.claim.execution_id),
            Fact.ATTEMPT: attempt.claim.attempt,
            Fact.NODE: node,
            Fact.IMAGE: _image(request.sandbox.image),
            Fact.ISOLATION: request.sandbox.isolation.value,
            **_outcome(result),
        },
        SpanKind.CONSUMER,
        failed=result is None or result.state is State.SYSTEM_ERROR,
    )


def _image(name: str) -> str:
    """Return the text for an image: a template's id, because a tenant chose the template's name."""
    template = template_in(name)
    return name if template is None else f"template:{template}"


def _run(whole: TracePlace, attempt: Attempt, began: int, ended: int) -> TraceSpan:
    """Return the span of the program, as the conventions for tools of agents describe one."""
    named, result = attempt.request.language or COMMAND, attempt.settled
    facts: dict[Fact, Value | None] = {
        **tool(named),
        **_outcome(result),
    }
    if result is not None:
        facts[Fact.EXIT_CODE] = result.exit_code
        facts[Fact.SIGNAL] = result.signal
        facts[Fact.CPU_S] = result.usage.cpu_s
        facts[Fact.MEMORY_PEAK] = result.usage.memory_peak_bytes
    if failed := result is None or result.state is not State.SUCCEEDED:
        facts[Fact.ERROR] = facts.get(Fact.REASON, INTERRUPTED)
    name = f"execute_tool {named}"
    return TraceSpan(name, whole.child(), whole.span_id, began, ended, facts, failed=failed)


def _outcome(result: Result | None) -> dict[Fact, str]:
    if result is None:
        return {Fact.STATE: INTERRUPTED}
    return {Fact.STATE: result.state.value, Fact.REASON: result.reason.value}


def _passage(run: TracePlace, passage: Passage) -> TraceSpan:
    # The proxy reports a connection when it is over.
    ended = round(passage.at.timestamp() * 1e9)
    return TraceSpan(
        "egress",
        run.child(),
        run.span_id,
        ended - round(passage.duration_s * 1e9),
        ended,
        {
            Fact.EGRESS_METHOD: passage.method,
            Fact.EGRESS_OUTCOME: passage.outcome,
            Fact.REASON: passage.reason,
            Fact.BYTES_UP: passage.bytes_up,
            Fact.BYTES_DOWN: passage.bytes_down,
        },
    )
