"""One trace from a client's request to the receipt, as a collector gets it."""

from collections.abc import Iterator

import pytest

from runner.words.trace import TracePlace
from tests.support import deployment as deployments
from tests.support.collector import Collected, collector
from tests.support.deployment import NO_POOL, Deployment

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
