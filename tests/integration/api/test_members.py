"""Members: invited by token, changed only by higher roles, and one owner always stays."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from runner.auth.caller import By
from runner.store import members as stored_members
from runner.store.db import Database
from runner.tenants import members
from runner.tenants.members import Decider
from runner.words.errors import Conflict
from runner.words.principal import Role
from tests.support.deployment import Deployment, bearing
from tests.support.people import PASSWORD, Person, id_of, joined, operate

OWNER, ADMIN, DEVELOPER, VIEWER = Role


@pytest.fixture(scope="module")
def staff(lasting: Deployment) -> dict[Role, Person]:
    """Return one member of each role."""
    return {role: joined(lasting, "m-staff", f"m-{role}", role) for role in Role}


def give(person: Person, member: str, role: Role) -> int:
    """Return the status of giving somebody a role."""
    return person.http.patch(f"/v1/members/{member}", json={"role": role}).status_code


def test_who_may_give_and_take_which_role(lasting: Deployment, staff: dict[Role, Person]) -> None:
    """The test tries all combinations: an owner may all, an admin lower roles, others nothing."""
    wrong = []
    for actor in Role:
        for target in Role:
            for wanted in Role:
                name = f"m-{actor}-{target}-{wanted}@example.com"
                invited = staff[OWNER].http.post(
                    "/v1/members", json={"email": name, "role": target}
                )
                status = staff[actor].http.post(
                    "/v1/members", json={"email": name, "role": wanted}
                ).status_code  # fmt: skip
                low = {target, wanted} <= {DEVELOPER, VIEWER}
                may = actor is OWNER or (actor is ADMIN and low)
                if status != (201 if may else 403):
                    wrong.append(f"{actor} {target}→{wanted}: {status}")
                assert invited.status_code == 201
    assert wrong == []


def test_members_change_as_the_same_table_says(
    lasting: Deployment, staff: dict[Role, Person]
) -> None:
    """Nobody can change their own role, up or down."""
    ids = {role: id_of(staff[OWNER], person.email) for role, person in staff.items()}
    second = joined(lasting, "m-staff", "m-second", ADMIN)
    assert give(staff[ADMIN], id_of(staff[OWNER], second.email), VIEWER) == 403
    assert give(staff[ADMIN], ids[OWNER], VIEWER) == 403
    assert give(staff[ADMIN], ids[DEVELOPER], ADMIN) == 403
    assert give(staff[ADMIN], ids[DEVELOPER], OWNER) == 403
    for role in (DEVELOPER, VIEWER):
        assert give(staff[role], ids[VIEWER], DEVELOPER) == 403
    for person, role in ((ADMIN, OWNER), (ADMIN, VIEWER), (OWNER, VIEWER)):
        assert give(staff[person], ids[person], role) == 403
    assert give(staff[ADMIN], ids[VIEWER], DEVELOPER) == 200
    assert give(staff[ADMIN], ids[VIEWER], VIEWER) == 200
    assert give(staff[OWNER], ids[ADMIN], DEVELOPER) == 200
    assert staff[ADMIN].http.get("/v1/members").status_code == 403, "from the next request on"
    assert give(staff[OWNER], ids[ADMIN], ADMIN) == 200


def test_a_lower_role_takes_the_keys_that_it_could_not_have_made(lasting: Deployment) -> None:
    """It also takes keys that these keys made; a developer makes none. See tests/security."""
    owner = joined(lasting, "m-keys", "m-keys-owner")
    admin = joined(lasting, "m-keys", "m-keys-admin", ADMIN)
    high = admin.http.post("/v1/keys", json={"name": "high", "role": "admin"}).json()["token"]
    low = admin.http.post("/v1/keys", json={"name": "low", "role": "viewer"}).json()["token"]
    with bearing(lasting.url, high) as client:
        made = client.post("/v1/keys", json={"name": "of-high", "role": "admin"}).json()["token"]

    def works() -> list[bool]:
        found = []
        for token in (high, made, low):
            with bearing(lasting.url, token) as client:
                found.append(client.get("/v1/executions").status_code == 200)
        return found

    assert works() == [True, True, True]
    member = id_of(owner, admin.email)
    assert give(owner, member, DEVELOPER) == 200
    assert works() == [False, False, False]


def test_a_key_with_bounds_makes_no_member_without_them(lasting: Deployment) -> None:
    """The person could do more than the key. The same key without bounds may invite."""
    owner = lasting.http("m-bounds")
    body = {"email": "bound@example.com", "role": "viewer"}
    for bounds, expected in (({"permissions": ["member:write"]}, 403), ({}, 201)):
        made = owner.post("/v1/keys", json={"name": "k", "role": "admin", **bounds}).json()
        with bearing(lasting.url, made["token"]) as client:
            assert client.post("/v1/members", json=body).status_code == expected


def test_an_invitation_is_good_once_until_it_ends_or_is_taken_back(lasting: Deployment) -> None:
    """Used, expired, replaced, withdrawn and invented tokens get the same answer."""
    owner = joined(lasting, "m-once", "m-once-owner")

    def token(email: str) -> str:
        answer = owner.http.post("/v1/members", json={"email": email, "role": "viewer"})
        assert answer.status_code == 201
        return str(answer.json()["token"])

    used, expired = token("used@example.com"), token("expired@example.com")
    replaced, taken_back = token("replaced@example.com"), token("back@example.com")
    assert Person(lasting, "used@example.com").accept(used).status_code == 204
    lasting.sql("UPDATE invitations SET expires_at = now() WHERE email = 'expired@example.com'")
    newest = token("replaced@example.com")
    back = id_of(owner, "back@example.com")
    assert owner.http.delete(f"/v1/members/{back}").status_code == 204
    answers = [
        Person(lasting, "x@example.com").accept(each)
        for each in (used, expired, replaced, taken_back, "ri_" + "A" * 43)
    ]
    assert {(each.status_code, each.json()["detail"]) for each in answers} == {
        (401, "the token is not valid, or the password is not that of this address")
    }
    assert Person(lasting, "replaced@example.com").accept(newest).status_code == 204
    again = owner.http.post("/v1/members", json={"email": "Used@Example.com", "role": "viewer"})
    assert again.status_code == 409, "addresses are compared in one form"


def test_a_token_never_opens_somebody_elses_account(lasting: Deployment) -> None:
    """Whoever is invited at an address with an account has to know that account's password."""
    victim = joined(lasting, "m-victim", "m-victim")
    attacker = joined(lasting, "m-attacker", "m-attacker")
    made = attacker.http.post("/v1/members", json={"email": victim.email, "role": "viewer"})
    thief = Person(lasting, victim.email, "chosen by the attacker now")
    assert thief.accept(made.json()["token"]).status_code == 401
    assert thief.log_in().status_code == 401
    assert victim.log_in("m-victim").status_code == 200
    assert victim.accept(made.json()["token"]).status_code == 204
    assert victim.log_in("m-attacker").json().keys() == {"csrf_token"}
    me = victim.http.get("/v1/me").json()
    assert [each["tenant"] for each in me["memberships"]] == ["m-victim", "m-attacker"]
    assert me["role"] == "viewer"


