"""The trace of each request of a tenant: continued from its client, or begun here.

A client sends its place in a trace as `traceparent` (W3C Trace Context). We keep the trace's id for
the logs, and for the work that the request causes. Whether spans are exported is for the client to
ask, and for us to decide: clients must not flood the collector. `tracestate` is not passed on.

Strangers have no traces. This runs behind `Authentication`.
"""

import time
from collections import Counter
from collections.abc import Callable
from uuid import UUID

import prometheus_client
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.context import TRACE
from runner.api.edge.routing import TEMPLATE
from runner.api.middleware import BEGAN, METHODS, OTHER, PRINCIPAL
from runner.base import telemetry
from runner.base.tracing import Fact, SpanKind, SpanTracer, TraceSpan
from runner.words.principal import Principal
from runner.words.trace import TracePlace

HEADER = b"traceparent"
MINUTE_S = 60.0
FAILED = 500
"""The first status of answers that are our fault (RFC 9110 15.6)."""


class TraceChoice:
    """Decides whether the spans of a request are exported, within each tenant's share."""

    def __init__(
        self,
        *,
        ratio: float,
        per_minute: int,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._below = ratio * 2**64
        self._per_minute = per_minute
        self._clock = clock
        self._used: Counter[UUID] = Counter()
        self._until = 0.0
        self._refused = prometheus_client.Counter(
            "runner_traces_refused_total",
            "Requests that were not traced because their tenant had used up its share.",
            registry=registry,
        )

    def place(self, tenant: UUID, offered: TracePlace | None) -> TracePlace:
        """Return the place of the request's own span; `offered` is that of its client's."""
        if offered is None:
            place = TracePlace.new(sampled=False)
            # As OpenTelemetry's TraceIdRatioBased: all who use it decide alike for one trace.
            wanted = int(place.trace_id[16:], 16) < self._below
        else:
            place, wanted = offered.child(), offered.sampled
        return place.decided(sampled=wanted and self._take(tenant))

    def _take(self, tenant: UUID) -> bool:
        if (now := self._clock()) >= self._until:
            self._used.clear()
            self._until = now + MINUTE_S
        if self._used[tenant] >= self._per_minute:
            self._refused.inc()
            return False
        self._used[tenant] += 1
        return True


class Traced:
    """Notes the request's place in a trace, and makes a span of the request."""

    def __init__(self, app: ASGIApp, tracer: SpanTracer, choice: TraceChoice) -> None:
        self._app = app
        self._tracer = tracer
        self._choice = choice

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        principal = scope.get(PRINCIPAL)
        if not isinstance(principal, Principal):
            await self._app(scope, receive, send)
            return
        offered = _offered(scope)
        if not self._tracer.exports:
            place = offered and offered.decided(sampled=False)
        else:
            place = self._choice.place(principal.tenant_id, offered)
        scope[TRACE] = place
        with telemetry.traced(place):
            if place is None or not place.sampled:
                await self._app(scope, receive, send)
            else:
                await self._span(scope, receive, send, principal, place, offered)

    async def _span(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        principal: Principal,
        place: TracePlace,
        offered: TracePlace | None,
    ) -> None:
        status: int | None = None

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            method = scope["method"] if scope["method"] in METHODS else OTHER
            route = scope.get(TEMPLATE) or "none"
            failed = status is None or status >= FAILED
            self._tracer.record(
                TraceSpan(
                    f"{method} {route}",
                    place,
                    offered.span_id if offered else None,
                    scope[BEGAN],
                    time.time_ns(),
                    {
                        Fact.METHOD: method,
                        Fact.ROUTE: route,
                        Fact.STATUS: status,
                        Fact.ERROR: str(status) if failed and status else None,
                        Fact.TENANT: str(principal.tenant_id),
                    },
                    SpanKind.SERVER,
                    failed=failed,
                )
            )


def _offered(scope: Scope) -> TracePlace | None:
    """Return where the client says it is; None if it does not, or says it twice (3.2)."""
    said = [value for name, value in scope["headers"] if name == HEADER]
    return TracePlace.read(said[0].decode("latin-1")) if len(said) == 1 else None
