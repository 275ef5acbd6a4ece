"""Spans: what a process tells a tracing backend about its work, if the operator wants that.

A stage of the work notes when it begins and ends. When the work is over, these times become spans,
which the process's `SpanTracer` exports. Spans hold facts from a fixed list, with values that we
chose: never code, arguments, names of files or hosts, output, or headers.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Final, Protocol, TypeAlias

from runner.words.trace import TracePlace

SCHEMA: Final = "https://opentelemetry.io/schemas/1.41.0"
"""The version of OpenTelemetry's semantic conventions that names of attributes follow."""
Value: TypeAlias = str | int | float


class SpanKind(Enum):
    """How a span relates to its parent, as OpenTelemetry's SpanKind says it."""

    INTERNAL = "internal"
    SERVER = "server"
    CONSUMER = "consumer"


class Fact(StrEnum):
    """The attributes that spans may have; nothing else is exported.

    `http`, `error` and `gen_ai` are OpenTelemetry's semantic conventions: see `SCHEMA`.
    """

    METHOD = "http.request.method"
    ROUTE = "http.route"
    STATUS = "http.response.status_code"
    ERROR = "error.type"
    OPERATION = "gen_ai.operation.name"
    TOOL = "gen_ai.tool.name"
    TOOL_TYPE = "gen_ai.tool.type"
    TENANT = "runner.tenant"
    EXECUTION = "runner.execution"
    ATTEMPT = "runner.attempt"
    SANDBOX = "runner.sandbox"
    PROCESS = "runner.process"
    NODE = "runner.node"
    IMAGE = "runner.image"
    ISOLATION = "runner.isolation"
    SOURCE = "runner.sandbox.source"
    STATE = "runner.state"
    REASON = "runner.reason"
    EXIT_CODE = "runner.exit_code"
    SIGNAL = "runner.signal"
    CPU_S = "runner.cpu_s"
    MEMORY_PEAK = "runner.memory_peak_bytes"
    CALL = "runner.door.call"
    EGRESS_METHOD = "runner.egress.method"
    EGRESS_OUTCOME = "runner.egress.outcome"
    BYTES_UP = "runner.egress.bytes_up"
    BYTES_DOWN = "runner.egress.bytes_down"


Facts: TypeAlias = Mapping[Fact, Value | None]
"""Those that are None are left out."""


def tool(name: str) -> Facts:
    """Return the attributes that the conventions for agents give to a tool that an agent uses.

    https://github.com/open-telemetry/semantic-conventions/blob/v1.41.0/docs/gen-ai/gen-ai-agent-spans.md
    """
    return {Fact.OPERATION: "execute_tool", Fact.TOOL: name, Fact.TOOL_TYPE: "function"}


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A piece of work that is over. Times are nanoseconds since the epoch."""

    name: str
    place: TracePlace
    parent: str | None
    """The id of the span that it is part of, which may be another process's or the client's."""
    began: int
    ended: int
    facts: Facts = field(default_factory=dict)
    kind: SpanKind = SpanKind.INTERNAL
    failed: bool = False


@dataclass(frozen=True, slots=True)
class SpanSource:
    """The process that spans come from, as `service.name` and `service.instance.id`."""

    service: str
    instance: str


class SpanTracer(Protocol):
    """Takes spans."""

    @property
    def exports(self) -> bool:
        """Whether spans go anywhere."""

    def record(self, span: TraceSpan) -> None:
        """Export a span soon; the caller never waits. It is dropped if there are too many."""


class NoTracer:
    """What processes have if the operator named no collector."""

    exports = False

    def record(self, span: TraceSpan) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns times of `time.monotonic` into nanoseconds since the epoch, all by one comparison.

    So spans of one piece of work never disagree with each other, even if the host's clock is set.
    """

    offset: int

    @classmethod
    def read(cls) -> "Clock":
        """Return the comparison as it is now."""
        return cls(time.time_ns() - round(time.monotonic() * 1e9))

    def at(self, monotonic: float) -> int:
        """Return the time as nanoseconds since the epoch."""
        return round(monotonic * 1e9) + self.offset

    def now(self) -> int:
        """Return this moment as nanoseconds since the epoch."""
        return self.at(time.monotonic())


@contextmanager
def timed(
    tracer: SpanTracer, name: str, parent: TracePlace | None, facts: Facts
) -> Iterator[TracePlace | None]:
    """Make a span of the context; yields its place, or None if its trace is not exported."""
    if parent is None or not (parent.sampled and tracer.exports):
        yield None
        return
    place, began, failed = parent.child(), time.time_ns(), True
    try:
        yield place
        failed = False
    finally:
        ended = time.time_ns()
        tracer.record(TraceSpan(name, place, parent.span_id, began, ended, facts, failed=failed))
