"""Snapshots, copies and measures by E2B's control plane, and what there is not."""

from collections.abc import Iterator

import httpx
import pytest

from runner.api.e2b.unsupported import REASONS
from tests.support.deployment import Deployment, eventually
from tests.support.e2b import control, create, within
from tests.support.routes import UNKNOWN_ID


@pytest.fixture(scope="module")
def client(deployed: Deployment) -> Iterator[httpx.Client]:
    """Return a client of the tenant whose sandboxes these tests use."""
    made = control(deployed, "e2b-copies")
    yield made
    for each in made.get("/v2/sandboxes").json():
        made.delete(f"/sandboxes/{each['sandboxID']}")


def test_a_snapshot_is_a_template(deployed: Deployment, client: httpx.Client) -> None:
    """It is taken, listed by its sandbox and name, made a sandbox of, and deleted once."""
    id_ = create(client, timeout=600)["sandboxID"]
    refused = client.post(f"/sandboxes/{id_}/snapshots", json={"memory": True})
    assert refused.status_code == 400
    kept = client.post(f"/sandboxes/{id_}/snapshots", json={"name": "first", "memory": False})
    assert kept.status_code == 201, kept.text
    snapshot = kept.json()["snapshotID"]
    assert kept.json()["names"] == ["first"]
    second = client.post(f"/sandboxes/{id_}/snapshots", json={}).json()["snapshotID"]
    for query, found in (
        ({}, [second, snapshot]),
        ({"sandboxID": id_}, [second, snapshot]),
        ({"sandboxID": UNKNOWN_ID}, []),
        ({"name": "first"}, [snapshot]),
    ):
        listed = client.get("/snapshots", params=query).json()
        assert [each["snapshotID"] for each in listed] == found, query
    page = client.get("/snapshots", params={"limit": 1})
    token = page.headers["x-next-token"]
    rest = client.get("/snapshots", params={"limit": 1, "nextToken": token})
    assert [each["snapshotID"] for each in rest.json()] == [snapshot]
    assert "x-next-token" not in rest.headers
    alias = client.get(f"/templates/aliases/{snapshot}").json()
    assert alias == {"templateID": snapshot, "public": False}
    # No sandbox records from which snapshot it was made: an empty list would be a lie.
    told = client.get("/v2/sandboxes", params={"template": snapshot})
    assert (told.status_code, "is a snapshot" in told.json()["message"]) == (400, True), told.text
    again = create(client, templateID=f"{snapshot}:default", timeout=60)
    assert within(deployed, again).get("/health").status_code == 204
    assert client.delete(f"/templates/{snapshot}").status_code == 204
    for path in (snapshot, "base", UNKNOWN_ID):
        assert client.delete(f"/templates/{path}").status_code == 404
    stranger = control(deployed, "e2b-copies-other")
    assert stranger.delete(f"/templates/{second}").status_code == 404
    unknown = stranger.post("/v2/sandboxes", json={"templateID": second})
    assert unknown.status_code in {400, 404}


def test_a_fork_answers_for_each_copy(deployed: Deployment, client: httpx.Client) -> None:
    """Each has a token of its own."""
    made = create(client, timeout=600, metadata={"of": "fork"})
    forked = client.post(f"/sandboxes/{made['sandboxID']}/fork", json={"count": 2, "timeout": 90})
    assert forked.status_code == 201, forked.text
    copies = [each["sandbox"] for each in forked.json()]
    assert len({made["sandboxID"], *(each["sandboxID"] for each in copies)}) == 3
    for each in copies:
        assert within(deployed, each).get("/health").status_code == 204
        assert client.get(f"/sandboxes/{each['sandboxID']}").json()["metadata"] == {"of": "fork"}


