"""What the operator sees of a deployment over HTTP: the same as by the commands."""

import json
from typing import Any

import httpx
import pytest

from runner.audit import offline
from runner.base.signing import PublicKey
from tests.integration.api.test_operator import TENANTS, make, runner
from tests.support.deployment import Deployment, bearing, eventually

AUDIT = "/operator/v1/audit"
SLOW = ("sleep", "60")


@pytest.fixture(scope="module")
def operator(shared: Deployment) -> httpx.Client:
    """Return an operator's connection."""
    return shared.operator()


def test_the_load_is_what_runner_top_shows(shared: Deployment, operator: httpx.Client) -> None:
    """It has numbers and names of tenants, and nothing that is a tenant's."""
    client = shared.client("ov-load", max_concurrency=1)
    made = [client.submit(command=SLOW) for _ in range(3)]
    eventually(lambda: client.get(made[0].id).state == "running")
    answer = operator.get("/operator/v1/load", params={"limit": 200})
    top = json.loads(runner(shared, "top", "--once", "--json").stdout)
    for each in made:
        client.cancel(each.id)

    def ours(of: dict[str, Any]) -> dict[str, Any]:
        (found,) = [each for each in of["tenants"] if each["tenant"] == "ov-load"]
        return {**found, "ended_last_minute": 0}

    found = answer.json()
    assert ours(found) == ours(top)
    assert (ours(found)["waiting"], ours(found)["active"]) == (2, 1)
    assert [each["node"] for each in found["nodes"]] == [each["node"] for each in top["nodes"]]
    assert made[0].id not in answer.text
    assert "sleep" not in answer.text


def test_the_list_of_the_load_is_bounded(operator: httpx.Client) -> None:
    assert len(operator.get("/operator/v1/load", params={"limit": 1}).json()["tenants"]) <= 1
    for wrong in (0, 201):
        answer = operator.get("/operator/v1/load", params={"limit": wrong})
        assert answer.status_code == 422


def test_health_tells_the_figures_of_the_metrics(
    shared: Deployment, operator: httpx.Client
) -> None:
    client = shared.client("ov-health")
    running = client.submit(command=SLOW)
    eventually(lambda: client.get(running.id).state == "running")
    found = operator.get("/operator/v1/health").json()
    metrics = httpx.get(f"{shared.url}/metrics").text
    client.cancel(running.id)
    assert found["readiness"] == httpx.get(f"{shared.url}/readyz").json()
    assert found["executions"]["running"] >= 1
    assert f'runner_executions{{state="running"}} {found["executions"]["running"]}.0' in metrics
    assert set(found["audit_undelivered_s"]) == {"tenant", "webhook", "syslog"}


