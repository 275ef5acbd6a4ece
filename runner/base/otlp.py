"""Exports spans to a collector by OTLP over HTTP, from a thread of its own.

The event loop only puts spans into a bounded queue. The thread sends them once a second, and waits
for the collector. A collector that is down, slow, hangs or answers without end costs spans,
and nothing else; the spans that are lost are counted.

The protocol: https://opentelemetry.io/docs/specs/otlp/#otlphttp. This module is imported only if a
collector is set.
"""

import asyncio
import gzip
import queue
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx
import structlog
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from prometheus_client import CollectorRegistry, Counter

from runner import __version__
from runner.base.tracing import SCHEMA, SpanKind, SpanSource, TraceSpan, Value

MOST_WAITING: Final = 4096
"""Spans that wait to be sent; one takes about 1 KiB."""
MOST_AT_ONCE: Final = 512
"""Spans in one request."""
EVERY_S: Final = 1.0
"""How long spans are gathered before they are sent."""
ANSWER_S: Final = 5.0
"""How long the collector may pause in an answer, and how long all of its body may take."""
MOST_ANSWER: Final = 64 * 1024
"""The bytes of an answer that are read. The protocol's own has a few."""
PAUSES_S: Final = (0.0, 1.0, 2.0)
"""Pauses before each try to send a request."""
LEAVE_S: Final = 2.0
"""How long a process that stops waits for its last spans to be sent."""
AGAIN: Final = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers after which the same request may succeed, as the protocol says."""
MOST_TEXT: Final = 128
_PLAIN = re.compile(r"[A-Za-z0-9_.:/{}+ -]*")
OTHER: Final = "other"
"""Stands for texts that are not of the form that ours have."""
_KINDS = {
    SpanKind.INTERNAL: trace_pb2.Span.SPAN_KIND_INTERNAL,
    SpanKind.SERVER: trace_pb2.Span.SPAN_KIND_SERVER,
    SpanKind.CONSUMER: trace_pb2.Span.SPAN_KIND_CONSUMER,
}
_SCOPE = InstrumentationScope(name="agent-runner", version=__version__)
_log = structlog.get_logger("runner.tracing")


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go."""

    url: str
    """The complete address, such as `http://collector:4318/v1/traces`."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class OtlpTracer:
    """Sends spans to a collector. `open_otlp` starts and stops its thread."""

    exports = True

    def __init__(
        self, collector: Collector, source: SpanSource, registry: CollectorRegistry
    ) -> None:
        self._queue: queue.Queue[TraceSpan] = queue.Queue(MOST_WAITING)
        self._resource = Resource(
            attributes=_attributes(
                {
                    "service.name": source.service,
                    "service.version": __version__,
                    "service.instance.id": source.instance,
                }
            )
        )
        self._url = collector.url
        self._headers = {
            **collector.headers,
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            # An answer that is unpacked has no bound.
            "Accept-Encoding": "identity",
            "User-Agent": f"agent-runner/{__version__}",
        }
        self._counts = Counter(
            "runner_spans_total",
            "Spans by what became of them: exported, dropped because too many waited, or failed "
            "because the collector did not take them.",
            ("outcome",),
            registry=registry,
        )
        for outcome in ("exported", "dropped", "failed"):
            self._counts.labels(outcome)
        self._stopping = threading.Event()
        # Nobody waits for it when the process ends: the collector may hang.
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._fails = False

    def record(self, span: TraceSpan) -> None:
        """Export a span soon; drop it if too many wait."""
        if not span.place.sampled:
            return
        try:
            self._queue.put_nowait(span)
        except queue.Full:
            self._counts.labels("dropped").inc()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, for `LEAVE_S` at most. Blocks: call it from a thread."""
        self._stopping.set()
        self._thread.join(LEAVE_S)

    def _run(self) -> None:
        # A jar that takes no cookies: a collector could fill it without end. No proxy of the
        # environment: spans go to exactly the address that was set.
        none = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        with httpx.Client(
            headers=self._headers, cookies=none, timeout=ANSWER_S, trust_env=False
        ) as client:
            while not self._stopping.wait(EVERY_S):
                self._send_waiting(client)
            self._send_waiting(client)

    def _send_waiting(self, client: httpx.Client) -> None:
        while batch := self._taken():
            refused = self._send(client, batch)
            self._counts.labels("exported").inc(len(batch) - refused)
            self._counts.labels("failed").inc(refused)
            self._tell(fails=refused == len(batch))

    def _taken(self) -> list[TraceSpan]:
        taken: list[TraceSpan] = []
        with suppress(queue.Empty):
            while len(taken) < MOST_AT_ONCE:
                taken.append(self._queue.get_nowait())
        return taken

    def _send(self, client: httpx.Client, batch: Sequence[TraceSpan]) -> int:
        """Send a batch; return how many of its spans the collector did not take."""
        body = gzip.compress(self._request(batch).SerializeToString(), compresslevel=1)
        for pause_s in PAUSES_S:
            if pause_s and self._stopping.wait(pause_s):
                break
            try:
                with client.stream("POST", self._url, content=body) as answer:
                    if answer.is_success:
                        return min(_refused(answer), len(batch))
            except (httpx.HTTPError, httpx.InvalidURL):
                continue
            if answer.status_code not in AGAIN:
                break
        return len(batch)

    def _tell(self, *, fails: bool) -> None:
        """Log that the collector begins to fail, or works again: once each."""
        if fails is self._fails:
            return
        self._fails = fails
        if fails:
            _log.warning("collector_fails", detail="spans are lost until it takes them again")
        else:
            _log.info("collector_works")

    def _request(self, batch: Sequence[TraceSpan]) -> ExportTraceServiceRequest:
        spans = ScopeSpans(scope=_SCOPE, spans=map(_written, batch), schema_url=SCHEMA)
        return ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[spans])]
        )