def test_what_sandboxes_use_is_measured(client: httpx.Client) -> None:
    """One by itself, and many at once; what does not run is left out."""
    id_ = create(client, timeout=600)["sandboxID"]
    found = eventually(lambda: client.get(f"/sandboxes/{id_}/metrics").json())
    last = found[-1]
    assert last["cpuCount"] >= 1
    assert 0 < last["memUsed"] < last["memTotal"]
    assert last["cpuUsedPct"] >= 0
    at = last["timestampUnix"]
    later = client.get(f"/sandboxes/{id_}/metrics", params={"start": at + 3600}).json()
    assert later == []
    many = client.get("/sandboxes/metrics", params={"sandbox_ids": f"{id_},{UNKNOWN_ID}"})
    assert list(many.json()["sandboxes"]) == [id_]
    assert client.get("/sandboxes/metrics", params={"sandbox_ids": "x"}).status_code == 400


def test_the_network_is_what_was_asked_for(client: httpx.Client) -> None:
    """Names become rules; what cannot be one is refused by name, and nothing changes."""
    id_ = create(client, timeout=600, network={"allowOut": ["example.com"]})["sandboxID"]
    shown = client.get(f"/sandboxes/{id_}").json()
    assert shown["network"] == {"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}
    change = {"allowOut": ["*.example.org", "a.example"], "denyOut": ["0.0.0.0/0"]}
    assert client.put(f"/sandboxes/{id_}/network", json=change).status_code == 204
    after = client.get(f"/sandboxes/{id_}").json()["network"]["allowOut"]
    assert after == ["*.example.org", "a.example"]
    for body, message in (
        ({"allowOut": ["192.0.2.0/24"]}, "more than one address"),
        ({"allowOut": ["192.0.2.1/32"]}, "does not let this tenant reach 192.0.2.1"),
        ({"allowOut": ["0.0.0.0/0"]}, "no egress policy named 'internet'"),
        ({"allow_internet_access": True}, "no egress policy named 'internet'"),
        ({"rules": {"a.example": []}}, "body.rules: is not supported here"),
        ({"dnsServers": ["192.0.2.1"]}, "body.dnsServers: is not supported here"),
        (
            {"egressProxy": {"address": "192.0.2.1:1"}},
            "body.egressProxy: is not supported here",
        ),
        ({"denyOut": ["example.com"]}, "neither an address nor a network"),
    ):
        refused = client.put(f"/sandboxes/{id_}/network", json=body)
        assert refused.status_code == 400, (body, refused.text)
        assert message in refused.json()["message"], body
    assert client.get(f"/sandboxes/{id_}").json()["network"]["allowOut"] == after


def test_a_tenant_opens_internet_access_by_a_policy(deployed: Deployment) -> None:
    """The policy says what it means; a sandbox may still be made without."""
    owner, client = deployed.http("e2b-internet"), control(deployed, "e2b-internet")
    policy = {"rules": ["files.example.com"]}
    assert owner.put("/v1/egress-policies/internet", json=policy).is_success
    for asked, reached in (
        ({}, ["files.example.com"]),
        ({"allow_internet_access": True}, ["files.example.com"]),
        ({"allow_internet_access": False}, []),
        ({"network": {"denyOut": ["0.0.0.0/0"]}}, []),
        ({"network": {"allowOut": ["a.example"], "denyOut": ["0.0.0.0/0"]}}, ["a.example"]),
    ):
        id_ = create(client, timeout=60, **asked)["sandboxID"]
        shown = client.get(f"/sandboxes/{id_}").json()
        assert shown["network"]["allowOut"] == reached, asked
        assert client.delete(f"/sandboxes/{id_}").status_code == 204
    beside = {"templateID": "base", "network": {"denyOut": ["192.0.2.1"]}}
    assert client.post("/v2/sandboxes", json=beside).status_code == 400


@pytest.mark.parametrize("path", REASONS)
def test_what_there_is_not_is_refused_by_name(path: str, client: httpx.Client) -> None:
    """The answer says what to do instead; a stranger is told nothing."""
    at = path.replace("{sandbox_id}", UNKNOWN_ID).replace("{rest:path}", "x/y")
    refused = client.get(at)
    assert refused.status_code == 501
    assert refused.json() == {"code": 501, "message": f"not supported here: {REASONS[path]}"}
    assert httpx.get(f"{client.base_url}".rstrip("/") + at).status_code == 401