def test_inviting_tells_nothing_of_accounts(lasting: Deployment) -> None:
    """The answer is the same for addresses with and without an account elsewhere."""
    known = joined(lasting, "m-elsewhere", "m-elsewhere").email
    owner = lasting.http("m-oracle")
    shapes = []
    for email in (known, "m-not-anybody@example.com"):
        answer = owner.post("/v1/members", json={"email": email, "role": "viewer"})
        member = answer.json()["member"]
        shapes.append((answer.status_code, sorted(member), member["status"]))
    assert shapes[0] == shapes[1]


def test_a_weak_password_is_refused(lasting: Deployment) -> None:
    """It is short, common, or made of the address; the invitation stays valid."""
    lasting.key("m-weak")
    token = operate(lasting, "add", "--tenant", "m-weak", "--email", "weakling@example.com")
    for weak in (
        "short",
        "password1234",
        "qwertyuiop12",
        "aaaaaaaaaaaaaaa",
        "weakling@example.com",
    ):
        answer = Person(lasting, "weakling@example.com", weak).accept(token)
        assert answer.status_code == 422, weak
        assert weak not in answer.text
    assert Person(lasting, "weakling@example.com").accept(token).status_code == 204


def test_the_last_owner_stays(lasting: Deployment) -> None:
    """The last owner cannot be removed or demoted, by themselves or by an owner's key."""
    owner = joined(lasting, "m-last", "m-last")
    member = id_of(owner, owner.email)
    by_key = lasting.http("m-last")
    for client in (owner.http, by_key):
        assert client.delete(f"/v1/members/{member}").status_code == 409
    assert by_key.patch(f"/v1/members/{member}", json={"role": "viewer"}).status_code == 409
    second = joined(lasting, "m-last", "m-last-second")
    assert owner.http.delete(f"/v1/members/{member}").status_code == 204
    assert second.http.get("/v1/me").status_code == 200


