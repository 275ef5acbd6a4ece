"""Everything that happens is recorded with all that auditors need, but no code or secrets."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent_runner import Client, NotPermitted
from runner.audit import offline
from runner.words.ids import PLATFORM_TENANT
from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.deployment import Deployment, eventually, state_of

CANARY = "canary-4be1d0a7c2"
FIELDS = {
    "id", "tenant", "at", "actor", "action", "outcome", "resource_type", "resource_id", "ip",
    "user_agent", "request_id", "metadata",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment that seals quickly."""
    with deployments.deployment(reconcile_s=0.5, audit_checkpoint_s=0.5) as running:
        yield running


def records(client: Client, **filters: Any) -> list[dict[str, Any]]:
    """Return the records of the log."""
    return [each["record"] for each in client.audit(limit=500, **filters)["items"]]


def everything(client: Client, viewer: Client) -> None:
    """Do every action that is audited, with a canary wherever content is given."""
    client.put_secret("token", f"{CANARY}-secret")
    client.put_egress_policy("policy", ["files.example.com"])
    ended = client.run(
        language="python",
        code=f"import sys, os; print('{CANARY}-code'); print(os.environ['TOKEN'], sys.argv)\n"
        "import urllib.request\n"
        "try: urllib.request.urlopen('http://denied.example.com', timeout=5)\n"
        "except OSError as e: print(e)",
        stdin=f"{CANARY}-stdin",
        files={"in.txt": f"{CANARY}-file"},
        env={"PLAIN": f"{CANARY}-environment"},
        secret_env={"TOKEN": "token"},
        egress=["files.example.com"],
    )
    assert ended.state == "succeeded", ended.detail
    assert ended.stdout is not None
    assert f"{CANARY}-code" in ended.stdout.text, "the canary was in the program"
    client.run(command=["sh", "-c", f"echo {CANARY}-command"], metadata={"note": "plain"})
    cancelled = client.submit(command=["sleep", "60"])
    eventually(lambda: state_of(client, cancelled)() == "running")
    client.cancel(cancelled.id)
    client.wait(cancelled)
    client.receipt(ended.id)
    client.delete_egress_policy("policy")
    client.delete_secret("token")
    made = client.put_audit_webhook("https://hooks.example.invalid/")
    client.delete_audit_webhook()
    with pytest.raises(NotPermitted):
        viewer.put_secret("token", f"{CANARY}-denied")
    with client.export_audit() as pieces:
        assert made["secret"].encode() not in b"".join(pieces)


EXPECTED = {
    "tenant:create", "api_key:create", "execution:submit", "execution:start", "execution:end",
    "execution:cancel", "egress:connect", "secret:create", "secret:use", "secret:delete",
    "egress_policy:update", "egress_policy:delete", "receipt:read", "audit_webhook:update",
    "audit_webhook:delete", "access:denied", "audit:export",
}  # fmt: skip


def test_each_thing_is_on_record_with_every_field(made: Deployment) -> None:
    """A record names actor, action, object, origin, time and result, and holds no content."""
    client, viewer = made.client("audited"), made.client("audited", Role.VIEWER)
    everything(client, viewer)
    found = records(client)
    assert {each["action"] for each in found} == EXPECTED
    for record in found:
        assert set(record) == FIELDS
        assert record["outcome"] in {"success", "failure", "denied"}
        assert record["actor"].partition(":")[0] in {"key", "system", "execution"}
        if record["actor"].startswith("key:"):
            assert record["ip"] == "127.0.0.1"
            assert record["user_agent"].startswith("python-httpx/")
            assert record["request_id"]
    (denied,) = records(client, action="egress:connect")
    assert (denied["outcome"], denied["metadata"]["host"]) == ("denied", "denied.example.com")
    # Look at everything that is stored as audit, because it includes what was exported.
    stored = json.dumps(made.sql("SELECT body FROM audit_events"))
    stored += json.dumps(made.sql("SELECT document FROM audit_checkpoints"))
    assert CANARY not in stored


def test_the_canary_would_be_found(made: Deployment) -> None:
    """The control: where content is stored, the same search finds it."""
    client = made.client("control")
    client.run(command=["sh", "-c", f"echo {CANARY}"])
    assert CANARY in json.dumps(made.sql("SELECT argv FROM executions"))
    client.put_egress_policy("policy", [f"{CANARY}.example.com"])
    assert CANARY in json.dumps(records(client)), "the rules themselves are facts of the record"


def test_a_key_that_does_not_open_is_on_record(made: Deployment) -> None:
    """The record is in the log of the tenant that has the key's prefix."""
    client = made.client("guessed")
    token = made.key("guessed")
    answer = httpx.get(
        f"{made.url}/v1/audit", headers={"Authorization": f"Bearer {token[:-4]}AAAA"}
    )
    assert answer.status_code == 401
    (record,) = records(client, action="authentication:verify")
    assert (record["outcome"], record["ip"]) == ("failure", "127.0.0.1")


def test_the_log_of_a_running_deployment_is_sealed_by_itself(made: Deployment) -> None:
    """It is sealed within the age that is set, unasked; the worker's log has a copy."""
    client = made.client("sealed-itself")
    client.put_secret("token", "a-value-of-it")
    total = len(records(client))
    sealed = eventually(
        lambda: (
            client.verify_audit()
            if (client.verify_audit()["checkpoint"] or {}).get("seq") == total
            else None
        )
    )
    assert sealed["valid"]
    log = made.stack.settings.state_dir / "log" / "worker.log"
    lines = [
        json.loads(line) for line in log.read_text().splitlines() if "audit_checkpoint" in line
    ]
    assert sealed["checkpoint"]["document"] in {each["checkpoint"] for each in lines}


def test_the_deployments_own_log_is_exported_by_the_operator(
    made: Deployment, tmp_path: Path
) -> None:
    """It has what belongs to no tenant: guesses at keys, operators, deleted tenants."""
    guess = {"Authorization": "Bearer rk_aaaaaaaaaaaa_" + "A" * 43}
    assert httpx.get(f"{made.url}/v1/audit", headers=guess).status_code == 401
    file = tmp_path / "platform.ndjson"
    done = subprocess.run(
        [sys.executable, "-m", "runner", "audit", "export", "--platform", str(file)],
        env={
            **os.environ,
            "RUNNER_DATABASE_OWNER_URL": made.stack.services.owner_url,
            "RUNNER_STATE_DIR": str(made.stack.settings.state_dir),
        },
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = file.read_text().splitlines()
    report = offline.verify(lines)
    assert (report.findings, report.tenant) == ((), str(PLATFORM_TENANT))
    actions = [json.loads(line)["record"]["action"] for line in lines[1:-1]]
    assert "authentication:verify" in actions
    assert actions[-1] == "audit:export"


def test_an_export_does_not_outwait_a_worker_that_is_away(made: Deployment) -> None:
    """No signature, no export: 503. Once the worker is back, the next export has all records."""
    client = made.client("workerless")
    client.put_secret("token", "a-value-of-it")
    made.portal.call(made.worker.stop)
    headers = {"Authorization": f"Bearer {made.key('workerless')}"}
    began = time.monotonic()
    answer = httpx.get(f"{made.url}/v1/audit/export", headers=headers, timeout=30)
    assert answer.status_code == 503
    assert "no worker has signed" in answer.json()["detail"]
    assert time.monotonic() - began < 15
    made.restart_worker()
    with client.export_audit() as pieces:
        text = b"".join(pieces).decode()
    assert text.count('"action":"audit:export"') == 2
