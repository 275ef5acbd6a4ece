"""Explanations, through the whole stack: what waited, ran and ended, and why."""

import json
import os
import subprocess
import sys
from typing import Any

import httpx
import pytest

from agent_runner import Client, NotFound
from tests.support.deployment import Deployment, eventually


def stages(found: dict[str, Any]) -> list[str]:
    """Return the names of an explanation's stages."""
    return [each["stage"] for each in found["stages"]]


def explain(shared: Deployment, tenant: str, *arguments: str) -> str:
    """Return what the command prints for a tenant's key."""
    done = subprocess.run(
        [sys.executable, "-m", "runner", "explain", *arguments],
        env={**os.environ, "COLUMNS": "80", "RUNNER_URL": shared.url,
             "RUNNER_API_KEY": shared.key(tenant)},
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_an_execution_that_ended_shows_each_stage(shared: Deployment) -> None:
    """The times add up to those of the execution, and the sandbox is that of its receipt."""
    client = shared.client("explained")
    ran = client.run(code="raise SystemExit(3)", language="python")
    found = client.explain(ran.id)
    assert (found["kind"], found["state"]) == ("execution", "failed")
    assert stages(found) == ["submitted", "claimed", "started", "ended"]
    _, claimed, started, ended = found["stages"]
    assert (started["at"], ended["at"]) == (ran.started_at, ran.ended_at)
    assert min(each["after_s"] for each in (claimed, started, ended)) >= 0
    receipt = json.loads(client.receipt(ran.id))["body"]
    assert (started["node"], started["sandbox"]) == (receipt["node"], receipt["sandbox"])
    assert started["source"] in {"stock", "fresh"}
    assert found["wait"] is None
    assert found["end"]["reason"] == "exit_nonzero"
    assert found["end"]["advice"] == "Correct the program."
    shown = explain(shared, "explained", ran.id[:-1])
    assert "claimed" in shown
    assert f"on node {receipt['node']}" in " ".join(shown.split())
    assert "It ended (exit_nonzero)" in shown
    assert json.loads(explain(shared, "explained", ran.id, "--json")) == found


def test_one_that_waits_for_its_tenants_quota_says_so(shared: Deployment) -> None:
    client = shared.client("explained-capped", max_concurrency=1)
    first = client.submit(command=["sleep", "600"])
    eventually(lambda: client.get(first.id).state == "running")
    second = client.submit(command=["true"])
    try:
        found = client.explain(second.id)
        assert stages(found) == ["submitted"]
        wait = found["wait"]
        assert (wait["why"], wait["active"], wait["concurrent"]) == ("quota", 1, 1)
        assert "It waits (quota)" in explain(shared, "explained-capped", second.id)
    finally:
        client.cancel(first.id)
    assert client.wait(second).state == "succeeded"
    assert client.explain(second.id)["wait"] is None
    cancelled = client.explain(client.wait(first).id)
    assert "stop_requested" in stages(cancelled)
    assert cancelled["end"]["reason"] == "cancel_requested"


def test_one_that_is_cancelled_in_the_queue_never_started(shared: Deployment) -> None:
    client = shared.client("explained-queued", max_concurrency=1)
    first = client.submit(command=["sleep", "600"])
    eventually(lambda: client.get(first.id).state == "running")
    second = client.cancel(client.submit(command=["true"]).id)
    client.cancel(first.id)
    found = client.explain(second.id)
    assert set(stages(found)) == {"submitted", "stop_requested", "ended"}
    assert found["end"]["reason"] == "cancel_requested"


def test_a_sandbox_shows_its_life(shared: Deployment) -> None:
    client = shared.client("explained-living")
    with client.sandboxes.create(timeout_s=300) as sandbox:
        sandbox.pause()
        sandbox.resume()
        found = client.sandboxes.explain(sandbox.id)
        assert stages(found) == ["submitted", "started", "paused", "resumed"]
        assert found["end"] is None
    found = client.sandboxes.explain(sandbox.id)
    assert stages(found)[-2:] == ["stop_requested", "ended"]
    assert found["stages"][1]["node"]
    assert found["end"]["reason"] == "killed"
    shown = explain(shared, "explained-living", sandbox.id[:30])
    assert f"sandbox {sandbox.id}: ended" in shown
    assert "It ended (killed): somebody deleted it." in shown


def test_nothing_of_another_tenant_is_explained(shared: Deployment) -> None:
    """The control: its own tenant gets the answer."""
    ours, theirs = shared.client("explained"), shared.client("explained-others")
    ran = theirs.run(code="print(1)", language="python")
    with theirs.sandboxes.create() as sandbox:
        for client, status in ((theirs, 200), (ours, 404)):
            for path in (f"executions/{ran.id}", f"sandboxes/{sandbox.id}"):
                answer = told(shared, client, path)
                assert answer.status_code == status, path
                assert (ran.id in answer.text or sandbox.id in answer.text) == (status == 200)
    with pytest.raises(NotFound):
        ours.explain(ran.id)


def told(shared: Deployment, client: Client, path: str) -> httpx.Response:
    """Return the API's answer as it is."""
    key = client._http.headers["Authorization"]
    return httpx.get(
        f"{shared.url}/v1/{path}/explanation", headers={"Authorization": key}, timeout=60
    )
