"""Spans on their way to a collector that works, refuses, hangs or is not there."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry

from runner.base import otlp
from runner.base.otlp import MOST_WAITING, OTHER, Collector, OtlpTracer, open_otlp
from runner.base.tracing import Fact, SpanSource, TraceSpan
from runner.words.trace import TracePlace
from tests.support.collector import Collected, collector
from tests.support.deployment import eventually

TEST = SpanSource("runner-test", "one")
SENDS = """
import asyncio, sys
from prometheus_client import CollectorRegistry
import runner.api.app, runner.node.service, runner.cli.serve
from runner.base.settings import Settings
from runner.base.tracers import open_tracer

async def main():
    async with open_tracer(Settings({url}), "test", "1", CollectorRegistry()):
        for name in ("runner.base.otlp", "opentelemetry.proto", "google.protobuf"):
            print(name in sys.modules)

asyncio.run(main())
"""


@pytest.fixture
def collected() -> Iterator[Collected]:
    with collector() as found:
        yield found


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "EVERY_S", 0.01)
    monkeypatch.setattr(otlp, "LEAVE_S", 0.01)
    monkeypatch.setattr(otlp, "PAUSES_S", (0.0, 0.01))


def span(place: TracePlace | None = None, name: str = "work", **facts: str | float) -> TraceSpan:
    place = place or TracePlace.new(sampled=True)
    return TraceSpan(name, place, None, 1, 2, {Fact[each.upper()]: facts[each] for each in facts})


class Counts:
    """What a tracer has counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def of(self, outcome: str) -> float:
        """Return the spans with this outcome."""
        return self.registry.get_sample_value("runner_spans_total", {"outcome": outcome}) or 0.0


async def test_a_span_arrives_as_it_was_recorded(collected: Collected) -> None:
    counts, parent = Counts(), TracePlace.new(sampled=True)
    place = parent.child()
    async with open_otlp(Collector(collected.url), TEST, counts.registry) as tracer:
        tracer.record(
            TraceSpan("work", place, parent.span_id, 5, 9, {Fact.ATTEMPT: 3}, failed=True)
        )
        (told,) = eventually(collected.spans)
        eventually(lambda: counts.of("exported") == 1)
    assert (told.service, told.name, told.failed) == ("runner-test", "work", True)
    assert (told.trace_id, told.span_id, told.parent) == (
        place.trace_id,
        place.span_id,
        parent.span_id,
    )
    assert (told.began, told.ended, told.facts) == (5, 9, {"runner.attempt": 3})


