"""LibreChat's routes: role by route, other tenants' sessions, and what a key must permit."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from runner.api.edge.groups import Group, group_of
from runner.api.librechat import calling
from runner.api.librechat.paths import PREFIX
from runner.api.librechat.routes import router
from runner.words.principal import Role
from tests.support.deployment import NO_POOL, Deployment, bearing, build_image, deployment

ALL = set(Role)
MAKERS = ALL - {Role.VIEWER}
PROMISED: Mapping[str, set[Role]] = {
    "POST /librechat/exec": MAKERS,
    "POST /librechat/exec/programmatic": MAKERS,
    "POST /librechat/upload": MAKERS,
    "POST /librechat/upload/batch": MAKERS,
    "GET /librechat/files/{session_id}": ALL,
    "GET /librechat/sessions/{session_id}/objects/{file_id}": ALL,
    "GET /librechat/download/{session_id}/{file_id}": ALL,
}
"""Written by people: it is our promise."""
GROUPS: Mapping[str, Group] = {
    "POST /librechat/exec": Group.SUBMIT,
    "POST /librechat/exec/programmatic": Group.SUBMIT,
    "POST /librechat/upload": Group.WRITE,
    "POST /librechat/upload/batch": Group.WRITE,
    "GET /librechat/files/{session_id}": Group.READ,
    "GET /librechat/sessions/{session_id}/objects/{file_id}": Group.READ,
    "GET /librechat/download/{session_id}/{file_id}": Group.READ,
}
ROUTES = [
    (method, route.path)
    for route in (*router.routes, *calling.router.routes)
    if isinstance(route, APIRoute)
    for method in sorted(route.methods or ())
]
NOBODYS = "A" * 21
CANARY = "canary-of-theirs"


@pytest.fixture(scope="module")
def offering(image: None) -> Iterator[Deployment]:
    """Return a deployment whose operator offers it."""
    build_image("librechat")
    with deployment(librechat=True, images=("python", "librechat"), **NO_POOL) as made:
        yield made


@pytest.fixture(scope="module")
def theirs(offering: Deployment) -> dict[str, Any]:
    """Return another tenant's upload."""
    client = offering.http("chat-theirs")
    answer = client.post(f"{PREFIX}upload", files={"file": (f"{CANARY}.txt", CANARY)})
    found: dict[str, Any] = answer.json()
    return found


def send(
    client: httpx.Client, method: str, path: str, session: str = NOBODYS, file_id: str = NOBODYS
) -> httpx.Response:
    """Send a request that its route takes."""
    url = path.format(session_id=session, file_id=file_id)
    if method == "GET":
        return client.get(url)
    if "upload" in path:
        return client.post(url, files={"file": ("a.txt", b"1")})
    refers = {"id": file_id, "name": "a.txt", "session_id": session}
    body = {"lang": "bash", "code": "cat a.txt", "files": [refers]}
    if "programmatic" in path:
        body |= {"lang": "py", "code": "print(open('a.txt').read())", "tools": [{"name": "look"}]}
    return client.post(url, json=body)


def broken(tried: Mapping[Role, httpx.Client]) -> list[str]:
    """Try everything, and return where the API does not do what was promised."""
    wrong = []
    for role, client in tried.items():
        for method, path in ROUTES:
            status = send(client, method, path).status_code
            may = role in PROMISED[f"{method} {path}"]
            if (status == 403) is may or status in {401, 405} or status >= 500:
                wrong.append(f"{role} {method} {path}: {status}")
    return wrong


def test_every_route_has_a_row() -> None:
    """A new route fails here until somebody has decided who may use it, and how often."""
    found = {f"{method} {path}" for method, path in ROUTES}
    assert found == set(PROMISED) == set(GROUPS)
    assert {each: group_of(*each.split(" ")) for each in found} == GROUPS


def test_each_role_may_what_was_promised_and_nothing_else(offering: Deployment) -> None:
    assert broken({role: offering.http("chat-roles", role) for role in Role}) == []


def test_the_probe_sees_a_route_that_lost_its_check(offering: Deployment) -> None:
    """The control: if a viewer were an owner, each row that keeps viewers out would fail."""
    wrong = broken({Role.VIEWER: offering.http("chat-roles")})
    assert len(wrong) == sum(Role.VIEWER not in may for may in PROMISED.values()) == 4


def test_a_stranger_gets_nowhere(offering: Deployment) -> None:
    with httpx.Client(base_url=offering.url, timeout=60) as nobody:
        for method, path in (*ROUTES, ("GET", f"{PREFIX}none")):
            assert send(nobody, method, path).status_code == 401, path


def test_another_tenants_files_are_as_unknown_as_any(
    offering: Deployment, theirs: dict[str, Any]
) -> None:
    """Nothing tells them from what nobody has. The last line is the control."""
    own, file_id = theirs["session_id"], theirs["files"][0]["fileId"]
    with bearing(offering.url, offering.key("chat-ours")) as client:
        for method, path in ROUTES:
            if "upload" in path:
                continue
            known, unknown = (
                send(client, method, path, *each) for each in ((own, file_id), (NOBODYS, NOBODYS))
            )
            assert (known.status_code, known.text) == (unknown.status_code, unknown.text), path
            assert known.status_code == 404, path
    with bearing(offering.url, offering.key("chat-theirs")) as client:
        for method, path in ROUTES:
            assert send(client, method, path, own, file_id).status_code == 200, path


def test_nothing_runs_for_a_key_that_may_not_read_or_keep_what_it_leaves(
    offering: Deployment,
) -> None:
    """Permissions are added one by one; with the last of them it runs, which is the control."""
    owner, permissions = offering.http("chat-blind"), list[str]()
    for more, lacks in (
        ("execution:create", "execution:read"),
        ("execution:read", "file:write"),
        ("file:write", None),
    ):
        permissions.append(more)
        asked = {"name": more, "role": "owner", "permissions": permissions}
        token = owner.post("/v1/keys", json=asked).json()["token"]
        with bearing(offering.url, token) as client:
            client.timeout = httpx.Timeout(180)
            answer = client.post(f"{PREFIX}exec", json={"lang": "bash", "code": "echo 1"})
        if lacks is None:
            assert answer.json()["stdout"] == "1\n", answer.text
        else:
            assert answer.status_code == 403, answer.text
            assert answer.json()["details"] == f"this key lacks the permission {lacks}"
            assert owner.get("/v1/executions").json()["items"] == []


def test_what_runs_and_moves_is_on_record(offering: Deployment) -> None:
    """The audit log names who uploaded, ran, and downloaded."""
    owner = offering.http("chat-audit")
    owner.timeout = httpx.Timeout(180)
    ran = owner.post(f"{PREFIX}exec", json={"lang": "bash", "code": "echo 1 > a.txt"}).json()
    (left,) = ran["files"]
    owner.get(f"{PREFIX}download/{left['session_id']}/{left['id']}")
    records = [each["record"] for each in owner.get("/v1/audit").json()["items"]]
    of_file = [each["action"] for each in records if each["resource_type"] == "file"]
    assert sorted(of_file) == ["file:read", "file:write"]
    assert "execution:submit" in {each["action"] for each in records}
