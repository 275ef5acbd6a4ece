"""`/v1/audit`: who may export and forward the log, what is recorded, and what is refused."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from agent_runner import Client, Invalid, NotFound, NotPermitted
from runner.audit import offline
from runner.base.signing import PublicKey
from runner.words.principal import Role
from tests.support.deployment import Deployment

URL = "https://hooks.example.com/in?token=canary-of-the-path"


def exported(client: Client, **filters: Any) -> list[str]:
    """Return the lines of an export."""
    with client.export_audit(**filters) as pieces:
        return b"".join(pieces).decode().splitlines()


def actions(client: Client) -> list[str]:
    """Return the recorded actions."""
    return [each["record"]["action"] for each in client.audit(limit=500)["items"]]


def test_an_export_is_the_whole_log_with_itself_and_sealed(shared: Deployment) -> None:
    """It verifies with the keys that the deployment publishes."""
    client = shared.client("exporting")
    client.put_secret("token", "a-value-of-it")
    lines = exported(client)
    report = offline.verify(lines, _keys(client))
    assert report.findings == ()
    assert report.checkpoint is not None
    assert report.checkpoint.seq == report.records == len(lines) - 2
    assert json.loads(lines[-2])["record"]["action"] == "audit:export"
    assert actions(client)[-1] == "audit:export"
    listed = {each["seq"]: each["record"] for each in client.audit(limit=500)["items"]}
    assert all(listed[each["seq"]] == each["record"] for each in map(json.loads, lines[1:-1]))


def test_the_log_is_read_newest_first_on_request_page_by_page(shared: Deployment) -> None:
    """Filters apply as usual, and each page begins where the last one ended."""
    client = shared.client("backwards")
    for name in ("one", "two", "three"):
        client.put_secret(name, "a-value-of-it")
    forwards = [each["seq"] for each in client.audit(limit=500)["items"]]
    backwards: list[int] = []
    cursor = None
    while True:
        page = client.audit(limit=2, order="newest", cursor=cursor)
        backwards += [each["seq"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert backwards == forwards[::-1]
    puts = client.audit(order="newest", action="secret:create")["items"]
    assert [each["record"]["resource_id"] for each in puts] == ["three", "two", "one"]
    with pytest.raises(Invalid):
        client.audit(order="random")


def _keys(client: Client) -> tuple[PublicKey, ...]:
    return tuple(PublicKey(id_, pem) for id_, pem in client.signing_keys().items())


def test_a_filtered_export_says_so(shared: Deployment) -> None:
    """The record of the export also names the filter."""
    client = shared.client("selecting")
    client.put_secret("token", "a-value-of-it")
    client.delete_secret("token")
    lines = exported(client, action="secret:delete")
    assert json.loads(lines[0])["body"]["filter"] == {"action": "secret:delete"}
    report = offline.verify(lines)
    assert (report.filtered, report.records, report.findings) == (True, 1, ())
    record = client.audit(action="audit:export")["items"][0]["record"]
    assert record["metadata"] == {"action": "secret:delete"}


def test_a_log_of_many_pages_is_exported_whole(shared: Deployment) -> None:
    """It has more than one page, and keeps its order."""
    client = shared.client("lengthy")
    client.put_secret("token", "a-value-of-it")
    (tenant,) = shared.sql(
        "SELECT tenant_id FROM audit_events WHERE action = 'secret:create' ORDER BY at DESC LIMIT 1"
    )
    shared.sql(
        "INSERT INTO audit_events (tenant_id, body) SELECT e.tenant_id, e.body "
        "FROM audit_events e, generate_series(1, 1200) WHERE e.tenant_id = %s AND e.seq = 1",
        tenant["tenant_id"],
    )
    report = offline.verify(exported(client))
    assert (report.findings, report.records > 1200) == ((), True)


@pytest.mark.parametrize("role", Role)
def test_admins_alone_export_and_forward(role: Role, shared: Deployment) -> None:
    """Others are refused, and the log records what they tried."""
    owner, client = shared.client(f"a-{role}"), shared.client(f"a-{role}", role)
    calls = (
        lambda: exported(client),
        lambda: client.put_audit_webhook(URL),
        client.audit_webhook,
        client.delete_audit_webhook,
    )
    if role in {Role.OWNER, Role.ADMIN}:
        for call in calls:
            call()
        return
    for call in calls:
        with pytest.raises(NotPermitted, match="audit"):
            call()
    denied = [each["record"] for each in owner.audit(action="access:denied")["items"]]
    assert [(each["resource_type"], each["metadata"]["permission"]) for each in denied] == [
        ("audit", "audit:export"),
        ("audit_webhook", "audit_webhook:write"),
        ("audit_webhook", "audit_webhook:read"),
        ("audit_webhook", "audit_webhook:write"),
    ]
    assert denied[1]["metadata"]["route"] == "/v1/audit/webhook"
    assert denied[1]["metadata"]["method"] == "PUT"


def test_a_webhook_is_written_read_and_deleted(shared: Deployment) -> None:
    """Only the first answer has its secret; the log has its host, but not its path."""
    client, other = shared.client("hooked"), shared.client("not-hooked")
    with pytest.raises(NotFound):
        client.delete_audit_webhook()
    made = client.put_audit_webhook(URL)
    assert made["url"] == URL
    assert made["secret"].startswith("whsec_")
    again = client.put_audit_webhook(URL)
    assert again["secret"] != made["secret"]
    assert again["created_at"] == made["created_at"]
    assert set(client.audit_webhook()) == set(made) - {"secret"}
    with pytest.raises(NotFound):
        other.audit_webhook()
    with pytest.raises(NotFound):
        other.delete_audit_webhook()
    client.delete_audit_webhook()
    with pytest.raises(NotFound):
        client.audit_webhook()
    log = client.audit(limit=500)["items"]
    told = [each["record"] for each in log if each["record"]["resource_type"] == "audit_webhook"]
    assert [each["action"] for each in told] == [
        "audit_webhook:update", "audit_webhook:update", "audit_webhook:delete",
    ]  # fmt: skip
    assert {each["metadata"]["host"] for each in told} == {"hooks.example.com"}
    assert "canary-of-the-path" not in json.dumps(log)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://10.0.0.1/", "https://127.0.0.1:8080/", "https://[::1]/",
        "https://169.254.169.254/latest/meta-data", "https://[::ffff:10.0.0.1]/",
        "https://2130706433/", "https://user:pw@example.com/", "https://example.com/#x",
        "file:///etc/passwd", "https://", "", "https://exa\nmple.com", "https://a\0b/",
    ],
)  # fmt: skip
def test_an_address_that_must_not_be_one_is_refused(url: str, shared: Deployment) -> None:
    """It is refused before anything is stored, and the log has no record of it."""
    client = shared.client("wrong-hooks")
    with pytest.raises(Invalid, match="url"):
        client.put_audit_webhook(url)
    with pytest.raises(NotFound):
        client.audit_webhook()


def test_verification_knows_the_newest_checkpoint_and_what_the_caller_knows(
    shared: Deployment,
) -> None:
    """The caller names a place that the log passed through, and one that it never did."""
    client = shared.client("verifying")
    lines = exported(client)
    checkpoint = json.loads(lines[-1])
    found = client.verify_audit()
    assert (found["valid"], found["fault"]) == (True, None)
    assert found["checkpoint"]["seq"] == checkpoint["body"]["seq"]
    assert json.loads(found["checkpoint"]["document"]) == checkpoint
    seq, hash_ = checkpoint["body"]["seq"], checkpoint["body"]["hash"]
    assert client.verify_audit(seq=seq, hash_=hash_)["valid"]
    wrong = client.verify_audit(seq=seq, hash_="0" * 64)
    assert (wrong["valid"], "what you hold" in wrong["fault"]) == (False, True)
    assert not client.verify_audit(seq=seq + 50, hash_=hash_)["valid"]


def test_verifying_many_times_at_once_leaves_the_api_to_the_others(shared: Deployment) -> None:
    """There are more requests than connections, and all have to wait for the receipts."""
    loud, other = shared.http("verifying"), shared.http("not-verifying")
    superuser = shared.stack.services.postgres.url("postgres")
    with ThreadPoolExecutor(20) as threads:
        with psycopg.connect(superuser) as locking:
            locking.execute("LOCK TABLE receipts IN ACCESS EXCLUSIVE MODE")
            asked = [threads.submit(loud.get, "/v1/audit/verification") for _ in range(20)]
            time.sleep(1)
            assert other.get("/v1/audit").status_code == 200
            assert not any(each.done() for each in asked)
        assert all(each.result().json()["valid"] for each in asked)


def test_one_tenants_export_holds_nothing_of_anothers(shared: Deployment) -> None:
    """Row-level security bounds every page."""
    ours, theirs = shared.client("ours-x"), shared.client("theirs-x")
    theirs.put_secret("canary-of-theirs", "a-value-of-it")
    assert "canary-of-theirs" in "".join(exported(theirs))
    assert "canary-of-theirs" not in "".join(exported(ours))


def test_by_the_command_line_offline_and_against_what_was_kept(
    shared: Deployment, tmp_path: Path
) -> None:
    """The command exports, verifies the file offline, and finds what was changed in it."""
    env = {**os.environ, "COLUMNS": "200"}
    online = {**env, "RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("typed-audit")}
    offline_env = {**env, "RUNNER_STATE_DIR": "/nonexistent"}

    def runner(*arguments: str, **given: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "runner", "audit", *arguments],
            capture_output=True, text=True, timeout=60, check=False, **given,
        )  # fmt: skip

    old, new, key = tmp_path / "old.ndjson", tmp_path / "new.ndjson", tmp_path / "key.pem"
    assert runner("export", str(old), env=online).returncode == 0
    assert runner("export", str(new), env=online).returncode == 0
    key.write_text(json.loads(old.read_text().splitlines()[0])["keys"][0]["pem"])
    whole = runner("verify", str(new), "--key", str(key), "--against", str(old), env=offline_env)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.startswith("whole: ")
    unverified = runner("verify", str(new), env=offline_env)
    assert (unverified.returncode, unverified.stdout) == (1, "")
    assert unverified.stderr.startswith("UNVERIFIED: ")
    rolled_back = runner("verify", str(old), "--against", str(new), env=offline_env)
    assert rolled_back.returncode == 1
    assert "truncated" in rolled_back.stderr
    lines = new.read_text().splitlines()
    new.write_text("\n".join([lines[0], lines[1].replace('"success"', '"denied"'), *lines[2:]]))
    changed = runner("verify", str(new), env=offline_env)
    assert changed.returncode == 1
    assert "changed #1: record 1 is not what its hash was made of" in changed.stderr
    assert runner("verify", "--against", str(old), "--key", str(key), env=online).returncode == 0
    hook = runner("webhook", "set", "https://hooks.example.com/", env=online)
    assert hook.stdout.startswith("whsec_")
    assert "hooks.example.com" in runner("webhook", "show", env=online).stdout
    assert runner("webhook", "delete", env=online).returncode == 0


def test_an_export_without_a_filter_has_no_filter_by_accident(shared: Deployment) -> None:
    """A filter that is not known is refused or means nothing: never a silent selection."""
    headers = {"Authorization": f"Bearer {shared.key('spelled')}"}
    answer = httpx.get(
        f"{shared.url}/v1/audit/export", params={"since": "yesterday"}, headers=headers
    )
    assert answer.status_code == 422
    answer = httpx.get(f"{shared.url}/v1/audit/export", headers=headers, timeout=20)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert json.loads(answer.text.splitlines()[0])["body"]["filter"] is None
