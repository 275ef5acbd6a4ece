"""API keys: within their maker's rights, rotated with an overlap, revoked at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from agent_runner import Client, NotFound, NotPermitted
from runner.quotas.standing import MOST_KEYS
from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing, eventually
from tests.support.routes import UNKNOWN_ID

ANSWER = "a valid API key is needed: `Authorization: Bearer rk_…`"


def make(client: httpx.Client, **wanted: Any) -> dict[str, Any]:
    """Make a key and return the answer."""
    answer = client.post("/v1/keys", json={"name": "k", "role": "developer", **wanted})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def status(shared: Deployment, token: str, path: str = "/v1/executions") -> int:
    """Return the status that a key gets."""
    with bearing(shared.url, token) as client:
        return client.get(path).status_code


def test_a_key_is_shown_once_and_stored_as_a_hash(shared: Deployment) -> None:
    """No listing, log or table holds it afterwards."""
    owner = shared.http("k-shown")
    made = make(owner, name="ci")
    secret = made["token"].split("_", 2)[2]
    listed = owner.get("/v1/keys").text
    assert made["key"]["prefix"] in listed
    assert made["key"]["prefix"] in made["token"]
    logs = "".join(path.read_text() for path in (shared.stack.settings.state_dir / "log").iterdir())
    stored = str(shared.sql("SELECT * FROM api_keys")) + str(
        shared.sql("SELECT body FROM audit_events")
    )
    for text in (listed, logs, stored):
        assert secret not in text


def test_a_key_of_fewer_permissions_has_those_alone(shared: Deployment) -> None:
    """They are some of its role's; a refusal says which one it lacks."""
    made = make(shared.http("k-fewer"), permissions=["execution:read"])
    with bearing(shared.url, made["token"]) as client:
        assert client.get("/v1/executions").status_code == 200
        refused = client.post("/v1/executions", json={"command": ["true"]})
    assert refused.status_code == 403
    assert refused.json()["detail"] == "this key lacks the permission execution:create"


def test_the_sdk_makes_lists_rotates_and_revokes_keys(shared: Deployment) -> None:
    """Each has its limits; a token is returned once, and no repr shows it."""
    owner = shared.client("k-sdk")
    ends = datetime.now(UTC) + timedelta(hours=1)
    made = owner.keys.create(
        "ci", "developer", permissions=["execution:read"], networks=["127.0.0.0/8"], expires_at=ends
    )
    key = made.key
    assert made.token.startswith(f"rk_{key.prefix}_")
    assert made.token not in repr(made)
    assert (key.name, key.role) == ("ci", "developer")
    assert (key.permissions, key.networks) == (("execution:read",), ("127.0.0.0/8",))
    assert key.expires_at is not None
    assert datetime.fromisoformat(key.expires_at) == ends
    with Client(shared.url, made.token) as api:
        assert api.list() == ([], None)
        with pytest.raises(NotPermitted):
            api.keys.create("more", "developer")
    rotated = owner.keys.rotate(key.id, overlap_s=0)
    assert owner.keys.get(key.id).replaced_by == rotated.key.id
    assert (status(shared, made.token), status(shared, rotated.token)) == (401, 200)
    owner.keys.revoke(rotated.key.id)
    assert status(shared, rotated.token) == 401
    first, second, *_ = owner.keys.list()
    assert (first.id, second.id) == (rotated.key.id, key.id)
    assert first.revoked_at is not None
    with pytest.raises(NotFound):
        owner.keys.get(UNKNOWN_ID)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"role": "owner"}, 403),
        ({"role": "admin", "permissions": ["audit:read"]}, 403),
        ({"role": "viewer", "permissions": ["execution:create"]}, 422),
        ({"networks": ["198.51.100.0/24"]}, 422),
        ({"networks": ["127.0.0.1/8"]}, 422),
        ({"expires_at": "2000-01-01T00:00:00Z"}, 422),
        ({"expires_at": "2999-01-01T00:00:00Z"}, 422),
        ({"permissions": ["everything"]}, 422),
        ({"tenant_id": "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"}, 422),
    ],
)
def test_nobody_makes_a_key_that_can_do_more(
    shared: Deployment, wanted: dict[str, Any], expected: int
) -> None:
    """This covers role, permissions, networks and time; an owner without these limits may."""
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    owner = shared.http("k-more")
    admin = make(
        owner, role="admin", permissions=["api_key:write", "api_key:read", "execution:create"],
        networks=["127.0.0.0/8"], expires_at=ends,
    )  # fmt: skip
    with bearing(shared.url, admin["token"]) as client:
        answer = client.post("/v1/keys", json={"name": "k", "role": "developer", **wanted})
        assert answer.status_code == expected, answer.text
        made = make(client)
    assert made["key"]["networks"] == ["127.0.0.0/8"]
    assert made["key"]["permissions"] == ["execution:create"]
    assert datetime.fromisoformat(made["key"]["expires_at"]) == datetime.fromisoformat(ends)


