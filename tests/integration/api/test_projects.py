"""Projects: names that group executions, with settings of their own."""

from tests.support.deployment import Deployment


def test_executions_are_grouped_by_project(shared: Deployment) -> None:
    """A submission names its project, and listings filter by it; deleting it keeps executions."""
    client = shared.http("p-grouped")
    assert client.post("/v1/projects", json={"name": "reports"}).status_code == 201
    body = {"command": ["true"], "size": "nano", "wait_s": 30}
    inside = client.post("/v1/executions", json={**body, "project": "reports"}).json()
    client.post("/v1/executions", json=body)
    listed = client.get("/v1/executions", params={"project": "reports"}).json()["items"]
    assert [(each["id"], each["project"]) for each in listed] == [(inside["id"], "reports")]
    assert client.delete("/v1/projects/reports").status_code == 204
    assert client.get(f"/v1/executions/{inside['id']}").json()["project"] is None


def test_a_project_that_is_not_there_is_refused(shared: Deployment) -> None:
    """The refusal names the field."""
    client = shared.http("p-unknown")
    answer = client.post("/v1/executions", json={"command": ["true"], "project": "nowhere"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.project"


def test_a_project_gives_its_egress_policy_to_what_names_none(shared: Deployment) -> None:
    """A request's own policy has precedence."""
    client = shared.http("p-policy")
    for name in ("narrow", "wide"):
        client.put(f"/v1/egress-policies/{name}", json={"rules": [f"{name}.example.com"]})
    made = {"name": "reports", "egress_policy": "narrow"}
    assert client.post("/v1/projects", json=made).status_code == 201
    body = {"command": ["true"], "project": "reports", "size": "nano"}
    asked = {
        wanted: client.post("/v1/executions", json={**body, **more}).json()["egress_policy"]
        for wanted, more in (("none", {}), ("own", {"egress_policy": "wide"}))
    }
    assert asked == {"none": "narrow", "own": "wide"}


def test_projects_are_made_once_changed_and_paged(shared: Deployment) -> None:
    """They come in the order of their names."""
    client = shared.http("p-paged")
    for name in ("c", "a", "b"):
        assert client.post("/v1/projects", json={"name": name}).status_code == 201
    assert client.post("/v1/projects", json={"name": "a"}).status_code == 409
    changed = client.put("/v1/projects/a", json={"description": "first"})
    assert changed.json()["description"] == "first"
    assert client.put("/v1/projects/d", json={}).status_code == 404
    assert client.put("/v1/projects/a", json={"egress_policy": "no"}).status_code == 422
    page = client.get("/v1/projects", params={"limit": 2}).json()
    rest = client.get("/v1/projects", params={"cursor": page["next_cursor"]}).json()
    assert [each["name"] for each in page["items"] + rest["items"]] == ["a", "b", "c"]
    actions = [each["record"]["action"] for each in client.get("/v1/audit").json()["items"]]
    assert actions.count("project:create") == 3
    assert actions.count("project:update") == 1
