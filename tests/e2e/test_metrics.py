"""Metrics of a deployment: what they count, and that tenants and sandboxes add no series."""

import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runner.api.gauges import KEPT_S
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually
from tests.support.prometheus import MONITORING, prometheus

HERE = "127.0.0.1"
COPIES = """
INSERT INTO sandboxes (tenant_id, sandbox_id, state, created_by, on_timeout, image, size,
                       resources, isolation, egress, env, secret_env, metadata, node, instance,
                       lease_until)
SELECT tenant_id, gen_random_uuid(), 'paused', created_by, on_timeout, image, size, resources,
       isolation, egress, env, secret_env, metadata, 'elsewhere', 'elsewhere', {lease}
FROM sandboxes, generate_series(1, {many}) WHERE sandbox_id = %s
"""


def free_port() -> int:
    """Return a port that is free."""
    with socket.create_server((HERE, 0)) as found:
        number: int = found.getsockname()[1]
        return number


@pytest.fixture(scope="module")
def port() -> int:
    """Return the port of the worker's metrics."""
    return free_port()


@pytest.fixture(scope="module")
def measured(image: None, port: int) -> Iterator[Deployment]:
    """Return a deployment whose worker has metrics; its reaper does not come."""
    with deployments.deployment(worker_metrics_port=port, reconcile_s=3600.0, **NO_POOL) as made:
        yield made


def scrape(url: str) -> dict[str, float]:
    """Return the series at an address, by their names and labels, without those of a process."""
    time.sleep(KEPT_S)
    lines = httpx.get(f"{url}/metrics", timeout=60).raise_for_status().text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if not name.startswith("process_")}


def test_the_worker_counts_what_it_runs(measured: Deployment, port: int) -> None:
    """Nothing in it names a tenant, an execution or a sandbox."""
    client = measured.client("counted")
    ran = client.run(code="raise SystemExit(3)", language="python")
    with client.sandboxes.create() as sandbox:
        assert sandbox.run(["true"]).exit_code == 0
        found = scrape(f"http://{HERE}:{port}")
    assert found['runner_executions_ended_total{reason="exit_nonzero",state="failed"}'] == 1
    assert found['runner_sandboxes_used_total{source="fresh"}'] == 1
    for stage in ("wait", "start", "run", "finish"):
        assert found[f'runner_execution_stage_seconds_count{{stage="{stage}"}}'] == 1, stage
    assert found['runner_door_calls_total{call="create",outcome="done"}'] == 1
    assert found["runner_residents"] == 1
    assert found["runner_worker_problems"] == 0
    assert found["runner_state_free_bytes"] > 0
    text = " ".join(found)
    for word in ("counted", ran.id, sandbox.id):
        assert word not in text


def test_a_thousand_sandboxes_add_no_series(measured: Deployment) -> None:
    """The control: the same thousand are counted."""
    client = measured.client("crowd")
    with client.sandboxes.create() as sandbox:
        before = scrape(measured.url)
        statement = COPIES.format(many=1000, lease="now() + interval '1 hour'")
        measured.sql(statement, sandbox.id)
        after = scrape(measured.url)
        measured.sql("DELETE FROM sandboxes WHERE node = 'elsewhere'")
    paused = 'runner_sandboxes{state="paused"}'
    assert after[paused] == before[paused] + 1000
    assert set(after) - set(before) <= {
        name for name in after if name.startswith("runner_http_request")
    }


def test_what_is_overdue_shows(measured: Deployment) -> None:
    """A lease that nobody renews, and executions that nobody takes."""
    client = measured.client("overdue", max_concurrency=1)
    assert scrape(measured.url)["runner_sandboxes_overdue"] == 0
    first = client.submit(command=["sleep", "600"])
    eventually(lambda: client.get(first.id).state == "running")
    second = client.submit(command=["true"])
    with client.sandboxes.create() as sandbox:
        late = COPIES.format(many=3, lease="now() - interval '1 hour'")
        measured.sql(late, sandbox.id)
        found = scrape(measured.url)
        measured.sql("DELETE FROM sandboxes WHERE node = 'elsewhere'")
    client.cancel(first.id)
    client.wait(second)
    assert found["runner_sandboxes_overdue"] == 3
    assert found['runner_executions{state="queued"}'] == 1
    assert found["runner_queue_tenants"] == 1
    assert found["runner_queue_oldest_seconds"] > 0


def test_records_that_no_sink_has_taken_show(measured: Deployment) -> None:
    tenant = measured.client("forwarding").me()["tenant"]
    name = 'runner_audit_undelivered_seconds{sink="webhook"}'
    assert scrape(measured.url)[name] == 0
    measured.sql(
        "INSERT INTO audit_cursors (tenant_id, sink, seq) "
        "SELECT tenant_id, 'webhook', 0 FROM tenants WHERE name = %s",
        tenant["name"] if isinstance(tenant, dict) else tenant,
    )
    assert scrape(measured.url)[name] > 0
    measured.sql("DELETE FROM audit_cursors WHERE sink = 'webhook'")


def test_rules_and_dashboard_name_only_metrics_that_there_are(
    measured: Deployment, port: int
) -> None:
    """The control: a name that is not there would be found."""
    told = "".join(
        httpx.get(f"{url}/metrics", timeout=60).text
        for url in (measured.url, f"http://{HERE}:{port}")
    )
    there = set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))
    used = {
        re.sub(r"_(bucket|count|sum)$", "", name)
        for file in ("rules.yaml", "dashboard.json")
        for name in re.findall(r"\b(?:runner|process)_\w+", (MONITORING / file).read_text())
    }
    assert len(used) > 15
    assert used - there == set()
    assert {"runner_nonsense"} - there


def test_prometheus_fires_for_a_lost_worker_and_is_quiet_once_it_is_back(
    measured: Deployment, port: int, tmp_path: Path
) -> None:
    """While it is lost, an execution waits, too."""
    client = measured.client("alarmed")
    api = measured.url.removeprefix("http://")
    targets = {"runner-api": api, "runner-worker": f"{HERE}:{port}"}
    with prometheus(tmp_path, free_port(), targets) as watching:
        eventually(lambda: watching.value('up{job="runner-worker"}') == 1)
        eventually(lambda: watching.value('up{job="runner-api"}') == 1)
        quiet = watching.firing()
        measured.portal.call(measured.worker.stop)
        waiting = client.submit(command=["true"])
        lost = {"RunnerWorkerDown", "RunnerQueueStuck"}
        eventually(lambda: lost <= watching.firing())
        measured.restart_worker()
        assert client.wait(waiting).state == "succeeded"
        eventually(lambda: not lost & watching.firing())
    assert not quiet & {*lost, "RunnerApiDown"}
