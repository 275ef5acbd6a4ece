"""The spans of what runs in living sandboxes, below those of the calls that started it."""

import time
from contextlib import AbstractContextManager

from runner.base.tracing import Fact, Facts, SpanTracer, TraceSpan, Value, timed, tool
from runner.door.grants import DoorGrant
from runner.node.residents.processes import TrackedProcess
from runner.words.trace import TracePlace

COMMAND = "command"
"""The name of the tool that starts processes."""


def follow_process(tracer: SpanTracer, grant: DoorGrant, process: TrackedProcess) -> None:
    """Export a span of a process that has just started, when it has ended."""
    parent = grant.place
    if parent is None or not (parent.sampled and tracer.exports):
        return
    began = time.time_ns()

    def ended(_: object) -> None:
        tracer.record(_process(grant, parent, process, began))

    # Called after the table has noted how it ended.
    process.guest.exited.add_done_callback(ended)


def run_of(
    tracer: SpanTracer, grant: DoorGrant, language: str
) -> AbstractContextManager[TracePlace | None]:
    """Make a span of the context, in which code runs in a context of the sandbox."""
    facts = {**_where(grant), **tool(language)}
    return timed(tracer, f"execute_tool {language}", grant.place, facts)


def _process(
    grant: DoorGrant, parent: TracePlace, process: TrackedProcess, began: int
) -> TraceSpan:
    end = process.end
    facts: dict[Fact, Value | None] = {
        **_where(grant),
        **tool(COMMAND),
        Fact.PROCESS: process.number,
    }
    if end is not None:
        facts[Fact.EXIT_CODE] = end.exit_code
        facts[Fact.SIGNAL] = end.signal
    return TraceSpan(
        f"execute_tool {COMMAND}",
        parent.child(),
        parent.span_id,
        began,
        time.time_ns(),
        facts,
        failed=end is None or end.exit_code != 0,
    )


def _where(grant: DoorGrant) -> Facts:
    return {Fact.TENANT: str(grant.tenant), Fact.SANDBOX: str(grant.sandbox)}