@asynccontextmanager
async def open_otlp(
    collector: Collector, source: SpanSource, registry: CollectorRegistry
) -> AsyncIterator[OtlpTracer]:
    """Export spans inside the context, and count them in the registry."""
    tracer = OtlpTracer(collector, source, registry)
    tracer.start()
    try:
        yield tracer
    finally:
        await asyncio.to_thread(tracer.stop)


def _refused(answer: httpx.Response) -> int:
    """Return how many spans a collector that took the request says it refused.

    What is too long, takes too long or is not of the protocol says nothing, so none were.
    """
    said, until = b"", time.monotonic() + ANSWER_S
    for chunk in answer.iter_raw():
        said += chunk
        if len(said) > MOST_ANSWER or time.monotonic() > until:
            return 0
    try:
        told = ExportTraceServiceResponse.FromString(said)
    except DecodeError:
        return 0
    return max(int(told.partial_success.rejected_spans), 0)


def _written(span: TraceSpan) -> trace_pb2.Span:
    return trace_pb2.Span(
        trace_id=bytes.fromhex(span.place.trace_id),
        span_id=bytes.fromhex(span.place.span_id),
        parent_span_id=bytes.fromhex(span.parent or ""),
        name=_plain(span.name),
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.began,
        end_time_unix_nano=max(span.began, span.ended),
        attributes=_attributes(
            {fact.value: value for fact, value in span.facts.items() if value is not None}
        ),
        status=Status(code=Status.STATUS_CODE_ERROR if span.failed else Status.STATUS_CODE_UNSET),
    )


def _attributes(facts: Mapping[str, Value]) -> Iterator[KeyValue]:
    return (KeyValue(key=name, value=_value(value)) for name, value in facts.items())


def _value(value: Value) -> AnyValue:
    match value:
        case str():
            return AnyValue(string_value=_plain(value))
        case int():
            return AnyValue(int_value=value)
    return AnyValue(double_value=value)


def _plain(text: str) -> str:
    return text if len(text) <= MOST_TEXT and _PLAIN.fullmatch(text) else OTHER
