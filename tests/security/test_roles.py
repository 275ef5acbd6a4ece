"""Role by route, against the real API. People write the table by hand: it is our promise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing
from tests.support.routes import BY_ADDRESS, Operation, fetch

OWNER, ADMIN, DEVELOPER, VIEWER = Role
ADMINS = {OWNER, ADMIN}
MAKERS = {*ADMINS, DEVELOPER}
ALL = {*MAKERS, VIEWER}

PROMISED: Mapping[str, set[Role]] = {
    "POST /v1/executions": MAKERS,
    "GET /v1/executions": ALL,
    "GET /v1/executions/{execution_id}": ALL,
    "POST /v1/executions/{execution_id}/cancel": MAKERS,
    "GET /v1/executions/{execution_id}/events": ALL,
    "GET /v1/executions/{execution_id}/artifacts": ALL,
    "GET /v1/executions/{execution_id}/artifacts/{path}": ALL,
    "GET /v1/executions/{execution_id}/receipt": ALL,
    "GET /v1/executions/{execution_id}/explanation": ALL,
    "GET /v1/sandboxes": ALL,
    "POST /v1/sandboxes": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}": ALL,
    "PATCH /v1/sandboxes/{sandbox_id}": MAKERS,
    "DELETE /v1/sandboxes/{sandbox_id}": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/metrics": ALL,
    "GET /v1/sandboxes/{sandbox_id}/metrics/series": ALL,
    "GET /v1/sandboxes/{sandbox_id}/events": ALL,
    "GET /v1/sandboxes/{sandbox_id}/receipt": ALL,
    "GET /v1/sandboxes/{sandbox_id}/explanation": ALL,
    "POST /v1/sandboxes/{sandbox_id}/pause": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/resume": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/processes": ALL,
    "POST /v1/sandboxes/{sandbox_id}/processes": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/processes/{process}": ALL,
    "DELETE /v1/sandboxes/{sandbox_id}/processes/{process}": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/processes/{process}/output": ALL,
    "POST /v1/sandboxes/{sandbox_id}/processes/{process}/stdin": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/processes/{process}/signal": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/processes/{process}/resize": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/processes/{process}/terminal": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/contexts": ALL,
    "POST /v1/sandboxes/{sandbox_id}/contexts": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/contexts/{context}": ALL,
    "DELETE /v1/sandboxes/{sandbox_id}/contexts/{context}": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/contexts/{context}/run": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/contexts/{context}/interrupt": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/contexts/{context}/restart": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/files": MAKERS,
    "DELETE /v1/sandboxes/{sandbox_id}/files": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/files/stat": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/files/content": MAKERS,
    "PUT /v1/sandboxes/{sandbox_id}/files/content": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/files/signed": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/files/archive": MAKERS,
    "PUT /v1/sandboxes/{sandbox_id}/files/archive": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/files/folders": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/files/move": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/files/watch": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/ports": ALL,
    "POST /v1/sandboxes/{sandbox_id}/ports/{port}": MAKERS,
    "DELETE /v1/sandboxes/{sandbox_id}/ports/{port}": MAKERS,
    "GET /v1/sandboxes/{sandbox_id}/tcp/{port}": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/snapshots": MAKERS,
    "POST /v1/sandboxes/{sandbox_id}/fork": MAKERS,
    "GET /v1/snapshots": ALL,
    "GET /v1/snapshots/{snapshot_id}": ALL,
    "DELETE /v1/snapshots/{snapshot_id}": MAKERS,
    "GET /v1/templates": ALL,
    "POST /v1/templates": MAKERS,
    "GET /v1/templates/{template_id}": ALL,
    "GET /v1/templates/{template_id}/logs": ALL,
    "GET /v1/templates/{template_id}/tags": ALL,
    "POST /v1/templates/{template_id}/tags": MAKERS,
    "DELETE /v1/templates/{template_id}/tags/{tag}": MAKERS,
    "DELETE /v1/templates/{template_id}": MAKERS,
    "GET /v1/files": ALL,
    "PUT /v1/files/{path}": MAKERS,
    "GET /v1/files/{path}": ALL,
    "HEAD /v1/files/{path}": ALL,
    "DELETE /v1/files/{path}": MAKERS,
    "GET /v1/projects": ALL,
    "POST /v1/projects": ADMINS,
    "GET /v1/projects/{project}": ALL,
    "PUT /v1/projects/{project}": ADMINS,
    "DELETE /v1/projects/{project}": ADMINS,
    "GET /v1/egress-policies": ALL,
    "GET /v1/egress-policies/{name}": ALL,
    "PUT /v1/egress-policies/{name}": ADMINS,
    "DELETE /v1/egress-policies/{name}": ADMINS,
    "GET /v1/secrets": ADMINS,
    "PUT /v1/secrets/{name}": ADMINS,
    "DELETE /v1/secrets/{name}": ADMINS,
    "GET /v1/keys": ADMINS,
    "POST /v1/keys": ADMINS,
    "GET /v1/keys/{key_id}": ADMINS,
    "DELETE /v1/keys/{key_id}": ADMINS,
    "POST /v1/keys/{key_id}/rotate": ADMINS,
    "GET /v1/members": ADMINS,
    "POST /v1/members": ADMINS,
    "PATCH /v1/members/{member_id}": ADMINS,
    "DELETE /v1/members/{member_id}": ADMINS,
    "GET /v1/me": ALL,
    "PUT /v1/me/password": ALL,
    "GET /v1/sessions": ALL,
    "DELETE /v1/sessions/{session_id}": ALL,
    "POST /v1/logout": ALL,
    "GET /v1/audit": ADMINS,
    "GET /v1/audit/verification": ADMINS,
    "GET /v1/audit/export": ADMINS,
    "GET /v1/audit/webhook": ADMINS,
    "PUT /v1/audit/webhook": ADMINS,
    "DELETE /v1/audit/webhook": ADMINS,
    "GET /v1/signing-keys": ALL,
    "GET /v1/usage": ALL,
}
NEED_MORE: Mapping[str, str] = {
    "POST /v1/sandboxes/{sandbox_id}/fork": "sandbox:create",
    "POST /v1/templates": "sandbox:create",
}
"""A permission that a route needs beside its description's: a fork uses the source,
whose files and secrets it copies, and creates sandboxes. A template is built in a sandbox."""
OPEN = {
    "GET /healthz", "GET /readyz", "GET /metrics", "POST /v1/login", "POST /v1/login/accept",
    "GET /v1/login", "GET /v1/login/oidc", "GET /v1/login/oidc/callback",
}  # fmt: skip
OPERATORS = "/operator/"

Send = Callable[[Operation, Role], httpx.Response]


@pytest.fixture(scope="module")
def offered(shared: Deployment) -> list[Operation]:
    """Return the operations that tenants may be able to use."""
    return [
        each for each in fetch(shared.url)
        if not each.path.startswith(OPERATORS) and each.route not in OPEN | BY_ADDRESS
    ]  # fmt: skip


def test_every_route_has_a_row(offered: list[Operation]) -> None:
    """A new route fails here until somebody has decided who may use it."""
    assert {each.route for each in offered} == set(PROMISED)


def broken(offered: list[Operation], send: Send) -> list[str]:
    """Try everything, and return where the API does not do what was promised."""
    wrong = []
    for operation in offered:
        for role in Role:
            status = send(operation, role).status_code
            may = role in PROMISED[operation.route]
            if (status == 403) is may or status in {401, 405} or status >= 500:
                wrong.append(f"{role} {operation.route}: {status}")
    return wrong


def test_each_role_may_what_was_promised_and_nothing_else(
    shared: Deployment, offered: list[Operation]
) -> None:
    """Every role is tried at every route."""
    clients = {role: shared.http("roles", role) for role in Role}
    assert broken(offered, lambda operation, role: operation.send(clients[role])) == []


def test_the_probe_sees_a_route_that_lost_its_check(
    shared: Deployment, offered: list[Operation]
) -> None:
    """The control: if everybody were an owner, each row that keeps somebody out would fail."""
    owner = shared.http("roles-control")
    wrong = broken(offered, lambda operation, _: operation.send(owner))
    kept_out = sum(len(ALL - PROMISED[operation.route]) for operation in offered)
    assert len(wrong) == kept_out > 30


def test_the_probe_sees_a_role_that_lost_its_permission(
    shared: Deployment, offered: list[Operation]
) -> None:
    """The opposite: if everybody were a viewer, each row that lets more in would fail."""
    viewer = shared.http("roles-control", VIEWER)
    wrong = broken(offered, lambda operation, _: operation.send(viewer))
    let_in = sum(
        len(PROMISED[operation.route]) for operation in offered
        if VIEWER not in PROMISED[operation.route]
    )  # fmt: skip
    assert len(wrong) == let_in > 30


def test_without_a_key_there_is_nothing(shared: Deployment) -> None:
    """An operator's key opens no tenant's route, and a tenant's key no operator's."""
    owner, operator = shared.http("roles"), shared.operator()
    tried = 0
    with httpx.Client(base_url=shared.url) as nobody:
        for operation in fetch(shared.url):
            if operation.route in OPEN:
                continue
            stranger = owner if operation.path.startswith(OPERATORS) else operator
            for client in (nobody, stranger):
                answer = operation.send(client)
                assert answer.status_code == 401, operation.route
                assert answer.headers["www-authenticate"] == "Bearer"
                tried += 1
    assert tried >= 70


@pytest.mark.parametrize(
    "every",
    [
        pytest.param(4, id="some others"),
        pytest.param(1, id="all others", marks=pytest.mark.matrix),
    ],
)
def test_a_key_of_one_permission_has_that_one(
    shared: Deployment, offered: list[Operation], every: int
) -> None:
    """For each permission, the key opens the routes that need it, and no others.

    A sample tries a part of the others, which is another one for the next permission.
    """
    owner = shared.http("roles-one")
    needs = {each.route: each.described.get("x-permission") for each in offered}
    assert all(needs.values()), needs
    for turn, permission in enumerate(sorted({str(needed) for needed in needs.values()})):
        tried = [
            each for number, each in enumerate(offered)
            if needs[each.route] == permission or (number + turn) % every == 0
        ]  # fmt: skip
        with limited(shared, owner, permission) as client:
            let_in = {each.route for each in tried if not lacking(each.send(client))}
        assert let_in == {
            route for route, needed in needs.items()
            if needed == permission and route not in NEED_MORE
        }  # fmt: skip
    for route, more in NEED_MORE.items():
        (operation,) = (each for each in offered if each.route == route)
        with limited(shared, owner, more) as client:
            assert lacking(operation.send(client)), route
        with limited(shared, owner, str(needs[route]), more) as client:
            assert not lacking(operation.send(client)), route


def test_output_is_for_keys_that_may_read_it(shared: Deployment) -> None:
    """Neither a submission nor the cancelling of what has ended shows it to others."""
    owner, submission = shared.http("roles-output"), {"command": ["echo", "seen"], "wait_s": 60}
    ran = owner.post("/v1/executions", json=submission).json()
    assert ran["result"]["stdout"]["content"] == "seen\n", "the control"
    read = "execution:read"
    for needed, path, body in (
        ("execution:create", "", submission),
        ("execution:cancel", f"/{ran['id']}/cancel", None),
    ):
        for permissions in ([needed], [needed, read]):
            with limited(shared, owner, *permissions) as client:
                result = client.post(f"/v1/executions{path}", json=body).json()["result"]
            hidden = read not in permissions
            assert (result["stdout"] is None) is hidden, permissions
            assert (result["artifacts"] is None) is hidden, permissions


def lacking(answer: httpx.Response) -> bool:
    """Return whether the permission was missing; HEAD has no body that says so."""
    return answer.status_code == 403 and (
        answer.request.method == "HEAD" or "lacks the permission" in answer.text
    )


@contextmanager
def limited(shared: Deployment, owner: httpx.Client, *permissions: str) -> Iterator[httpx.Client]:
    """Yield a client whose key has only these of an owner's permissions."""
    asked = {"name": permissions[0], "role": "owner", "permissions": permissions}
    made = owner.post("/v1/keys", json=asked)
    assert made.status_code == 201, made.text
    with bearing(shared.url, made.json()["token"]) as client:
        yield client
