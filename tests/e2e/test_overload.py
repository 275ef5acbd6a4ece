"""More than the deployment takes is refused at once, and nothing accepted is lost."""

import asyncio
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from agent_runner import Client, Execution
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually

pytestmark = pytest.mark.timeout(600)

MOST, SLOTS = 20, 2


@pytest.fixture(scope="module")
def small(image: None) -> Iterator[Deployment]:
    """Return a deployment that lets few wait, and runs two at once."""
    with deployments.deployment(max_queued=MOST, slots=SLOTS, pool=2, pool_max=2) as made:
        yield made


def is_running(client: Client, execution: Execution) -> bool:
    """Return whether an execution has begun."""
    return client.get(execution.id).state == "running"


async def offer(url: str, key: str, count: int) -> list[httpx.Response]:
    """Submit this many executions at once."""
    headers = {"Authorization": f"Bearer {key}"}
    body = {"command": ["sleep", "0.2"]}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        return await asyncio.gather(
            *(client.post("/v1/executions", json=body) for _ in range(count))
        )


def test_what_is_beyond_is_refused_and_the_rest_runs(small: Deployment) -> None:
    """Far more than there is room for: 503 with the time to wait, and each accepted one ends."""
    loud, quiet = small.client("overload-loud"), small.client("overload-quiet")
    # Nothing that waits can begin before all is offered, however slowly this host offers it.
    holding = [
        loud.submit(command=["sleep", "300"], limits={"timeout_s": 300}) for _ in range(SLOTS)
    ]
    for held in holding:
        eventually(partial(is_running, loud, held))
    answers = []
    for _ in range(4):
        answers += asyncio.run(offer(small.url, small.key("overload-loud"), MOST))
    refused = [each for each in answers if each.status_code == 503]
    accepted = [each for each in answers if each.status_code == 202]
    assert len(refused) + len(accepted) == len(answers)
    assert refused
    assert len(accepted) >= MOST
    for each in refused:
        assert each.headers["content-type"] == "application/problem+json"
        assert each.json()["type"] == "urn:runner:problem:overloaded"
        assert 1 <= int(each.headers["retry-after"]) <= 60
    # A tenant with nothing waiting is accepted, however full another tenant has made the queue.
    alone = asyncio.run(offer(small.url, small.key("overload-quiet"), 1))
    assert [each.status_code for each in alone] == [202]
    for held in holding:
        loud.cancel(held.id)
    for client, answer in [*((loud, each) for each in accepted), (quiet, alone[0])]:
        assert client.wait(client.get(answer.json()["id"])).state == "succeeded"
    stored = small.sql("SELECT count(*) AS n FROM executions")[0]["n"]
    assert stored == len(holding) + len(accepted) + len(alone)
