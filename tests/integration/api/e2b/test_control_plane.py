"""E2B's control plane over HTTP, as their specification describes it."""

import httpx

from tests.support.deployment import PORTS_DOMAIN, Deployment
from tests.support.e2b import control, create, within


def test_a_sandbox_from_create_to_kill(deployed: Deployment) -> None:
    """It is made, read, listed, timed, paused, connected to, and killed once."""
    client = control(deployed, "e2b-life")
    made = create(client, metadata={"user": "a b&c"}, timeout=60)
    id_ = made["sandboxID"]
    assert made["domain"] == PORTS_DOMAIN
    assert made["envdVersion"] >= "0.5"
    read = client.get(f"/sandboxes/{id_}").json()
    assert (read["state"], read["metadata"]) == ("running", {"user": "a b&c"})
    assert read["lifecycle"] == {"autoResume": False, "onTimeout": "kill"}
    quoted = {"metadata": "user=a%2520b%2526c"}
    for query, found in (
        ({"template": "base"}, [id_]),
        ({"template": "python"}, []),
        ({"startedAfter": "2020-01-01T00:00:00Z"}, [id_]),
        ({"startedAfter": "2999-01-01T00:00:00+00:00"}, []),
    ):
        listed = client.get("/v2/sandboxes", params=query).json()
        assert [each["sandboxID"] for each in listed] == found, query
    assert client.get("/v2/sandboxes", params={"order": "sideways"}).status_code == 400
    for path in ("/sandboxes", "/v2/sandboxes"):
        assert [each["sandboxID"] for each in client.get(path, params=quoted).json()] == [id_]
    assert client.post(f"/sandboxes/{id_}/timeout", json={"timeout": 900}).status_code == 204
    later = client.get(f"/sandboxes/{id_}").json()["endAt"]
    assert later > read["endAt"]
    # What is longer already stays.
    assert client.post(f"/v2/sandboxes/{id_}/connect", json={"timeout": 30}).status_code == 200
    assert client.get(f"/sandboxes/{id_}").json()["endAt"] == later
    inside = within(deployed, made)
    assert inside.get("/health").status_code == 204
    assert client.post(f"/sandboxes/{id_}/pause", json={"memory": True}).status_code == 204
    assert client.post(f"/sandboxes/{id_}/pause").status_code == 409
    gone = {"sandboxId": id_, "message": "The sandbox was not found", "code": 502}
    assert inside.get("/health").json() == gone
    states = {"state": "paused"}
    assert [each["state"] for each in client.get("/v2/sandboxes", params=states).json()] == [
        "paused"
    ]
    connected = client.post(f"/v2/sandboxes/{id_}/connect", json={"timeout": 60})
    assert connected.status_code == 201
    assert connected.json()["envdAccessToken"] == made["envdAccessToken"]
    assert inside.get("/health").status_code == 204
    assert client.delete(f"/sandboxes/{id_}").status_code == 204
    for answer in (client.delete(f"/sandboxes/{id_}"), client.get(f"/sandboxes/{id_}")):
        assert answer.status_code == 404
        assert answer.json() == {"code": 404, "message": "no such sandbox"}
    refused = inside.get("/health")
    assert (refused.status_code, refused.json()) == (502, gone)


def test_a_list_has_pages(deployed: Deployment) -> None:
    """The header names the next page until there is none; newest first."""
    client = control(deployed, "e2b-pages")
    made = [create(client, timeout=60)["sandboxID"] for _ in range(3)]
    found: list[str] = []
    token: dict[str, str] = {}
    while True:
        page = client.get("/v2/sandboxes", params={"limit": 2, **token})
        found += [each["sandboxID"] for each in page.json()]
        if "x-next-token" not in page.headers:
            break
        token = {"nextToken": page.headers["x-next-token"]}
    assert found == made[::-1]


def test_what_is_refused_says_so_in_their_shape(deployed: Deployment) -> None:
    """A status that their clients know, a code and a message; nothing is ignored."""
    client = control(deployed, "e2b-refused")
    cases = {
        "unknown template": ({"templateID": "nobodys"}, 404, "there is no template 'nobodys'"),
        "unknown field": ({"templateID": "base", "gpu": 1}, 400, "body.gpu"),
        "volumes": (
            {"templateID": "base", "volumeMounts": [{"name": "v", "path": "/v"}]},
            400, "not supported here: there are no volumes",
        ),
        "mcp": ({"templateID": "base", "mcp": {"x": {}}}, 400, "body.mcp: is not supported here"),
        "no memory": ({"templateID": "base", "autoPauseMemory": False}, 400, "keeps its memory"),
        "internet": (
            {"templateID": "base", "allow_internet_access": True}, 400, "no egress policy",
        ),
    }  # fmt: skip
    for name, (body, status, message) in cases.items():
        refused = client.post("/v2/sandboxes", json=body)
        assert refused.status_code == status, (name, refused.text)
        said = refused.json()
        assert said["code"] == status, name
        assert message in said["message"], name
    # Clients of the first version say that they want internet access unless they were told not to.
    first = client.post("/sandboxes", json={"templateID": "base", "allow_internet_access": True})
    assert first.status_code == 201, first.text
    detail = client.get(f"/sandboxes/{first.json()['sandboxID']}").json()
    assert detail["allowInternetAccess"] is False
    unknown = client.get("/v2/sandboxes", params={"color": "red"})
    assert (unknown.status_code, unknown.json()["code"]) == (400, 400)
    with httpx.Client(base_url=deployed.url) as stranger:
        refused = stranger.get("/sandboxes")
    assert (refused.status_code, refused.json()["code"]) == (401, 401)
