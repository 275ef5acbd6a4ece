"""One trace from a client's request to the receipt, as a collector gets it."""

import json
from collections.abc import Iterator

import pytest

from runner.base.tracing import Fact
from runner.words.trace import TracePlace
from tests.support import deployment as deployments
from tests.support.collector import Collected, collector
from tests.support.deployment import NO_POOL, Deployment

CANARY = "canary5f1e"
STAGES = ("queue", "claim", "sandbox", "prepare", "collect", "receipt")


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    with collector() as found:
        yield found


@pytest.fixture(scope="module")
def traced(image: None, collected: Collected) -> Iterator[Deployment]:
    """Return a deployment that sends its spans to the collector."""
    with deployments.deployment(traces_url=collected.url, **NO_POOL) as made:
        yield made


def test_an_execution_is_one_trace_from_the_client_to_the_receipt(
    traced: Deployment, collected: Collected
) -> None:
    client, here = traced.http("whole"), TracePlace.new(sampled=True)
    answer = client.post(
        "/v1/executions",
        json={"code": "print(6 * 7)", "language": "python", "wait_s": 30},
        headers={"traceparent": here.text},
    )
    execution = answer.raise_for_status().json()
    assert execution["state"] == "succeeded"
    spans = collected.await_spans(
        here.trace_id, "POST /v1/executions", "execution", "execute_tool python", *STAGES
    )
    submit, whole = spans["POST /v1/executions"], spans["execution"]
    assert (submit.service, submit.parent) == ("runner-api", here.span_id)
    assert (whole.service, whole.parent) == ("runner-worker", submit.span_id)
    assert submit.facts["http.response.status_code"] == 200
    assert whole.facts["runner.execution"] == execution["id"]
    assert (whole.facts["runner.state"], whole.facts["runner.attempt"]) == ("succeeded", 1)
    run = spans["execute_tool python"]
    assert run.facts["gen_ai.operation.name"] == "execute_tool"
    assert run.facts["gen_ai.tool.name"] == "python"
    assert run.facts["runner.exit_code"] == 0
    for stage in (*STAGES, run.name):
        assert spans[stage].parent == whole.span_id, stage
        assert whole.began <= spans[stage].began <= spans[stage].ended <= whole.ended, stage
    assert len(collected.spans(here.trace_id)) == len(spans) == len(STAGES) + 3


def test_a_command_in_a_sandbox_is_in_the_trace_of_the_request_that_starts_it(
    traced: Deployment, collected: Collected
) -> None:
    client, here = traced.http("lives"), TracePlace.new(sampled=True)
    sandbox = client.post("/v1/sandboxes", json={}).raise_for_status().json()["id"]
    answer = client.post(
        f"/v1/sandboxes/{sandbox}/processes",
        json={"command": ["sh", "-c", "exit 3"], "wait_s": 30},
        headers={"traceparent": here.text},
    )
    assert answer.raise_for_status().json()["exit_code"] == 3
    route = "POST /v1/sandboxes/{sandbox_id}/processes"
    spans = collected.await_spans(here.trace_id, route, "door start", "execute_tool command")
    assert spans[route].parent == here.span_id
    assert spans["door start"].parent == spans[route].span_id
    run = spans["execute_tool command"]
    assert run.parent == spans["door start"].span_id
    assert (run.facts["runner.exit_code"], run.failed) == (3, True)
    assert run.facts["runner.sandbox"] == sandbox


def test_nothing_of_a_tenant_is_in_any_span(traced: Deployment, collected: Collected) -> None:
    """Whatever it sends, and whatever its programs do. The control: the same words are stored."""
    client = traced.http("secretive")
    client.headers.update({"User-Agent": CANARY, "X-Request-Id": f"{CANARY}-1"})
    traces = [TracePlace.new(sampled=True) for _ in range(5)]
    headers = [{"traceparent": each.text, "tracestate": f"{CANARY}=1"} for each in traces]
    code = f"import sys, urllib.request\nprint(sys.argv, '{CANARY}')\nopen('{CANARY}', 'w')\n"
    address = f"https://{CANARY}.example.test/{CANARY}"
    fetch = f"try: urllib.request.urlopen('{address}')\nexcept OSError: pass"
    execution = client.post(
        "/v1/executions",
        json={
            "code": code + fetch,
            "language": "python",
            "stdin": CANARY,
            "files": {f"{CANARY}.txt": CANARY},
            "env": {CANARY.upper(): CANARY},
            "egress": [f"{CANARY}.example.test"],
            "metadata": {CANARY: CANARY},
            "wait_s": 60,
        },
        headers=headers[0],
    ).raise_for_status()
    assert CANARY in execution.text
    sandbox = client.post("/v1/sandboxes", json={"metadata": {CANARY: CANARY}}).json()["id"]
    client.post(
        f"/v1/sandboxes/{sandbox}/processes",
        json={"command": ["echo", CANARY], "env": {CANARY: CANARY}, "tag": CANARY, "wait_s": 30},
        headers=headers[1],
    ).raise_for_status()
    client.put(
        f"/v1/sandboxes/{sandbox}/files/content",
        params={"path": CANARY}, content=CANARY, headers=headers[2],
    ).raise_for_status()  # fmt: skip
    client.put(f"/v1/files/{CANARY}", content=CANARY, headers=headers[3]).raise_for_status()
    contexts = f"/v1/sandboxes/{sandbox}/contexts"
    made = client.post(contexts, json={"language": "python"}).raise_for_status()
    client.post(
        f"{made.headers['location']}/run",
        json={"code": f"'{CANARY}'"}, headers=headers[4],
    ).raise_for_status()  # fmt: skip
    names = (
        "receipt",
        "execute_tool command",
        "door write",
        "PUT /v1/files/{path:path}",
        "door run_code",
    )
    for place, name in zip(traces, names, strict=True):
        collected.await_spans(place.trace_id, name)
    spans = collected.spans(traces[0].trace_id)
    assert [each.facts["runner.egress.outcome"] for each in spans if each.name == "egress"] == [
        "denied"
    ]
    assert {key for each in collected.spans() for key in each.facts} <= set(Fact)
    assert execution.json()["id"].encode() in collected.text()
    assert CANARY.encode() not in collected.text().lower()


def test_a_collector_that_hangs_holds_up_no_execution(
    traced: Deployment, collected: Collected
) -> None:
    client, here = traced.http("held-up"), TracePlace.new(sampled=True)
    collected.goes_on.clear()
    try:
        for _ in range(3):
            answer = client.post(
                "/v1/executions",
                json={"command": ["true"], "wait_s": 30},
                headers={"traceparent": here.text},
            )
            assert answer.json()["state"] == "succeeded"
    finally:
        collected.goes_on.set()
    collected.await_spans(here.trace_id, "receipt")


def test_logs_have_the_traces_id(traced: Deployment) -> None:
    client, here = traced.http("logged"), TracePlace.new(sampled=False)
    client.get("/v1/executions", headers={"traceparent": here.text}).raise_for_status()
    lines = (traced.stack.settings.state_dir / "log" / "api.log").read_text().splitlines()
    ours = [json.loads(line) for line in lines if here.trace_id in line]
    assert [(line["event"], line["trace_id"]) for line in ours] == [("request", here.trace_id)]