async def test_a_proxy_that_the_environment_names_is_not_used(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the requests to an identity provider: they go to the address that the operator has set."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, address)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with httpx.AsyncClient() as untold:
        with pytest.raises(httpx.ConnectError):
            await untold.get(collected.url)
    async with open_otlp(Collector(collected.url), TEST, Counts().registry) as tracer:
        tracer.record(span())
        eventually(collected.spans)


async def test_what_is_not_of_our_form_is_not_exported(collected: Collected) -> None:
    """A second wall: stages give only what we chose."""
    async with open_otlp(Collector(collected.url), TEST, CollectorRegistry()) as tracer:
        tracer.record(span(name="canary\n", image="canary é", reason="c" * 129, state="exit_zero"))
        (told,) = eventually(collected.spans)
    assert told.name == OTHER
    assert told.facts == {
        "runner.image": OTHER, "runner.reason": OTHER, "runner.state": "exit_zero",
    }  # fmt: skip


async def test_what_is_not_sampled_is_not_exported(collected: Collected) -> None:
    async with open_otlp(Collector(collected.url), TEST, CollectorRegistry()) as tracer:
        tracer.record(span(TracePlace.new(sampled=False)))
        tracer.record(span(name="sampled"))
        (told,) = eventually(collected.spans)
    assert told.name == "sampled"


async def test_a_collector_that_hangs_costs_spans_and_no_time(collected: Collected) -> None:
    """Recording never waits: not for the collector, and not when the queue is full."""
    counts = Counts()
    collected.goes_on.clear()
    async with open_otlp(Collector(collected.url), TEST, counts.registry) as tracer:
        tracer.record(span())
        eventually(collected.asked.is_set)
        # The thread holds one request of at most `MOST_AT_ONCE`, and waits for its answer.
        for _ in range(MOST_WAITING + 10):
            tracer.record(span())
        assert counts.of("dropped") == 10
        assert counts.of("exported") == 0
        collected.goes_on.set()
        eventually(lambda: counts.of("exported") == MOST_WAITING + 1)


async def test_a_process_does_not_wait_for_a_collector_that_hangs(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: its thread still does."""
    monkeypatch.setattr(otlp, "ANSWER_S", 3600.0)
    collected.goes_on.clear()
    tracer = OtlpTracer(Collector(collected.url), TEST, CollectorRegistry())
    tracer.start()
    tracer.record(span())
    eventually(collected.asked.is_set)
    stopping = threading.Thread(target=tracer.stop)
    stopping.start()
    stopping.join(60)
    assert not stopping.is_alive()
    assert any(each.name == "spans" for each in threading.enumerate())
    collected.goes_on.set()
    eventually(lambda: all(each.name != "spans" for each in threading.enumerate()))


@pytest.mark.parametrize("status", [400, 500])
async def test_spans_that_a_collector_refuses_are_counted(
    collected: Collected, status: int
) -> None:
    counts = Counts()
    collected.answers = status
    async with open_otlp(Collector(collected.url), TEST, counts.registry) as tracer:
        tracer.record(span())
        eventually(lambda: counts.of("failed") == 1)
        collected.answers = 200
        tracer.record(span())
        eventually(lambda: counts.of("exported") == 1)
    outcomes = {
        sample.labels["outcome"]
        for metric in counts.registry.collect()
        for sample in metric.samples
    }
    assert outcomes == {"exported", "dropped", "failed"}


async def test_a_collector_that_is_not_there_costs_the_spans() -> None:
    counts = Counts()
    nowhere = Collector("http://127.0.0.1:9/v1/traces")
    async with open_otlp(nowhere, TEST, counts.registry) as tracer:
        tracer.record(span())
        eventually(lambda: counts.of("failed") == 1)


async def test_a_collector_that_is_busy_is_asked_again(
    collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a refusal is final, in the test above."""
    monkeypatch.setattr(otlp, "PAUSES_S", (0.0, 3600.0))
    counts = Counts()
    collected.answers = 503
    tracer = OtlpTracer(Collector(collected.url), TEST, counts.registry)
    tracer.start()
    tracer.record(span())
    eventually(collected.asked.is_set)
    assert counts.of("failed") == 0
    # A process that stops waits for no pause.
    tracer.stop()
    eventually(lambda: counts.of("failed") == 1)


@pytest.mark.parametrize("endless", [(b"x" * 65536, 0.0), (b"x", 0.01)], ids=["much", "slowly"])
@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_without_end_is_not_read_to_its_end(
    collected: Collected, monkeypatch: pytest.MonkeyPatch, endless: tuple[bytes, float], status: int
) -> None:
    """It would fill the memory of the process, or keep its spans for ever."""
    monkeypatch.setattr(otlp, "ANSWER_S", 0.1)
    counts = Counts()
    collected.endless, collected.answers = endless, status
    async with open_otlp(Collector(collected.url), TEST, counts.registry) as tracer:
        tracer.record(span())
        eventually(lambda: counts.of("exported" if status == 200 else "failed") == 1)
        collected.endless, collected.answers = None, 200
        tracer.record(span(name="later"))
        eventually(lambda: any(each.name == "later" for each in collected.spans()))


async def test_a_collector_sets_no_cookies(collected: Collected) -> None:
    """Each answer could add some, and they would be kept as long as the process lives."""
    async with open_otlp(Collector(collected.url), TEST, CollectorRegistry()) as tracer:
        tracer.record(span())
        eventually(collected.spans)
        tracer.record(span())
        eventually(lambda: len(collected.requests) > 1)
    assert "cookie" not in collected.headers


async def test_an_answer_that_is_packed_is_not_unpacked(collected: Collected) -> None:
    async with open_otlp(Collector(collected.url), TEST, CollectorRegistry()) as tracer:
        tracer.record(span())
        eventually(collected.spans)
    assert collected.headers["accept-encoding"] == "identity"


async def test_headers_that_the_collector_demands_are_sent_and_never_shown(
    collected: Collected,
) -> None:
    to = Collector(collected.url, {"Authorization": "Basic canary"})
    async with open_otlp(to, TEST, CollectorRegistry()) as tracer:
        tracer.record(span())
        eventually(collected.spans)
    assert collected.headers["authorization"] == "Basic canary"
    assert "canary" not in repr(to)


def test_without_a_collector_opentelemetry_is_not_loaded() -> None:
    """The control: with one, it is."""
    for url, loaded in (("", "False"), ("traces_url='http://127.0.0.1:9/v1/traces'", "True")):
        command = [sys.executable, "-c", SENDS.format(url=url)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert told.stdout.split() == [loaded] * 3, url
