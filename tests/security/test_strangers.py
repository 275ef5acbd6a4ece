"""Requests of strangers fill neither memory, nor `/metrics`, nor the log."""

import ast
import json
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

import runner
from runner.api import middleware
from runner.api.e2b.routes import routers as e2b_routers
from runner.api.edge.routing import TEMPLATE
from runner.api.gauges import SINKS
from runner.api.middleware import METHODS, OTHER, Metrics
from runner.words.lives import LIVING
from tests.support import wire
from tests.support.deployment import Deployment, eventually
from tests.support.routes import fetch

INVENTED = 100
LONG = 28_000
LABELS = {"route", "method", "status", "state", "sink"}
"""Every label that a metric of the API may have; tests below check the values of each."""
ROOT = Path(runner.__file__).parent
MEASURES = "node/measures.py"
OF_WORKERS = {"stage", "state", "reason", "source", "outcome", "call"}
"""Those of a worker's metrics, whose values tests/unit/node/test_measures.py checks."""
EXPORT = "base/otlp.py"
OF_SPANS = {"outcome"}
"""Those of exported spans, whose values tests/unit/test_otlp.py checks."""


def heads(n: int) -> Iterator[bytes]:
    """Yield requests with one long part each, and never the same twice."""
    long = f"{n:05}" + "x" * LONG
    short = f"{n:05}" + "X" * 20
    yield wire.head(long.upper(), "/healthz")
    yield wire.head(short, "/healthz")
    yield wire.head(short, "/v1/executions")
    yield wire.head("GET", f"/{long[:8000]}")
    yield wire.head("GET", f"/v1/executions/{long[:8000]}/events")
    yield wire.head("GET", f"/none?{long[:8000]}")
    yield f"GET /none HTTP/1.1\r\nHost: {long}\r\n\r\n".encode()
    for name in (
        "User-Agent",
        "X-Request-Id",
        "X-Forwarded-For",
        "Idempotency-Key",
        "Authorization",
        "Cookie",
        "Origin",
        "Referer",
        long[:8000],
    ):
        yield wire.head("GET", "/v1/executions", **{name: long[: LONG - 8000]})


def series(url: str) -> dict[str, set[str]]:
    """Return every value of every label in `/metrics`."""
    found: dict[str, set[str]] = {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if not line.startswith("#") and "{" in line:
            for pair in line.partition("{")[2].rpartition("}")[0].split('",'):
                name, _, value = pair.partition('="')
                found.setdefault(name, set()).add(value.rstrip('"'))
    return found


def log_of(made: Deployment) -> Path:
    """Return the file of the API's log."""
    return made.stack.settings.state_dir / "log" / "api.log"


def test_what_strangers_invent_is_no_label_and_no_long_line(shared: Deployment) -> None:
    """With hundreds of methods, paths and headers of 28 KB, labels stay few and lines short."""
    api = psutil.Process(shared.stack.api.pid)
    series(shared.url)
    for head in heads(0):
        wire.exchange(shared.url, head)
    before, memory = series(shared.url), api.memory_info().rss
    logged = log_of(shared).stat().st_size
    sent = 0
    for n in range(1, INVENTED):
        for head in heads(n):
            status, _, _ = wire.exchange(shared.url, head)
            assert 200 <= status < 500 or status == HTTPStatus.NOT_IMPLEMENTED, head[:80]
            sent += 1
    assert series(shared.url) == before
    assert (log_of(shared).stat().st_size - logged) / sent < 1024
    assert api.memory_info().rss - memory < 16 * 2**20


def test_labels_are_from_fixed_sets(shared: Deployment) -> None:
    """They are known methods, routes and statuses, whatever was requested before."""
    for head in heads(0):
        wire.exchange(shared.url, head)
    httpx.get(f"{shared.url}/volumes/x", timeout=60)
    found = series(shared.url)
    found.pop("le")
    # What the API's own document leaves out; tests before this one may have asked for any of it.
    beside = {
        "none", "/mcp", "/run_code", "/openapi.json", "/docs", "/docs/reference.css",
        "/console", "/console/{name}",
        "/v1/sandboxes/{sandbox_id}/ports/{port}/{path}",
    }  # fmt: skip
    theirs = {_plain(getattr(each, "path", "")) for of in e2b_routers() for each in of.routes}
    templates = {each.path for each in fetch(shared.url)} | beside | theirs
    assert found.keys() <= LABELS
    assert found["method"] <= METHODS | {OTHER}
    assert {_plain(route) for route in found["route"]} <= templates
    assert {int(status) for status in found["status"]} <= set(HTTPStatus)
    assert found["state"] == {"queued", "starting", "running"} | LIVING
    assert found["sink"] == set(SINKS)


def _plain(template: str) -> str:
    return template.replace(":path}", "}")


def test_every_metric_has_known_labels() -> None:
    """This reads the source: nothing would test the values of a label that is not in the table."""
    unknown = []
    elsewhere = {MEASURES: OF_WORKERS, EXPORT: OF_SPANS}
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        if "prometheus_client" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
                "Counter", "Gauge", "Histogram", "Summary", "Info", "Enum",
            }:  # fmt: skip
                given = [
                    *node.args[2:3],
                    *(k.value for k in node.keywords if k.arg == "labelnames"),
                ]
                names = {each for value in given for each in ast.literal_eval(value)}
                known = elsewhere.get(str(path.relative_to(ROOT)), LABELS)
                unknown += [f"{path}:{node.lineno}: {name}" for name in names - known]
    assert unknown == []


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "as they come"])
async def test_without_a_fixed_set_methods_become_labels(
    fixed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown able to fail: the same methods, with a set that has all of them."""

    class Everything(frozenset[str]):
        def __contains__(self, _: object) -> bool:
            return True

    if not fixed:
        monkeypatch.setattr(middleware, "METHODS", Everything())
    registry = CollectorRegistry()

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    metrics = Metrics(answer, registry)

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(_: object) -> None:
        pass

    for n in range(INVENTED):
        scope = {"type": "http", "method": f"M{n}", TEMPLATE: "/", "runner.request_id": "id"}
        await metrics(scope, receive, send)
    samples = [each for each in registry.collect() if each.name == "runner_http_requests"]
    methods = {sample.labels["method"] for each in samples for sample in each.samples}
    assert len(methods) == (1 if fixed else INVENTED)


def test_a_request_that_is_refused_is_logged_by_its_template(shared: Deployment) -> None:
    """The line names the request's route, and nothing that the client made up."""
    wire.exchange(shared.url, wire.head("GET", "/v1/executions/made-up-by-a-stranger/events"))

    def lines() -> list[dict[str, object]]:
        return [
            json.loads(line)
            for line in log_of(shared).read_text().splitlines()
            if '"route": "/v1/executions/{execution_id}/events"' in line and '"status": 401' in line
        ]

    assert eventually(lines)
    assert "made-up" not in log_of(shared).read_text()
