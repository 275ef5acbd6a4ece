"""Templates that are tagged anew, that the operator makes everybody's, and that are too many."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agent_runner import Client, Sandbox
from tests.support import deployment as deployments
from tests.support.deployment import Deployment
from tests.support.templates import build, log

PUBLIC = "/operator/v1/templates"


@pytest.fixture(scope="module")
def made(image: None) -> Iterator[Deployment]:
    """Return a deployment of this module's own."""
    with deployments.deployment() as running:
        yield running


@pytest.fixture(scope="module")
def http(made: Deployment) -> httpx.Client:
    """Return a connection of the tenant with whose key the operator builds."""
    return made.http("platform")


@pytest.fixture(scope="module")
def two(http: httpx.Client) -> list[dict[str, Any]]:
    """Return two builds of one name; the second has its tag."""
    found = [build(http, "shared", {"run": f"echo {n} > /srv/which"}) for n in (1, 2)]
    for each in found:
        assert each["state"] == "ready", (each, log(http, each))
    return found


def which(client: Client, image: str) -> str:
    """Return which build a sandbox of an image was made from, and an execution's as well."""
    ran = client.run(image=image, command="cat /srv/which", size="nano")
    assert ran.stdout is not None, ran
    with client.sandboxes.create(image=image, size="nano") as sandbox:
        found = said(sandbox)
    assert ran.stdout.text == f"{found}\n"
    return found


def said(sandbox: Sandbox) -> str:
    ran = sandbox.run("cat /srv/which")
    assert ran.stdout is not None
    return str(ran.stdout.text).strip()


def test_a_tag_is_moved_back_and_removed(made: Deployment, two: list[dict[str, Any]]) -> None:
    first, second = two
    api = made.client("platform")
    assert which(api, "shared") == "2"
    assert api.templates.tag(first["id"], ["default", "stable"]).tags == ("default", "stable")
    assert which(api, "shared") == which(api, "shared:stable") == "1"
    assert {each.tag: each.template_id for each in api.templates.tags(second["id"])} == {
        "default": first["id"], "stable": first["id"]
    }  # fmt: skip
    api.templates.untag(first["id"], "stable")
    refused = made.http("platform").post("/v1/sandboxes", json={"image": "shared:stable"})
    assert refused.status_code == 422
    api.templates.tag(second["id"], ["default"])
    assert api.templates.get(first["id"]).tags == ()
    for answer in (
        made.http("platform").delete(f"/v1/templates/{first['id']}/tags/default"),
        made.http("stranger").post(f"/v1/templates/{first['id']}/tags", json={"tags": ["x"]}),
        made.http("stranger").get(f"/v1/templates/{first['id']}/tags"),
    ):
        assert answer.status_code == 404


def test_what_the_operator_publishes_every_tenant_uses_and_none_changes(
    made: Deployment, two: list[dict[str, Any]]
) -> None:
    """Another tenant builds on it; its own template of the name comes first."""
    template, operator = two[1], made.operator()
    other, api = made.http("other"), made.client("other")
    use = {"image": "shared", "size": "nano"}
    assert other.post("/v1/sandboxes", json=use).status_code == 422
    tenant = made.sql("SELECT tenant_id::text AS id FROM tenants WHERE name = 'platform'")[0]["id"]
    body = {"tenant_id": tenant, "template_id": template["id"]}
    answer = operator.post(PUBLIC, json=body)
    assert (answer.status_code, answer.json()["image"]) == (201, template["image"])
    (shown,), _ = api.templates.list(public=True)
    assert (shown.id, shown.public, shown.created_by) == (template["id"], True, "operator")
    assert api.templates.list()[0] == []
    assert which(api, "shared") == which(api, template["image"]) == "2"
    for method, path in (
        ("DELETE", ""), ("GET", "/logs"), ("POST", "/tags"), ("DELETE", "/tags/default")
    ):  # fmt: skip
        sent = {"tags": ["mine"]} if method == "POST" else None
        refused = other.request(method, f"/v1/templates/{template['id']}{path}", json=sent)
        assert refused.status_code == 404, path
    kept = made.http("platform").delete(f"/v1/templates/{template['id']}")
    assert (kept.status_code, "everybody's" in kept.json()["detail"]) == (409, True)
    upon = build(other, "upon", {"run": "cp /srv/which /srv/copy"}, base="shared")
    assert upon["state"] == "ready", (upon, log(other, upon))
    assert which(api, "upon") == "2"
    own = build(other, "shared", {"run": "echo own > /srv/which"})
    assert own["state"] == "ready", (own, log(other, own))
    assert which(api, "shared") == "own"
    listed = operator.get(PUBLIC).json()["items"]
    assert [each["template_id"] for each in listed] == [template["id"]]
    assert operator.delete(f"{PUBLIC}/shared/default").status_code == 204
    assert operator.delete(f"{PUBLIC}/shared/default").status_code == 404
    refused = other.post("/v1/sandboxes", json={**use, "image": template["image"]})
    assert refused.status_code == 422
    assert which(api, "upon") == "2"


