"""Role by route, and other tenants' ids at every route, for E2B's interface."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
import pytest

from runner.api.e2b.paths import Part
from runner.auth import keys
from runner.auth.sandbox_tokens import Use, _token
from runner.secrets.keyring import KeyFile
from runner.words.principal import Role
from tests.support.deployment import Deployment
from tests.support.e2b import create, knowing, within
from tests.support.e2b_routes import TheirRoute, supported
from tests.support.routes import UNKNOWN_ID

ALL = set(Role)
MAKERS = ALL - {Role.VIEWER}
PROMISED: Mapping[str, set[Role]] = {
    "POST /sandboxes": MAKERS,
    "POST /v2/sandboxes": MAKERS,
    "GET /sandboxes": ALL,
    "GET /v2/sandboxes": ALL,
    "GET /sandboxes/metrics": ALL,
    "GET /sandboxes/{sandbox_id}": ALL,
    "GET /sandboxes/{sandbox_id}/metrics": ALL,
    "DELETE /sandboxes/{sandbox_id}": MAKERS,
    "POST /sandboxes/{sandbox_id}/connect": MAKERS,
    "POST /v2/sandboxes/{sandbox_id}/connect": MAKERS,
    "POST /sandboxes/{sandbox_id}/resume": MAKERS,
    "POST /sandboxes/{sandbox_id}/timeout": MAKERS,
    "POST /sandboxes/{sandbox_id}/refreshes": MAKERS,
    "POST /sandboxes/{sandbox_id}/pause": MAKERS,
    "PUT /sandboxes/{sandbox_id}/network": MAKERS,
    "POST /sandboxes/{sandbox_id}/snapshots": MAKERS,
    "POST /sandboxes/{sandbox_id}/fork": MAKERS,
    "GET /snapshots": ALL,
    "POST /v3/templates": MAKERS,
    "GET /templates/{template_id}/files/{files_hash}": MAKERS,
    "POST /v2/templates/{template_id}/builds/{build_id}": MAKERS,
    "GET /templates/{template_id}/builds/{build_id}/status": ALL,
    "POST /templates/tags": MAKERS,
    "DELETE /templates/tags": MAKERS,
    "GET /templates/{named}/tags": ALL,
    "DELETE /templates/{template}": MAKERS,
    "GET /templates/aliases/{alias}": ALL,
}
"""Written by people: it is our promise. Inside a sandbox, everything is for makers."""
UNMADE = {"POST /sandboxes", "POST /v2/sandboxes", "GET /templates/aliases/{alias}"}
"""Routes that name a template of the deployment, which every tenant sees."""

IDS = {
    "sandbox_id": "sandboxID",
    "template": "snapshotID",
    "template_id": "templateID",
    "named": "templateID",
}
BESIDE = {"build_id", "files_hash"}
"""Parameters beside the id of what they belong to."""

CONTROL = [each for each in supported() if each.part is Part.CONTROL]
INSIDE = [each for each in supported() if each.part is Part.INSIDE]


@pytest.fixture(scope="module")
def tokens(deployed: Deployment) -> dict[Role, str]:
    """Return a key of each role, of one tenant."""
    return {role: deployed.key("e2b-roles", role) for role in Role}


@pytest.fixture(scope="module")
def made(deployed: Deployment, tokens: dict[Role, str]) -> dict[str, Any]:
    """Return a sandbox of that tenant."""
    with knowing(deployed, tokens[Role.OWNER]) as owner:
        return create(owner, timeout=3000)


@pytest.fixture(scope="module")
def theirs(deployed: Deployment) -> dict[str, Any]:
    """Return a sandbox of another tenant, with a snapshot of it."""
    with knowing(deployed, deployed.key("e2b-roles-theirs")) as owner:
        answer = create(owner, timeout=3000, metadata={"of": "theirs"})
        kept = owner.post(f"/sandboxes/{answer['sandboxID']}/snapshots", json={}).json()
        waits = owner.post("/v3/templates", json={"name": "theirs"}).json()
        return {
            **answer, "snapshotID": kept["snapshotID"], "templateID": waits["templateID"]
        }  # fmt: skip


def forged(deployed: Deployment, sandbox_id: str, key: str) -> str:
    """Return a token as the API would make it for this key, if it made one."""
    ring = KeyFile(deployed.stack.settings.secrets_key_path)
    prefix = keys.prefix_of(key) or ""
    return _token(Use.INSIDE, ring.derive(Use.INSIDE.purpose)[0], UUID(sandbox_id), prefix)


def test_every_route_has_a_row() -> None:
    """A new route fails here until somebody has decided who may use it."""
    assert {each.name for each in CONTROL} == set(PROMISED)
    assert len(INSIDE) > 20


def test_each_role_may_what_was_promised_and_nothing_else(
    deployed: Deployment, tokens: dict[Role, str]
) -> None:
    """Every role is tried at every route of the control plane."""
    assert broken(deployed, tokens) == []


def broken(deployed: Deployment, tokens: Mapping[Role, str]) -> list[str]:
    """Try everything, and return where the API does not do what was promised."""
    wrong = []
    for role, token in tokens.items():
        with knowing(deployed, token) as client:
            for each in CONTROL:
                status = each.send(client).status_code
                may = role in PROMISED[each.name]
                if (status == 403) is may or status in {401, 405} or status >= 500:
                    wrong.append(f"{role} {each.name}: {status}")
    return wrong


def test_the_probe_sees_a_route_that_lost_its_check(
    deployed: Deployment, tokens: dict[Role, str]
) -> None:
    """The control: if a viewer were an owner, each row that keeps viewers out would fail."""
    wrong = broken(deployed, {Role.VIEWER: tokens[Role.OWNER]})
    assert len(wrong) == sum(Role.VIEWER not in may for may in PROMISED.values()) > 10


@pytest.mark.parametrize("each", INSIDE, ids=lambda each: each.name)
def test_a_token_of_a_viewer_does_nothing_inside(
    each: TheirRoute, deployed: Deployment, tokens: dict[Role, str], made: dict[str, Any]
) -> None:
    """Nobody gives it one, so the test makes it; the same for a developer is not refused."""
    answers = []
    for role in (Role.VIEWER, Role.DEVELOPER):
        token = forged(deployed, made["sandboxID"], tokens[role])
        client = within(deployed, {**made, "envdAccessToken": token})
        answers.append(each.send(client))
    assert answers[0].status_code == 403
    assert "lacks the permission" in answers[0].text
    assert "lacks the permission" not in answers[1].text
    assert answers[1].status_code not in {401, 502}


@pytest.mark.parametrize("each", INSIDE, ids=lambda each: each.name)
def test_a_token_does_nothing_in_another_sandbox(
    each: TheirRoute, deployed: Deployment, made: dict[str, Any], theirs: dict[str, Any]
) -> None:
    """Another tenant's sandbox is as unknown as nobody's; without a token there is nothing."""
    answers = []
    for other in (theirs["sandboxID"], UNKNOWN_ID):
        answer = each.send(within(deployed, {**made, "sandboxID": other}))
        answers.append((answer.status_code, answer.text.replace(other, "X")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 502
    with httpx.Client(base_url=deployed.url, headers={"E2b-Sandbox-Id": UNKNOWN_ID}) as nobody:
        assert each.send(nobody).status_code == 401


def test_another_tenants_things_are_as_unknown_as_any(
    deployed: Deployment, tokens: dict[Role, str], theirs: dict[str, Any]
) -> None:
    """Nothing tells them from what nobody has, and nothing of theirs changes."""
    before = state(deployed)
    with knowing(deployed, tokens[Role.OWNER]) as client:
        for each in CONTROL:
            if not each.names or each.name in UNMADE:
                continue
            (name,) = set(each.names) - BESIDE
            own = theirs[IDS[name]]
            answers = []
            for value in (own, UNKNOWN_ID):
                answer = each.send(client, **{name: value})
                answers.append((answer.status_code, answer.text.replace(value, "X")))
            assert answers[0] == answers[1], each.name
            assert answers[0][0] == 404, each.name
    assert state(deployed) == before


def state(deployed: Deployment) -> list[dict[str, Any]]:
    """Return what there is of the other tenant."""
    return deployed.sql(
        "SELECT s.sandbox_id, s.state, s.egress, s.timeout_s, s.metadata, "
        "(SELECT count(*) FROM snapshots n WHERE n.tenant_id = s.tenant_id) AS kept, "
        "(SELECT string_agg(m.state, '') FROM templates m WHERE m.tenant_id = s.tenant_id) AS m, "
        "(SELECT count(*) FROM sandbox_holders h WHERE h.tenant_id = s.tenant_id) AS holders "
        "FROM sandboxes s JOIN tenants t USING (tenant_id) WHERE t.name = 'e2b-roles-theirs'"
    )
