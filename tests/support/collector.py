"""A collector of spans: OTLP over HTTP, parsed with OpenTelemetry's own messages."""

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.deployment import eventually

PATH = "/v1/traces"
Value = str | int | float | bool


@dataclass(frozen=True)
class Told:
    """A span that arrived."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    kind: int
    began: int
    ended: int
    failed: bool
    facts: dict[str, Value]


@dataclass
class Collected:
    """What a collector has received, and how it behaves."""

    url: str
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    answers: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    """Those of the last request, by their names in lower case."""
    goes_on: threading.Event = field(default_factory=threading.Event)
    """While it is not set, requests are taken, and never answered."""
    endless: tuple[bytes, float] | None = None
    """A piece that it repeats without end as its answer, and the seconds between two."""
    asked: threading.Event = field(default_factory=threading.Event)
    """Set once a request has come."""

    def spans(self, trace_id: str | None = None) -> list[Told]:
        """Return the spans of one trace, or of all, by the time at which they began."""
        told = [
            _told(resource, span)
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        wanted = [each for each in told if trace_id in {None, each.trace_id}]
        return sorted(wanted, key=lambda each: each.began)

    def await_spans(self, trace_id: str, *names: str) -> dict[str, Told]:
        """Return the spans of a trace by their names, once all of these have come."""

        def found() -> dict[str, Told] | None:
            by_name = {each.name: each for each in self.spans(trace_id)}
            return by_name if by_name.keys() >= set(names) else None

        spans: dict[str, Told] = eventually(found)
        return spans

    def text(self) -> bytes:
        """Return all that was ever sent, to look for what must not be in it."""
        return b"".join(each.SerializeToString() for each in self.requests)


def _told(resource: Any, span: Any) -> Told:
    facts = {each.key: _value(each.value) for each in span.attributes}
    return Told(
        next(_value(each.value) for each in resource.resource.attributes
             if each.key == "service.name"),
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == 2,
        facts,
    )  # fmt: skip


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


@contextmanager
def collector() -> Iterator[Collected]:
    """Receive spans inside the context."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            collected.headers = {name.lower(): value for name, value in self.headers.items()}
            collected.asked.set()
            collected.goes_on.wait()
            if collected.answers == 200 and self.path == PATH:
                collected.requests.append(
                    ExportTraceServiceRequest.FromString(gzip.decompress(body))
                )
            if collected.endless is not None:
                self.repeat(*collected.endless)
                return
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(collected.answers)
            self.send_header("Content-Length", str(len(answer)))
            self.send_header("Set-Cookie", f"number{len(collected.requests)}=value")
            self.end_headers()
            self.wfile.write(answer)

        def repeat(self, piece: bytes, every_s: float) -> None:
            """Answer until the client hangs up."""
            self.close_connection = True
            self.send_response(collected.answers)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(piece)
                    time.sleep(every_s)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        collected = Collected(f"http://127.0.0.1:{server.server_port}{PATH}")
        collected.goes_on.set()
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collected
        finally:
            collected.goes_on.set()
            server.shutdown()
            thread.join()
