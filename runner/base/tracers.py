"""Which tracer a process has: one that exports if the operator named a collector."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from runner.base.forms import headers
from runner.base.settings import Settings
from runner.base.tracing import NoTracer, SpanSource, SpanTracer


@asynccontextmanager
async def open_tracer(
    settings: Settings, service: str, instance: str, registry: CollectorRegistry
) -> AsyncIterator[SpanTracer]:
    """Yield the tracer of this process; `service` and `instance` name the process in spans."""
    if settings.traces_url is None:
        yield NoTracer()
        return
    # Import it here: without a collector, no process needs the time and memory that it takes.
    from runner.base.otlp import Collector, open_otlp  # noqa: PLC0415

    sent = headers(settings.traces_headers) if settings.traces_headers else {}
    collector = Collector(settings.traces_url, sent)
    async with open_otlp(collector, SpanSource(service, instance), registry) as tracer:
        yield tracer