async def two_at_once(deployment: Deployment, tenant: str) -> list[Any]:
    """Remove both owners of a tenant in two overlapping transactions; return the results."""
    found = deployment.sql(
        "SELECT m.tenant_id, m.user_id FROM memberships m JOIN tenants t USING (tenant_id) "
        "WHERE t.name = %s",
        tenant,
    )
    tenant_id = found[0]["tenant_id"]
    who = Decider(tenant_id, By("system:test"))
    looked = asyncio.Barrier(2)

    async def remove(database: Database, member: Any) -> None:
        async with database.tenant(tenant_id) as tx:
            await tx.one("members.owners")
            await looked.wait()
            await members.remove(tx, who, member)

    async with Database(SecretStr(deployment.stack.services.api_url), max_size=2) as database:
        return await asyncio.gather(
            *(remove(database, each["user_id"]) for each in found), return_exceptions=True
        )


@pytest.mark.parametrize("attempt", range(5))
async def test_two_owners_cannot_remove_each_other_at_once(
    lasting: Deployment, attempt: int
) -> None:
    """The second of two overlapping transactions waits, counts again, and is refused."""
    tenant = f"m-race-{attempt}"
    for name in ("one", "two"):
        await asyncio.to_thread(joined, lasting, tenant, f"{tenant}-{name}")
    came = await two_at_once(lasting, tenant)
    assert sorted(type(each).__name__ for each in came) == ["Conflict", "NoneType"], came
    assert any(isinstance(each, Conflict) for each in came)
    left = lasting.sql(
        "SELECT m.role FROM memberships m JOIN tenants t USING (tenant_id) WHERE t.name = %s",
        tenant,
    )
    assert left == [{"role": "owner"}]


async def test_without_the_lock_both_owners_go(
    lasting: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same two transactions without the lock."""
    for name in ("one", "two"):
        await asyncio.to_thread(joined, lasting, "m-unlocked", f"m-unlocked-{name}")
    counted = asyncio.Barrier(2)

    async def unlocked(_: object) -> None:
        return None

    async def counting(tx: Any) -> int:
        row = await tx.one("members.owners")
        await counted.wait()
        return int(row["owners"])

    monkeypatch.setattr(stored_members, "lock", unlocked)
    monkeypatch.setattr(stored_members, "owners", counting)
    assert await two_at_once(lasting, "m-unlocked") == [None, None]


def test_a_tenant_sees_the_addresses_of_its_members_alone(lasting: Deployment) -> None:
    """It sees no password, even with hand-written SQL and the API's login."""
    joined(lasting, "m-ours", "m-ours")
    joined(lasting, "m-theirs", "m-theirs")
    tenant = lasting.sql("SELECT tenant_id FROM tenants WHERE name = 'm-ours'")[0]["tenant_id"]
    api_url = lasting.stack.services.api_url
    with psycopg.connect(api_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        seen = connection.execute("SELECT email FROM users").fetchall()
        assert seen == [("m-ours@example.com",)]
        for statement in (
            "SELECT password FROM users",
            "SELECT hash FROM sessions",
            "SELECT hash FROM invitations",
            "SELECT * FROM password_resets",
            "UPDATE users SET password = ''",
            "DELETE FROM users",
            "SELECT issue_reset('m-theirs@example.com', '', now())",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
    with psycopg.connect(lasting.stack.services.postgres.url("postgres", "runner")) as connection:
        connection.execute("ALTER TABLE users DISABLE ROW LEVEL SECURITY")
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant)])
        connection.execute("SET LOCAL ROLE runner_api")
        everybody = connection.execute("SELECT email FROM users").fetchall()
        connection.rollback()
    assert ("m-theirs@example.com",) in everybody, "the control: without the policy, all of them"