def test_a_stranger_publishes_nothing(made: Deployment, two: list[dict[str, Any]]) -> None:
    """Only an operator's key does, and only for the tenant that has the template."""
    other = made.sql("SELECT tenant_id::text AS id FROM tenants WHERE name = 'other'")
    body = {"tenant_id": other[0]["id"], "template_id": two[0]["id"]}
    assert made.http("platform").post(PUBLIC, json=body).status_code == 401
    assert made.operator().post(PUBLIC, json=body).status_code == 404


def test_the_operator_publishes_from_the_command_line(
    made: Deployment, two: list[dict[str, Any]]
) -> None:
    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "runner", "templates", "public", *words],
            env={**os.environ, "RUNNER_DATABASE_OPERATOR_URL": made.stack.services.operator_url},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("add", "platform", two[0]["id"], "--tag", "typed")
    assert two[0]["id"] in run("list")
    assert which(made.client("reader"), "shared:typed") == "1"
    run("remove", "shared:typed")
    assert "typed" not in run("list")


def test_a_tenant_has_no_more_templates_than_its_quota(
    made: Deployment, two: list[dict[str, Any]]
) -> None:
    """A refusal names the quota, its value and what is used; it is on record."""
    client = made.http("frugal")
    made.sql("UPDATE tenants SET quotas = %s::jsonb WHERE name = 'frugal'", '{"templates": 1}')
    first = build(client, "one", {"run": "true"})
    assert first["state"] == "ready", (first, log(client, first))
    refused = client.post("/v1/templates", json={"name": "two"})
    quota = {"name": "templates", "limit": 1, "used": 1}
    assert (refused.status_code, refused.json()["quota"]) == (403, quota)
    records = client.get("/v1/audit", params={"limit": 200}).json()["items"]
    told = [(each["record"]["action"], each["record"]["outcome"]) for each in records]
    assert ("template:build", "denied") in told
    made.sql(
        "UPDATE tenants SET quotas = %s::jsonb WHERE name = 'frugal'",
        '{"templates": 2, "template_bytes": 200000}',
    )
    large = build(client, "large", {"run": "head -c 300000 /dev/zero > /srv/large"})
    assert large["state"] == "failed"
    assert "templates take as many bytes as they may" in large["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"size": "gigantic"}, "body.size"),
        ({"limits": {"memory_mb": 10**7}}, "body.limits.memory_mb"),
        ({"egress": ["nowhere.example.invalid:1"]}, "body.egress"),
        ({"egress_policy": "unknown"}, "body.egress_policy"),
    ],
)
def test_a_build_that_could_not_be_made_is_refused_at_once(
    made: Deployment, body: dict[str, Any], field: str
) -> None:
    answer = made.http("refused").post("/v1/templates", json={"name": "x", **body})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"].startswith(field)
    assert made.http("refused").get("/v1/templates").json()["items"] == []
