"""Executions in sandboxes that were started ahead: the same as others, only sooner."""

import signal
import time
from collections.abc import Iterator

import pytest

from runner.node import traffic
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually

POOL = 3
QUIET_S = traffic.QUIET_S + 3
LOOK_EVERY_S = 0.3


@pytest.fixture(scope="module")
def warm(image: None) -> Iterator[Deployment]:
    """Return a deployment whose pool has a size of its own."""
    with deployments.deployment(pool=POOL, pool_max=POOL, reconcile_s=0.5) as made:
        eventually(lambda: len(made.containers()) == POOL)
        yield made


def sandboxes(warm: Deployment) -> set[str]:
    """Return the sandboxes that exist."""
    return {each["Labels"]["runner.sandbox"] for each in warm.containers()}


def unchanged(warm: Deployment) -> set[str]:
    """Return what waits, once all have started and all used ones have been replaced."""
    seen, since = sandboxes(warm), time.monotonic()
    while time.monotonic() < since + QUIET_S:
        time.sleep(LOOK_EVERY_S)
        if (now := sandboxes(warm)) != seen:
            seen, since = now, time.monotonic()
    assert len(seen) == POOL
    return seen


def test_an_execution_gets_a_sandbox_that_waited(warm: Deployment) -> None:
    """The log says which sandbox; it is gone afterwards, and another one waits."""
    waiting = unchanged(warm)
    client = warm.client("pool-one")
    ran = client.run(command=["echo", "hello"])
    (start,) = client.audit(resource_id=ran.id, action="execution:start")["items"]
    used = start["record"]["metadata"]["sandbox"]
    assert used in waiting
    eventually(lambda: used not in sandboxes(warm) and len(sandboxes(warm)) == POOL)


def test_more_than_wait_all_end_each_in_one_of_its_own(warm: Deployment) -> None:
    """Two tenants start thirty at once while three wait: no sandbox serves two executions."""
    clients = [warm.client(f"pool-many-{n}") for n in range(2)]
    made = [
        (client, client.submit(command=["sh", "-c", "ls -A /workspace /tmp; echo x > /tmp/x"]))
        for _ in range(15)
        for client in clients
    ]
    for client, execution in made:
        ended = client.wait(execution)
        assert ended.state == "succeeded"
        assert ended.stdout is not None
        assert ended.stdout.raw == b"/tmp:\n\n/workspace:\n"
    used = warm.sql(
        "SELECT body::jsonb -> 'metadata' ->> 'sandbox' AS id FROM audit_events "
        "WHERE action = 'execution:start'"
    )
    assert len({each["id"] for each in used}) == len(used) >= 30


def test_what_a_dead_worker_kept_is_removed_and_kept_anew(warm: Deployment) -> None:
    """After SIGKILL, the next start finds the old ones, and gives them to nobody."""
    old = unchanged(warm)
    warm.portal.call(warm.worker.stop, signal.SIGKILL)
    assert sandboxes(warm) == old
    warm.restart_worker()
    eventually(lambda: not sandboxes(warm) & old and len(sandboxes(warm)) == POOL)
    assert warm.client("pool-after").run(command=["true"]).state == "succeeded"


def test_a_stopped_worker_leaves_none(warm: Deployment) -> None:
    """After SIGTERM, the waiting sandboxes go with the worker."""
    assert warm.portal.call(warm.worker.stop) == 0
    assert warm.containers() == []
    assert warm.sockets() == []
    warm.restart_worker()
    eventually(lambda: len(sandboxes(warm)) == POOL)
