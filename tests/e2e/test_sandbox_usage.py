"""The usage has living sandboxes in it, which stop once the day's CPU-seconds are gone."""

import signal
import socket
from typing import Any

import pytest

from agent_runner import Client, Sandbox, TooMany, Unavailable
from tests.support.deployment import Deployment, eventually

COUNTED_S = 120.0
"""Every 30 s by the clock; on a host that is busy, later."""
BUSY = "import time\nwhile time.process_time() < {seconds}: pass"
CHARGED = 0.9
"""The kernel's two clocks, of a process and of its control group, differ a little."""
ENDLESS = "while True: pass"
TWICE = """
import socket
listener = socket.create_server(("127.0.0.1", 7000))
print("up", flush=True)
while True:
    connection, _ = listener.accept()
    while data := connection.recv(4096):
        connection.sendall(data * 2)
"""
"""Answers every byte with two."""


def cpu_quota(made: Deployment, tenant: str, seconds: int) -> None:
    """Give a tenant so many CPU-seconds a day."""
    made.sql(
        "UPDATE tenants SET quotas = jsonb_build_object('cpu_s_per_day', %s::bigint) "
        "WHERE name = %s",
        seconds,
        tenant,
    )


def total(client: Client) -> dict[str, Any]:
    """Return what was used in all."""
    used: dict[str, Any] = client.usage()["total"]
    return used


def test_a_busy_sandbox_is_in_the_usage_when_it_is_paused_and_when_it_has_ended(
    shared: Deployment,
) -> None:
    """Its CPU-seconds and memory. Each once, and no attempt. The control: before, nothing was."""
    client = shared.client("sandbox-used")
    assert total(client)["cpu_s"] == 0
    with client.sandboxes.create(size="small") as sandbox:
        sandbox.run(language="python", code=BUSY.format(seconds=1.5))
        sandbox.pause()
        paused = total(client)
        assert 1.5 * CHARGED <= paused["cpu_s"] < 10
        assert paused["sandbox_cpu_s"] == paused["cpu_s"]
        assert paused["sandbox_memory_gib_s"] == paused["memory_gib_s"] > 0
        assert paused["attempts"] == 0
        sandbox.resume()
        sandbox.run(language="python", code=BUSY.format(seconds=1))
    ended = total(client)
    assert paused["cpu_s"] + CHARGED <= ended["cpu_s"] < paused["cpu_s"] + 10
    client.run(language="python", code=BUSY.format(seconds=0.5))
    both = total(client)
    assert (both["attempts"], both["sandbox_cpu_s"]) == (1, ended["cpu_s"])
    assert both["cpu_s"] > ended["cpu_s"]


def test_what_goes_through_its_way_out_is_counted_while_it_lives(shared: Deployment) -> None:
    """The proxy's refusals count, too. All counts once: the end of the sandbox adds nothing."""
    client = shared.client("sandbox-reaching")
    with client.sandboxes.create(size="small", egress=["allowed.test"]) as sandbox:
        sandbox.run("curl -s -o /dev/null http://refused.test/")
        sandbox.pause()
        paused = total(client)
        assert paused["egress_bytes_up"] > 0
        assert paused["egress_bytes_down"] > 0
    ended = total(client)
    for name in ("egress_bytes_up", "egress_bytes_down"):
        assert ended[name] == paused[name]


def test_what_goes_through_its_ports_is_counted_once(shared: Deployment) -> None:
    """At once in its metrics, also of a connection that lasts, and by day in the usage."""
    client = shared.client("sandbox-serving")
    with client.sandboxes.create(size="nano") as sandbox:
        server = sandbox.start(["python3", "-c", TWICE])
        next(server.output())  # it listens
        with (
            sandbox.ports.forward(7000) as local,
            socket.create_connection(("127.0.0.1", local.port)) as connection,
        ):
            connection.sendall(b"x" * 1000)
            assert len(connection.recv(2000, socket.MSG_WAITALL)) == 2000
            after = sandbox.metrics()
            assert (after["port_bytes_in"], after["port_bytes_out"]) == (1000, 2000)
        sandbox.pause()
        paused = total(client)
        assert paused["port_bytes_in"] == after["port_bytes_in"]
        assert paused["port_bytes_out"] == after["port_bytes_out"]
        assert (paused["egress_bytes_up"], paused["egress_bytes_down"]) == (0, 0)
    assert total(client)["port_bytes_in"] == paused["port_bytes_in"]


def test_once_the_days_cpu_seconds_are_gone_its_sandboxes_are_paused(shared: Deployment) -> None:
    """None is made, run or resumed then; with a larger quota it goes on where it stopped."""
    client, other = shared.client("sandbox-up"), shared.client("sandbox-quiet")
    cpu_quota(shared, "sandbox-up", 2)
    with (
        client.sandboxes.create(size="small") as busy,
        client.sandboxes.create(size="nano") as idle,
        other.sandboxes.create(size="nano") as beside,
    ):
        endless = busy.start(language="python", code=ENDLESS)

        def states() -> list[str]:
            return [client.sandboxes.get(each.id).info.state for each in (busy, idle)]

        eventually(lambda: states() == ["paused", "paused"], within_s=COUNTED_S)
        assert other.sandboxes.get(beside.id).info.state == "running"
        asked = (
            busy.resume,
            lambda: client.sandboxes.create(size="nano"),
            lambda: client.run(command=["true"]),
        )
        for ask in asked:
            with pytest.raises(TooMany) as refused:
                ask()
            assert refused.value.quota is not None
            assert refused.value.quota["name"] == "cpu_s_per_day"
        denied = client.audit(action="sandbox:resume", outcome="denied")["items"]
        assert denied[0]["record"]["metadata"]["quota"] == "cpu_s_per_day"
        (why, *_) = client.audit(action="sandbox:pause")["items"]
        assert why["record"]["metadata"] == {"quota": "cpu_s_per_day", "limit": 2}
        cpu_quota(shared, "sandbox-up", 1_000_000)
        busy.resume()
        assert busy.run("echo here").stdout.text == "here\n"
        assert client.sandboxes.get(busy.id).info.state == "running"
        endless.kill()


def answers(sandbox: Sandbox) -> bool:
    """Return whether its node takes commands for it."""
    try:
        return sandbox.run("true").exit_code == 0
    except Unavailable:
        return False


def test_a_worker_that_is_killed_loses_no_cpu_seconds(own: Deployment) -> None:
    """The next one counts on from where the row says, also what was used while none was there."""
    client = own.client("sandbox-crash")
    with client.sandboxes.create(size="small") as sandbox:
        sandbox.run(language="python", code=BUSY.format(seconds=1.5))
        own.portal.call(own.worker.stop, signal.SIGKILL)
        own.restart_worker()
        eventually(lambda: answers(sandbox), within_s=COUNTED_S)
        eventually(lambda: total(client)["cpu_s"] >= 1.5 * CHARGED, within_s=COUNTED_S)
        assert total(client)["cpu_s"] < 10
