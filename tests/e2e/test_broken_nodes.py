"""A node whose Docker is dead beside a whole one: that one does all the work, and nothing is lost.

The node whose Docker dies is a worker in this process, so that a control can take its breaker away.
It reaches Docker over a network that is cut: the daemon is also that of the whole node.
"""

import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from runner.base import health
from runner.base.settings import Settings
from runner.node.breaker import STARTING, Breaker
from runner.node.service import worker
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually, state_folder
from tests.support.networks import Network
from tests.support.nodes import prepared

pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
SLOTS = 2
MANY = 6 * SLOTS


@dataclass(frozen=True)
class Beside:
    """A deployment of two nodes, and the way from the second one to Docker."""

    made: Deployment
    client: httpx.Client
    operator: httpx.Client
    second: Settings
    docker: Network

    @property
    def first(self) -> str:
        """The name of the node that stays whole."""
        return self.made.stack.settings.node_id

    def submit(self, count: int = MANY) -> list[str]:
        """Submit programs that take a moment."""
        body = {"command": ["sleep", "0.5"], "size": "nano"}
        answers = [self.client.post("/v1/executions", json=body) for _ in range(count)]
        return [answer.json()["id"] for answer in answers]

    def ended(self, ids: list[str]) -> list[dict[str, Any]]:
        """Wait until all have ended; return their rows."""
        found = (
            "SELECT state, node, attempt, given_back FROM executions "
            "WHERE execution_id = ANY (%s::uuid[])"
        )
        waiting = f"{found} AND ended_at IS NULL"
        eventually(lambda: not self.made.sql(waiting, ids))
        return self.made.sql(found, ids)

    def fault(self) -> str | None:
        """Return why the second node cannot start sandboxes, as it says itself."""
        return health.problems(self.second.run_dir).get(STARTING)

    def told(self) -> str | None:
        """Return the same as the operator is told."""
        listed = self.operator.get("/operator/v1/nodes").json()["items"]
        (found,) = (each for each in listed if each["node"] == self.second.node_id)
        fault: str | None = found["fault"]
        return fault

    def lose_docker(self) -> list[dict[str, Any]]:
        """Let the second node's Docker be dead; return the rows of what was there until it knew."""
        self.made.portal.call(self.docker.cut)
        submitted: list[str] = []

        def noticed() -> bool:
            submitted.extend(self.submit(SLOTS))
            return self.fault() is not None

        eventually(noticed)
        return self.ended(submitted)


@pytest.fixture
def beside(image: None) -> Iterator[Beside]:
    """Return two nodes, both of which work."""
    with (
        capture_logs(),
        deployments.deployment(slots=SLOTS, **NO_POOL) as made,
        state_folder() as folder,
    ):
        docker, here = Network(), folder / "docker"
        real = Path(made.stack.settings.docker_url.removeprefix("unix://"))
        node = prepared(made, folder, "second", docker_url=f"unix://{here}")
        services = made.stack.services
        way = made.portal.wrap_async_context_manager(docker.to(real, here))
        working = worker(
            node.settings,
            database_url=SecretStr(services.worker_url),
            redis_url=SecretStr(services.redis_url),
        )
        with way, made.portal.wrap_async_context_manager(working):
            both = Beside(made, made.http("beside"), made.operator(), node.settings, docker)
            yield both
            made.portal.call(docker.restore)
            eventually(lambda: both.fault() is None)
            eventually(lambda: node.containers() == [])
    # docker-py does not close a socket whose connection was refused.
    gc.collect()


def test_a_node_whose_docker_is_dead_leaves_all_work_to_the_other(beside: Beside) -> None:
    """It claims nothing, says why, and takes its share again once Docker is back."""
    both = {beside.first, beside.second.node_id}
    assert {row["node"] for row in beside.ended(beside.submit())} == both
    assert {row["state"] for row in beside.lose_docker()} == {"succeeded"}
    assert "Docker does not answer" in (beside.fault() or "")
    eventually(lambda: "Docker does not answer" in (beside.told() or ""))
    rows = beside.ended(beside.submit())
    assert {row["node"] for row in rows} == {beside.first}
    assert Counter((row["state"], row["attempt"], row["given_back"]) for row in rows) == {
        ("succeeded", 1, 0): MANY
    }
    beside.made.portal.call(beside.docker.restore)
    eventually(lambda: beside.fault() is None)
    assert {row["node"] for row in beside.ended(beside.submit())} == both
    eventually(lambda: beside.told() is None)


def test_without_the_breaker_it_takes_work_that_it_cannot_do(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: it claims at once whatever it has just given back."""

    async def at_once(_: Breaker) -> None:
        return

    monkeypatch.setattr(Breaker, "whole", at_once)
    beside.lose_docker()
    assert sum(row["given_back"] for row in beside.ended(beside.submit())) > 0