def test_an_admin_does_not_touch_what_can_do_more(shared: Deployment) -> None:
    """An admin cannot rotate an owner's key, which would hand it over, nor revoke it."""
    owner = shared.http("k-above")
    owners_own = owner.get("/v1/keys").json()["items"][0]["id"]
    admin = shared.http("k-above", Role.ADMIN)
    assert admin.post(f"/v1/keys/{owners_own}/rotate", json={}).status_code == 403
    assert admin.delete(f"/v1/keys/{owners_own}").status_code == 403
    whole = make(owner, role="admin")["key"]["id"]
    part = make(owner, role="admin", permissions=["api_key:write"])
    with bearing(shared.url, part["token"]) as client:
        assert client.post(f"/v1/keys/{whole}/rotate", json={}).status_code == 403
    assert admin.post(f"/v1/keys/{whole}/rotate", json={}).status_code == 201


def test_a_rotation_lets_both_work_for_a_while(shared: Deployment) -> None:
    """The new key has the same rights; the old one ends by itself and is not rotated twice."""
    owner = shared.http("k-rotated")
    old = make(owner, permissions=["execution:read"])
    url = f"/v1/keys/{old['key']['id']}/rotate"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: owner.post(url, json={"overlap_s": 2}), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    new = next(answer.json() for answer in answers if answer.status_code == 201)
    assert new["key"]["permissions"] == ["execution:read"]
    assert [status(shared, each["token"]) for each in (old, new)] == [200, 200]
    eventually(lambda: status(shared, old["token"]) == 401, within_s=10)
    assert status(shared, new["token"]) == 200
    assert owner.get(f"/v1/keys/{old['key']['id']}").json()["replaced_by"] == new["key"]["id"]


def test_a_revoked_key_is_over_at_once(shared: Deployment) -> None:
    """This includes a key that revokes itself."""
    owner = shared.http("k-revoked")
    made = make(owner)
    assert status(shared, made["token"]) == 200
    assert owner.delete(f"/v1/keys/{made['key']['id']}").status_code == 204
    assert status(shared, made["token"]) == 401
    own = next(each for each in owner.get("/v1/keys").json()["items"] if each["name"] == "test")
    assert owner.delete(f"/v1/keys/{own['id']}").status_code == 204
    assert owner.get("/v1/keys").status_code == 401


def test_a_revoked_key_is_over_before_what_it_made_is(shared: Deployment) -> None:
    """This holds even if the rest fails; here, a lock delays it."""
    owner = shared.http("k-first")
    made = make(owner, role="admin")
    with bearing(shared.url, made["token"]) as client:
        child = make(client)
    superuser = shared.stack.services.postgres.url("postgres")
    with ThreadPoolExecutor(1) as thread:
        with psycopg.connect(superuser) as locking:
            locking.execute(
                "SELECT 1 FROM api_keys WHERE key_id = %s FOR UPDATE", [child["key"]["id"]]
            )
            revoking = thread.submit(owner.delete, f"/v1/keys/{made['key']['id']}")
            eventually(lambda: status(shared, made["token"]) == 401, within_s=5)
            assert not revoking.done()
        assert revoking.result().status_code == 204
    assert status(shared, child["token"]) == 401


