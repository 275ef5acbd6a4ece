"""Role by route, against the real API. The table is written by hand: it is the promise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import pytest

from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing
from tests.support.routes import Operation, fetch

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
OPEN = {
    "GET /healthz", "GET /readyz", "GET /metrics", "POST /v1/login", "POST /v1/login/accept",
}  # fmt: skip
OPERATORS = "/operator/"

Send = Callable[[Operation, Role], httpx.Response]


@pytest.fixture(scope="module")
def offered(shared: Deployment) -> list[Operation]:
    """Return what tenants may be able to do."""
    return [
        each for each in fetch(shared.url)
        if not each.path.startswith(OPERATORS) and each.route not in OPEN
    ]  # fmt: skip


def test_every_route_has_a_row(offered: list[Operation]) -> None:
    """One that is new fails here until somebody has promised who may use it."""
    assert {each.route for each in offered} == set(PROMISED)


def broken(offered: list[Operation], send: Send) -> list[str]:
    """Return where the API does something else than was promised, having tried everything."""
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
    """Every role at every route."""
    clients = {role: shared.http("roles", role) for role in Role}
    assert broken(offered, lambda operation, role: operation.send(clients[role])) == []


def test_the_probe_sees_a_route_that_lost_its_check(
    shared: Deployment, offered: list[Operation]
) -> None:
    """The control: were everybody an owner, each row that keeps somebody out would be told."""
    owner = shared.http("roles-control")
    wrong = broken(offered, lambda operation, _: operation.send(owner))
    kept_out = sum(len(ALL - PROMISED[operation.route]) for operation in offered)
    assert len(wrong) == kept_out > 30


def test_the_probe_sees_a_role_that_lost_its_permission(
    shared: Deployment, offered: list[Operation]
) -> None:
    """And the other way: were everybody a viewer, each row that lets more in would be told."""
    viewer = shared.http("roles-control", VIEWER)
    wrong = broken(offered, lambda operation, _: operation.send(viewer))
    let_in = sum(
        len(PROMISED[operation.route]) for operation in offered
        if VIEWER not in PROMISED[operation.route]
    )  # fmt: skip
    assert len(wrong) == let_in > 30


def test_without_a_key_there_is_nothing(shared: Deployment) -> None:
    """Nor with an operator's on tenants' routes, or a tenant's on the operator's."""
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


def test_a_key_of_one_permission_has_that_one(shared: Deployment, offered: list[Operation]) -> None:
    """For each permission: the routes that need it, and no other."""
    owner = shared.http("roles-one")
    needs = {each.route: each.described.get("x-permission") for each in offered}
    assert all(needs.values()), needs
    for permission in {str(needed) for needed in needs.values()}:
        with limited(shared, owner, permission) as client:
            let_in = {each.route for each in offered if not lacking(each.send(client))}
        assert let_in == {route for route, needed in needs.items() if needed == permission}


def lacking(answer: httpx.Response) -> bool:
    """Return whether it was refused for want of the permission; HEAD has no words for it."""
    return answer.status_code == 403 and (
        answer.request.method == "HEAD" or "lacks the permission" in answer.text
    )


@contextmanager
def limited(shared: Deployment, owner: httpx.Client, permission: str) -> Iterator[httpx.Client]:
    """Yield a client whose key has one permission of an owner's."""
    made = owner.post(
        "/v1/keys", json={"name": permission, "role": "owner", "permissions": [permission]}
    )
    assert made.status_code == 201, made.text
    with bearing(shared.url, made.json()["token"]) as client:
        yield client
