"""A program is dead before another worker may start it, even if the event loop is blocked."""

import asyncio
import time
from dataclasses import dataclass

import docker
import pytest
from pydantic import SecretStr

from runner.node.service import worker
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.watchdog import Watchdog
from tests.support.deployment import NO_POOL, Deployment, deployment, eventually, state_of

pytestmark = pytest.mark.alone

LEASE_S = 4.0


@dataclass(frozen=True)
class Seen:
    """The facts that could be seen from outside while the loop was blocked."""

    gone_in_time: bool
    """Whether the program's processes were gone before its lease ended."""
    reason: str


def look(made: Deployment, execution: str) -> bool:
    """Wait for the end of lease or processes; return whether the processes ended first."""
    client = docker.APIClient(made.stack.settings.docker_url, version="auto", timeout=30)
    try:
        cgroups = Cgroups.of(client.info())
    finally:
        client.close()
    [container] = made.containers()
    assert cgroups.processes(container["Id"])
    while True:
        alive = bool(cgroups.processes(container["Id"]))
        [row] = made.sql(
            "SELECT lease_until > clock_timestamp() AS held FROM executions"
            " WHERE execution_id = %s",
            execution,
        )
        if not (alive and row["held"]):
            return bool(row["held"])
        time.sleep(0.02)


async def held_up(made: Deployment, tenant: str) -> Seen:
    """Run a long program, and block the worker's loop for longer than its lease."""
    client, services = made.client(tenant), made.stack.services
    async with worker(
        made.stack.settings,
        database_url=SecretStr(services.worker_url),
        redis_url=SecretStr(services.redis_url),
    ):
        execution = await asyncio.to_thread(
            client.submit, code="import time; time.sleep(60)", language="python"
        )
        running = state_of(client, execution)
        await asyncio.to_thread(eventually, lambda: running() == "running")
        looking = asyncio.create_task(asyncio.to_thread(look, made, execution.id))
        await asyncio.sleep(0.1)
        time.sleep(LEASE_S * 1.5)  # noqa: ASYNC251 - that is what is tested
        gone_in_time = await looking
        ended = await asyncio.to_thread(client.wait, execution)
    return Seen(gone_in_time, ended.reason or "")


async def test_the_program_is_gone_before_its_lease_is() -> None:
    """The execution ends like one whose worker was lost."""
    with deployment(lease_s=LEASE_S, reconcile_s=0.5, **NO_POOL) as made:
        made.portal.call(made.worker.stop)
        seen = await held_up(made, "fenced")
    assert seen == Seen(gone_in_time=True, reason="worker_lost")


async def test_without_the_watchdog_it_outlives_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: by then, another worker could have started it."""
    monkeypatch.setattr(Watchdog, "_watch", lambda _: None)
    with deployment(lease_s=LEASE_S, reconcile_s=0.5, **NO_POOL) as made:
        made.portal.call(made.worker.stop)
        seen = await held_up(made, "unfenced")
    assert not seen.gone_in_time