def test_a_tenant_has_a_bounded_number_of_usable_keys(shared: Deployment) -> None:
    """Further ones are refused like any quota; revoking one makes room."""
    owner = shared.http("k-many")
    made = make(owner)
    shared.sql(
        "INSERT INTO api_keys (key_id, tenant_id, prefix, hash, role, name, created_by) "
        "SELECT gen_random_uuid(), tenant_id, 'many' || lpad(n::text, 8, 'a'), "
        "sha256(n::text::bytea), role, 'many', 'user:test' "
        "FROM api_keys, generate_series(1, %s) n WHERE key_id = %s",
        MOST_KEYS - 2,
        made["key"]["id"],
    )
    refused = owner.post("/v1/keys", json={"name": "k", "role": "viewer"})
    assert refused.status_code == 403
    assert refused.json()["type"] == "urn:runner:problem:quota-exceeded"
    told = {"name": "api_keys", "limit": MOST_KEYS, "used": MOST_KEYS}
    assert refused.json()["quota"] == told
    assert owner.delete(f"/v1/keys/{made['key']['id']}").status_code == 204
    make(owner)


def test_an_expired_key_is_over(shared: Deployment) -> None:
    """By the database's clock; instead of waiting for an hour, the test turns the end back."""
    ends = datetime.now(UTC) + timedelta(hours=1)
    made = make(shared.http("k-expired"), expires_at=ends.isoformat())
    assert status(shared, made["token"]) == 200
    shared.sql(
        "UPDATE api_keys SET expires_at = expires_at - interval '1 hour' WHERE key_id = %s",
        made["key"]["id"],
    )
    assert status(shared, made["token"]) == 401


def test_a_key_works_from_its_networks_alone(shared: Deployment) -> None:
    """From other networks, it gets the answer for unknown keys, and its tenant's log says why."""
    owner = shared.http("k-networks")
    here = make(owner, networks=["127.0.0.0/8", "2001:db8::/32"])
    elsewhere = make(owner, networks=["192.0.2.0/24"])
    assert status(shared, here["token"]) == 200
    with bearing(shared.url, elsewhere["token"]) as client:
        refused = client.get("/v1/executions", headers={"X-Forwarded-For": "192.0.2.7"})
    assert (refused.status_code, refused.json()["detail"]) == (401, ANSWER)
    page = owner.get("/v1/audit", params={"action": "authentication:verify"}).json()
    assert page["items"][-1]["record"]["metadata"] == {
        "why": "from a network that it may not be used in"
    }


def test_the_last_use_is_on_record(shared: Deployment) -> None:
    """Never, then now."""
    owner = shared.http("k-used")
    made = make(owner)
    url = f"/v1/keys/{made['key']['id']}"
    assert owner.get(url).json()["last_used_at"] is None
    assert status(shared, made["token"]) == 200
    used = datetime.fromisoformat(owner.get(url).json()["last_used_at"])
    assert abs(datetime.now(UTC) - used) < timedelta(minutes=1)


def test_what_happens_to_keys_is_in_the_log(shared: Deployment) -> None:
    """The log says by whom and to which key, and never holds the key."""
    owner = shared.http("k-logged")
    made = make(owner)
    rotated = owner.post(f"/v1/keys/{made['key']['id']}/rotate", json={}).json()
    owner.delete(f"/v1/keys/{rotated['key']['id']}")
    records = [each["record"] for each in owner.get("/v1/audit").json()["items"]]
    told = [
        (each["action"], each["resource_id"]) for each in records if "api_key" in each["action"]
    ]
    # The key by itself, and then what ended with it: the one whose place it took.
    assert told[-4:] == [
        ("api_key:create", made["key"]["id"]),
        ("api_key:rotate", rotated["key"]["id"]),
        ("api_key:revoke", rotated["key"]["id"]),
        ("api_key:revoke", rotated["key"]["id"]),
    ]
    assert records[-1]["actor"].startswith("key:")
