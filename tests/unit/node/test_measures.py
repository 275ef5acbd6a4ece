"""A worker's metrics for Prometheus: how they are counted, and who may read them."""

import asyncio
import socket
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from runner.base.exposition import HOST, MAX_HEAD, MOST_AT_ONCE, exposed
from runner.node.measures import MOST_REASONS, ExecutionStage, Measures
from runner.words.errors import NodeAway, NotFound, SetupError
from runner.words.states import Reason, State


def series(text: bytes) -> int:
    """Return how many series a text in Prometheus's format has."""
    return sum(not line.startswith(b"#") for line in text.splitlines())


def one_life(measures: Measures) -> None:
    """Count what one execution and one sandbox do, with what only they have."""
    for stage in ExecutionStage:
        measures.spent(stage, 0.1)
    for state, reason in ((State.SUCCEEDED, Reason.COMPLETED), (State.FAILED, Reason.EXIT_NONZERO)):
        measures.ended(state, reason)
    measures.used("stock")
    measures.decided("denied", "no_rule")
    for error in (None, NotFound("no such process"), NodeAway("it has just started")):
        with pytest.raises(type(error)) if error else measures.answering("start"):
            if error:
                with measures.answering("start"):
                    raise error


def test_a_thousand_sandboxes_add_no_series() -> None:
    """The control: with a label of the sandbox, each would add one."""
    measures = Measures()
    one_life(measures)
    before = series(measures.text())
    for _ in range(1000):
        one_life(measures)
    assert series(measures.text()) == before
    registry = CollectorRegistry()
    by_sandbox = Counter("x", "x", ("sandbox",), registry=registry)
    for _ in range(1000):
        by_sandbox.labels(str(uuid4())).inc()
    assert series(generate_latest(registry)) >= 1000


def test_reasons_of_the_proxy_stop_adding_series() -> None:
    """It reads what strangers send, so its words are not trusted to be few or short."""
    measures = Measures()
    for number in range(1000):
        measures.decided("denied", f"reason_{'x' * (number % 40)}{chr(97 + number % 26)}")
        measures.decided(f"outcome {number}", "A secret\n" * 100)
    text = measures.text().decode()
    found = [each for each in text.splitlines() if each.startswith("runner_egress_decisions_total")]
    assert len(found) <= MOST_REASONS + 1
    assert "secret" not in text


def test_calls_are_counted_by_how_they_ended() -> None:
    measures = Measures()
    one_life(measures)
    text = measures.text().decode()
    for outcome in ("done", "refused", "not_ready"):
        assert f'runner_door_calls_total{{call="start",outcome="{outcome}"}} 1.0' in text


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    with socket.create_server((HOST, 0)) as found:
        number: int = found.getsockname()[1]
        return number


@pytest.fixture
async def url(port: int) -> AsyncIterator[str]:
    """Return where metrics are."""
    async with exposed(port, lambda: b"runner_x 1\n"):
        yield f"http://{HOST}:{port}"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/metrics", 200), ("POST", "/metrics", 404), ("GET", "/", 404),
        ("GET", "/metrics/../etc/passwd", 404), ("GET", "/metrics?x=1", 404),
    ],
)  # fmt: skip
async def test_only_metrics_are_there(url: str, method: str, path: str, status: int) -> None:
    async with httpx.AsyncClient(base_url=url) as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert ("runner_x" in answer.text) == (status == 200)


async def test_it_listens_on_this_host_alone(port: int) -> None:
    async with exposed(port, bytes):
        for address in ("127.0.0.2", "::1"):
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection(address, port)
        _, writer = await asyncio.open_connection(HOST, port)
        writer.close()


async def test_without_a_port_nothing_listens() -> None:
    async with exposed(None, bytes):
        pass


async def test_a_port_that_is_taken_says_which_setting_to_change(port: int) -> None:
    with socket.create_server((HOST, port)), pytest.raises(SetupError, match="METRICS_PORT"):
        async with exposed(port, bytes):
            pass


async def test_silent_and_endless_clients_take_no_place_for_good(url: str, port: int) -> None:
    """With all places taken the next one is hung up on; once they are gone, it is answered."""
    silent = [await asyncio.open_connection(HOST, port) for _ in range(MOST_AT_ONCE)]
    reader, writer = await asyncio.open_connection(HOST, port)
    assert await reader.read() == b""
    writer.close()
    endless_reader, endless = silent[0]
    endless.write(b"GET /metrics HTTP/1.1\r\nx: " + b"x" * 2 * MAX_HEAD)
    assert await endless_reader.read() == b""
    for _, each in silent:
        each.close()
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            try:
                assert (await client.get("/metrics")).status_code == 200
                break
            except httpx.TransportError:
                await asyncio.sleep(0.01)