@pytest.mark.parametrize("part", ["ov-find", "v-find-", "-find-b"])
def test_tenants_are_found_by_a_part_of_their_name(operator: httpx.Client, part: str) -> None:
    for name in ("ov-find-a", "ov-find-b", "ov-other"):
        if operator.get(TENANTS, params={"name": name}).json()["items"] == []:
            make(operator, name)
    wanted = ["ov-find-b"] if part.endswith("b") else ["ov-find-a", "ov-find-b"]
    seen: list[str] = []
    cursor = None
    while True:
        asked = {"name": part, "limit": "1", **({"cursor": cursor} if cursor else {})}
        page = operator.get(TENANTS, params=asked).json()
        seen += [each["name"] for each in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == wanted


def test_a_part_of_a_name_is_no_pattern(operator: httpx.Client) -> None:
    for part in ("%", "_", "ov.find", "'"):
        assert operator.get(TENANTS, params={"name": part}).json()["items"] == []
    assert operator.get(TENANTS, params={"name": "\0"}).status_code == 422


def test_some_terms_are_changed_and_the_others_stay(
    shared: Deployment, operator: httpx.Client
) -> None:
    """As `runner tenants set` does; null takes a term of its own back."""
    id_, _ = make(
        operator, "ov-terms", tier="free", max_concurrency=3, max_size="small",
        quotas={"queued": 7}, retention_days=9, egress_ceiling=["*.example.com"],
    )  # fmt: skip
    before = operator.get(f"{TENANTS}/{id_}").json()
    changed = operator.patch(f"{TENANTS}/{id_}", json={"tier": "pro"}).json()
    assert changed == {**before, "tier": "pro"}
    changed = operator.patch(
        f"{TENANTS}/{id_}", json={"max_concurrency": None, "max_size": "nano", "reuse": True}
    ).json()
    assert changed["max_concurrency"] is None
    assert changed["max_limits"]["memory_mb"] < before["max_limits"]["memory_mb"]
    kept = ("quotas", "retention_days", "egress_ceiling")
    assert {name: changed[name] for name in kept} == {name: before[name] for name in kept}
    assert operator.patch(f"{TENANTS}/{id_}", json={}).json() == changed
    for wrong in ({"max_size": "gigantic"}, {"quotas": {"queue": 1}}, {"tier": "x"}, {"name": "y"}):
        assert operator.patch(f"{TENANTS}/{id_}", json=wrong).status_code == 422, wrong
    assert operator.get(f"{TENANTS}/{id_}").json() == changed
    set_ = runner(shared, "tenants", "set", "ov-terms", "--tier", "enterprise")
    assert set_.returncode == 0, set_.stderr
    assert operator.get(f"{TENANTS}/{id_}").json() == {**changed, "tier": "enterprise"}


def test_usage_is_what_the_tenant_is_told(shared: Deployment, operator: httpx.Client) -> None:
    id_, token = make(operator, "ov-usage")
    with bearing(shared.url, token) as client:
        body = {"command": ["true"], "size": "nano", "wait_s": 30}
        assert client.post("/v1/executions", json=body).json()["state"] == "succeeded"
        theirs = eventually(
            lambda: (told := client.get("/v1/usage").json())["total"]["attempts"] and told
        )
    told = operator.get(f"{TENANTS}/{id_}/usage").json()
    assert told["total"] == theirs["total"]
    assert {each["name"] for each in told["quotas"]} == {each["name"] for each in theirs["quotas"]}
    assert operator.get(f"{TENANTS}/{id_}/usage", params={"from": "x"}).status_code == 422
    unknown = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"
    assert operator.get(f"{TENANTS}/{unknown}/usage").status_code == 404


def test_the_deployments_log_is_searched_and_verified(
    shared: Deployment, operator: httpx.Client
) -> None:
    """It holds what belongs to no tenant, and no tenant's log is in it."""
    forged = {"Authorization": f"Bearer ro_aaaaaaaaaaaa_{'A' * 43}"}
    assert httpx.get(f"{shared.url}{TENANTS}", headers=forged).status_code == 401
    _, token = make(operator, "ov-audit")
    asked = {"action": "authentication:verify", "order": "newest", "limit": "1"}
    page = operator.get(AUDIT, params=asked).json()
    assert page["items"][0]["record"]["actor"] == "operator:aaaaaaaaaaaa"
    assert operator.get(AUDIT, params={"action": "tenant:create"}).json()["items"] == []
    with bearing(shared.url, token) as tenant:
        assert (
            tenant.get("/v1/audit", params={"actor": "operator:aaaaaaaaaaaa"}).json()["items"] == []
        )
    verdict = operator.get(f"{AUDIT}/verification").json()
    assert verdict["valid"]
    first = operator.get(AUDIT, params={"limit": 1}).json()["items"][0]
    for hash_, valid in ((first["hash"], True), ("0" * 64, False)):
        known = {"seq": first["seq"], "hash": hash_}
        checked = operator.get(f"{AUDIT}/verification", params=known).json()
        assert checked["valid"] is valid


def test_its_export_is_the_one_of_the_command(shared: Deployment, operator: httpx.Client) -> None:
    """It is whole, sealed, and says who has exported it."""
    answer = operator.get(f"{AUDIT}/export")
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    signing = shared.client("ov-export").signing_keys()
    report = offline.verify(lines, tuple(PublicKey(id_, pem) for id_, pem in signing.items()))
    assert report.findings == ()
    exported = json.loads(lines[-2])["record"]
    assert exported["action"] == "audit:export"
    assert exported["actor"].startswith("operator:")
    by_command = runner(shared, "audit", "export", "--platform")
    assert by_command.returncode == 0, by_command.stderr
    assert by_command.stdout.splitlines()[1 : len(lines) - 1] == lines[1:-1]
