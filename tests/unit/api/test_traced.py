"""Which requests are traced, and what their spans say."""

from uuid import UUID

import pytest
import structlog
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from runner.api.context import TRACE
from runner.api.edge.routing import TEMPLATE
from runner.api.edge.traced import TraceChoice, Traced
from runner.api.middleware import BEGAN, PRINCIPAL
from runner.base.tracing import Fact, NoTracer, SpanTracer, TraceSpan
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from runner.words.trace import TracePlace

pytestmark = pytest.mark.anyio
TENANT, OTHER = new_id(), new_id()
SAMPLED = TracePlace.new(sampled=True)


class Spans(list[TraceSpan]):
    """A tracer that keeps what it gets."""

    exports = True

    def record(self, span: TraceSpan) -> None:
        """Keep a span."""
        self.append(span)


def choice(*, ratio: float = 1.0, per_minute: int = 2, now: float = 0.0) -> TraceChoice:
    return TraceChoice(
        ratio=ratio, per_minute=per_minute, registry=CollectorRegistry(), clock=lambda: now
    )


def principal(tenant: UUID) -> Principal:
    return Principal(tenant, new_id(), PrincipalKind.KEY, "agent", Role.OWNER)


async def served(
    tracer: SpanTracer,
    *traceparents: str,
    status: int = 200,
    known: bool = True,
    chosen: TraceChoice | None = None,
) -> tuple[Scope, dict[str, object]]:
    """Serve a request; return its scope, and what was added to its log lines."""
    logged: dict[str, object] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        logged.update(structlog.contextvars.get_contextvars())
        if not status:
            raise OSError
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def receive() -> Message:
        raise AssertionError

    async def send(_: Message) -> None:
        return

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "headers": [(b"traceparent", each.encode()) for each in traceparents],
        BEGAN: 1,
        TEMPLATE: "/v1/files/{key}",
        "path": "/v1/files/canary",
    }
    if known:
        scope[PRINCIPAL] = principal(TENANT)
    await Traced(app, tracer, chosen or choice())(scope, receive, send)
    return scope, logged


async def test_a_request_continues_its_clients_trace() -> None:
    spans = Spans()
    scope, logged = await served(spans, SAMPLED.text)
    (span,) = spans
    assert (span.place.trace_id, span.parent) == (SAMPLED.trace_id, SAMPLED.span_id)
    assert scope[TRACE] == span.place
    assert logged == {"trace_id": SAMPLED.trace_id}
    assert span.name == "GET /v1/files/{key}"
    assert span.facts[Fact.TENANT] == str(TENANT)
    assert span.facts[Fact.STATUS] == 200
    assert not span.failed
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_request_without_a_trace_begins_one() -> None:
    spans = Spans()
    await served(spans)
    (span,) = spans
    assert span.parent is None


async def test_the_ratio_decides_only_for_clients_that_do_not() -> None:
    spans = Spans()
    await served(spans, chosen=choice(ratio=0.0))
    assert spans == []
    await served(spans, SAMPLED.text, chosen=choice(ratio=0.0))
    assert len(spans) == 1


async def test_a_client_that_wants_no_spans_gets_none_but_its_id_in_the_logs() -> None:
    spans, here = Spans(), SAMPLED.decided(sampled=False)
    scope, logged = await served(spans, here.text)
    assert spans == []
    assert logged == {"trace_id": here.trace_id}
    assert scope[TRACE].trace_id == here.trace_id
    assert not scope[TRACE].sampled


async def test_without_a_collector_nothing_is_sampled() -> None:
    scope, logged = await served(NoTracer(), SAMPLED.text)
    assert scope[TRACE] == SAMPLED.decided(sampled=False)
    assert logged == {"trace_id": SAMPLED.trace_id}
    scope, logged = await served(NoTracer())
    assert (scope[TRACE], logged) == (None, {})


@pytest.mark.parametrize("said", [("nonsense",), (SAMPLED.text, SAMPLED.text)])
async def test_a_client_that_does_not_say_where_it_is_begins_a_trace(said: tuple[str, ...]) -> None:
    spans = Spans()
    await served(spans, *said)
    assert spans[0].place.trace_id != SAMPLED.trace_id


async def test_strangers_have_no_traces() -> None:
    spans = Spans()
    scope, logged = await served(spans, SAMPLED.text, known=False)
    assert (spans, logged, TRACE in scope) == ([], {}, False)


@pytest.mark.parametrize("status", [500, 503])
async def test_an_answer_that_is_our_fault_is_a_failure(status: int) -> None:
    spans = Spans()
    await served(spans, status=status)
    assert spans[0].failed
    assert spans[0].facts[Fact.ERROR] == str(status)


async def test_a_request_without_an_answer_is_a_failure() -> None:
    spans = Spans()
    with pytest.raises(OSError):  # noqa: PT011 - the one that the application raises
        await served(spans, status=0)
    assert spans[0].failed
    assert spans[0].facts[Fact.STATUS] is None


async def test_a_tenant_has_a_share_of_the_collector_and_no_more() -> None:
    """Whatever its clients ask for; other tenants have theirs, and it has it anew each minute."""
    now, registry = 0.0, CollectorRegistry()
    shares = TraceChoice(ratio=1.0, per_minute=2, registry=registry, clock=lambda: now)

    def sampled(tenant: UUID, offered: TracePlace | None) -> bool:
        return shares.place(tenant, offered).sampled

    assert [sampled(TENANT, SAMPLED) for _ in range(3)] == [True, True, False]
    assert not sampled(TENANT, None)
    assert sampled(OTHER, SAMPLED)
    assert registry.get_sample_value("runner_traces_refused_total") == 2
    now = 60.0
    assert sampled(TENANT, None)