def test_what_is_done_to_members_is_on_record(lasting: Deployment) -> None:
    """The log says who did what to whom, and holds no token."""
    owner = joined(lasting, "m-log", "m-log")
    made = owner.http.post("/v1/members", json={"email": "m-logged@example.com", "role": "viewer"})
    member = Person(lasting, "m-logged@example.com")
    member.accept(made.json()["token"])
    id_ = id_of(owner, member.email)
    give(owner, id_, DEVELOPER)
    owner.http.delete(f"/v1/members/{id_}")
    listed = owner.http.get("/v1/audit", params={"limit": 100}).json()["items"]
    actions = [each["record"]["action"] for each in listed]
    did = [each for each in actions if each.startswith("member:")]
    assert did == [
        "member:invite", "member:join", "member:invite", "member:join", "member:update",
        "member:remove",
    ]  # fmt: skip
    assert made.json()["token"] not in str(listed)
    assert PASSWORD not in str(listed)


def test_a_token_taken_up_many_times_at_once_is_taken_up_once(lasting: Deployment) -> None:
    """Two invitations of one new address in two tenants make one account."""
    for tenant in ("m-rush", "m-rush-2"):
        lasting.key(tenant)
    email = "m-rush@example.com"
    tokens = [
        operate(lasting, "add", "--tenant", tenant, "--email", email)
        for tenant in ("m-rush", "m-rush-2")
    ]
    people = [Person(lasting, email) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        came = list(
            pool.map(lambda n: people[n].accept(tokens[n % 2]).status_code, range(len(people)))
        )
    assert sorted(set(came)) == [204, 401]
    assert 1 <= came.count(204) <= 2
    found = lasting.sql("SELECT user_id FROM users WHERE email = %s", email)
    assert len(found) == 1
    memberships = lasting.sql("SELECT 1 FROM memberships WHERE user_id = %s", found[0]["user_id"])
    assert len(memberships) == came.count(204)


def test_a_tenant_that_is_deleted_takes_its_people_along(lasting: Deployment) -> None:
    """It takes those who belong to no other tenant, with their sessions."""
    stays = joined(lasting, "m-kept", "m-stays")
    goes = joined(lasting, "m-deleted", "m-goes")
    token = operate(lasting, "add", "--tenant", "m-deleted", "--email", stays.email)
    assert stays.accept(token).status_code == 204
    operator = lasting.operator()
    tenant = lasting.sql("SELECT tenant_id FROM tenants WHERE name = 'm-deleted'")[0]["tenant_id"]
    path = f"/operator/v1/tenants/{tenant}"
    assert operator.post(f"{path}/suspend", json={"why": "test"}).is_success
    removed = operator.delete(path)
    assert removed.is_success, removed.text
    assert removed.json()["rows"]["memberships"] == 2
    assert goes.http.get("/v1/me").status_code == 401
    assert stays.http.get("/v1/me").status_code == 200
    left = lasting.sql("SELECT email FROM users WHERE email IN (%s, %s)", goes.email, stays.email)
    assert left == [{"email": stays.email}]
