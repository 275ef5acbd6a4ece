"""A host that starts worker and Docker at once: the worker waits for Docker, and says so."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.base import health
from runner.words.errors import SetupError
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, deployment, eventually, state_folder
from tests.support.nodes import Node, prepared


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    with deployments.deployment(**NO_POOL) as running:
        yield running


@pytest.fixture
def early(made: Deployment, tmp_path: Path) -> Iterator[Node]:
    """Return a node whose worker has started before Docker."""
    with state_folder() as folder:
        node = prepared(
            made, folder, "early", docker_url=f"unix://{tmp_path}/docker.sock", **NO_POOL
        )
        node.child.start()
        try:
            eventually(lambda: health.DOCKER in found(node))
            yield node
        finally:
            asyncio.run(node.child.stop())


def found(node: Node) -> health.Problems:
    """Return what the worker says of itself, as `runner worker --healthy` prints it."""
    return health.problems(node.settings.run_dir, node.child.pid)


def test_a_worker_that_starts_before_docker_works_once_docker_answers(
    made: Deployment, early: Node, tmp_path: Path
) -> None:
    """Meanwhile its log and its health name what it waits for."""
    assert f"Docker does not answer at unix://{tmp_path}/docker.sock" in found(early)[health.DOCKER]
    assert early.log().count("docker_away") == 1
    assert "docker_answers" not in early.log()
    real = made.stack.settings.docker_url.removeprefix("unix://")
    (tmp_path / "docker.sock").symlink_to(real)
    eventually(lambda: early.child.running() and not found(early))
    assert "docker_answers" in early.log()
    assert "worker_ready" in early.log()


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_waits_for_docker_can_be_stopped(early: Node, by: signal.Signals) -> None:
    """It ends as one that works does, and leaves nothing that says it works."""
    assert asyncio.run(early.child.stop(by)) == 0
    assert "Traceback" not in early.log()
    assert health.problems(early.settings.run_dir) == {
        "worker": "it does not run, or is not ready yet"
    }


def test_a_stack_of_one_host_says_at_once_that_docker_is_away(tmp_path: Path) -> None:
    """Whoever types `runner dev` shall not wait for what they can start."""
    with (
        pytest.raises(SetupError, match="the worker needs Docker: Docker does not answer at"),
        deployment(docker_url=f"unix://{tmp_path}/docker.sock", **NO_POOL),
    ):
        pass
