"""Logging in and out: one answer, sessions that end, and nothing by cookie from elsewhere."""

import re
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, bearing, eventually
from tests.support.people import PASSWORD, Person, joined, operate

TABLES = ("users", "sessions", "invitations", "password_resets", "audit_events", "memberships")
NOT_HERS = "not the password of zoe"
ANSWER = "address, password or tenant is wrong"


@pytest.fixture(scope="module")
def site(image: None) -> Iterator[Deployment]:
    """Return a deployment with plain HTTP for sessions and short ones, on this host alone."""
    with deployments.deployment(
        insecure_cookies=True, session_idle_s=4, session_max_s=9, **NO_POOL
    ) as made:
        yield made


def cookie(person: Person) -> str:
    """Return the session id that the browser keeps."""
    return str(person.http.cookies["runner_session"])


def said(answer: httpx.Response) -> tuple[int, Any]:
    """Return an answer without the parts that always differ."""
    return answer.status_code, {**answer.json(), "instance": ""}


def audited(deployment: Deployment, action: str) -> list[dict[str, Any]]:
    """Return the records of an action, oldest first."""
    return deployment.sql(
        "SELECT actor, outcome, body::jsonb -> 'metadata' AS metadata FROM audit_events "
        "WHERE action = %s ORDER BY at",
        action,
    )


def test_an_owner_joins_logs_in_and_may_what_owners_may(lasting: Deployment) -> None:
    """The test goes from the operator's command to a request by cookie, which the log names."""
    ada = joined(lasting, "l-first", "ada")
    me = ada.http.get("/v1/me").json()
    assert (me["kind"], me["email"], me["tenant"], me["role"]) == (
        "user", "ada@example.com", "l-first", "owner",
    )  # fmt: skip
    assert me["csrf_token"] == ada.http.headers["X-CSRF-Token"]
    assert ada.http.get("/v1/executions").status_code == 200
    made = ada.http.post("/v1/keys", json={"name": "ada's", "role": "developer"}).json()
    assert made["key"]["created_by"] == f"user:{me['name']}"


def test_nothing_that_opens_is_stored_or_logged(lasting: Deployment) -> None:
    """No password, session, CSRF token or invitation is; the password is hashed with argon2id."""
    eve = joined(lasting, "l-stored", "stored")
    token = operate(lasting, "add", "--tenant", "l-stored", "--email", "later@example.com")
    stored = "".join(
        str(lasting.sql(f"SELECT t::text FROM {each} t"))  # noqa: S608 - the names above
        for each in TABLES
    )
    logs = (lasting.stack.settings.state_dir / "log").iterdir()
    stored += "".join(path.read_text() for path in logs)
    for secret in (PASSWORD, cookie(eve), eve.http.headers["X-CSRF-Token"], token):
        assert secret not in stored
    assert "later@example.com" in stored
    assert re.search(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$", stored)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(shared: Deployment) -> None:
    """By default, it has the prefix that only TLS can set (RFC 6265bis 4.1.3.2)."""
    bea = Person(shared, "bea@example.com")
    shared.key("l-cookie")
    token = operate(shared, "add", "--tenant", "l-cookie", "--email", bea.email)
    assert bea.accept(token).status_code == 204
    written = bea.log_in().headers["set-cookie"]
    name, _, attributes = written.partition("=")
    assert name == "__Host-runner_session"
    parts = {part.strip().lower() for part in attributes.split(";")[1:]}
    assert parts == {"httponly", "secure", "samesite=strict", "path=/", "max-age=43200"}


def test_each_login_has_an_id_of_its_own_and_ends_the_one_it_came_with(
    lasting: Deployment,
) -> None:
    """There is no fixation: an id from before the login is invalid afterwards."""
    kim = joined(lasting, "l-fixation", "fixation")
    before = cookie(kim)
    assert kim.log_in().status_code == 200
    assert cookie(kim) != before
    planted = "A" * 43
    for dead in (before, planted):
        answer = httpx.get(f"{lasting.url}/v1/me", headers={"Cookie": f"runner_session={dead}"})
        assert answer.status_code == 401
    kim.http.cookies.set("runner_session", planted)
    assert kim.log_in().status_code == 200
    assert planted not in {each.value for each in kim.http.cookies.jar if each.expires}


def test_a_session_ends_unused_at_its_end_and_by_logout(site: Deployment) -> None:
    """It ends after 4 s idle, after 9 s in any case, and at once when its user logs out.

    What a page asks by itself while nobody is at it does not keep it alive.
    """
    idle, busy, left, leaver = (
        joined(site, "l-ends", name) for name in ("idle", "busy", "left", "leaver")
    )
    kept = cookie(leaver)
    assert leaver.http.post("/v1/logout").status_code == 204
    again = httpx.get(f"{site.url}/v1/me", headers={"Cookie": f"runner_session={kept}"})
    assert again.status_code == 401
    idle.log_in(), busy.log_in(), left.log_in()
    began = time.monotonic()
    lasted = {"busy": 0.0, "left": 0.0}
    asking = {
        "busy": lambda: busy.http.get("/v1/me"),
        "left": lambda: left.http.get("/v1/me", headers={"X-Runner-Unattended": "1"}),
    }
    while asking:
        for name in list(asking):
            before = time.monotonic() - began
            if asking[name]().status_code == 200:
                lasted[name] = before
            else:
                del asking[name]
        time.sleep(0.5)
        assert time.monotonic() - began < 30
    assert lasted["left"] < 4.5
    assert lasted["busy"] > 5
    assert idle.http.get("/v1/me").status_code == 401


def test_sessions_are_listed_and_ended_by_their_user_alone(lasting: Deployment) -> None:
    """Users see their own in every tenant; anybody else's seems not to exist."""
    lin = joined(lasting, "l-list", "lin")
    other = joined(lasting, "l-list", "other")
    phone = Person(lasting, lin.email)
    assert phone.log_in().status_code == 200
    listed = lin.http.get("/v1/sessions").json()["items"]
    assert [each["current"] for each in listed] == [False, True]
    theirs = other.http.get("/v1/sessions").json()["items"][0]["id"]
    assert lin.http.delete(f"/v1/sessions/{theirs}").status_code == 404
    assert other.http.get("/v1/me").status_code == 200
    assert lin.http.delete(f"/v1/sessions/{listed[0]['id']}").status_code == 204
    assert phone.http.get("/v1/me").status_code == 401


def test_a_new_password_ends_every_session(lasting: Deployment) -> None:
    """This includes the session that changes it; the old password is invalid."""
    may = joined(lasting, "l-change", "may")
    laptop = Person(lasting, may.email)
    laptop.log_in()
    new = "seven kettles under a bridge"
    wrong = may.http.put("/v1/me/password", json={"current": "not this one", "new": new})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "body.current")
    weak = may.http.put("/v1/me/password", json={"current": PASSWORD, "new": "password12345"})
    assert (weak.status_code, weak.json()["errors"][0]["field"]) == (422, "body.new")
    done = may.http.put("/v1/me/password", json={"current": PASSWORD, "new": new})
    assert done.status_code == 204
    for person in (may, laptop):
        assert person.http.get("/v1/me").status_code == 401
        assert person.log_in().status_code == 401
        assert person.log_in(password=new).status_code == 200


def test_a_login_that_is_overtaken_by_a_change_of_password_begins_no_session(
    lasting: Deployment,
) -> None:
    """It was verified with the old password, and all sessions were ended before it began."""
    rae = joined(lasting, "l-overtaken", "rae")
    superuser = lasting.stack.services.postgres.url("postgres")
    stored = lasting.sql("SELECT password FROM users WHERE email = %s", rae.email)[0]["password"]
    change = "UPDATE users SET password = %s WHERE email = %s"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(superuser) as changing:
        for becomes, expected in ((f"{stored}x", 401), (stored, 200)):
            # Not committed: the login sees the old password, and meets the change at the row.
            changing.execute(change, [becomes, rae.email])
            login = pool.submit(rae.log_in)
            eventually(lambda: waiting(lasting))
            changing.commit()
            assert login.result(30).status_code == expected
            changing.execute(change, [stored, rae.email])
            changing.commit()


def waiting(deployment: Deployment) -> bool:
    """Return whether somebody waits for another's lock."""
    found = deployment.sql(
        "SELECT 1 FROM pg_stat_activity WHERE usename = 'runner_api' AND wait_event_type = 'Lock'"
    )
    return bool(found)


def test_a_hash_of_other_parameters_is_made_anew_at_login(lasting: Deployment) -> None:
    """For example, an upgrade asked for more work."""
    from argon2 import PasswordHasher  # noqa: PLC0415 - what an earlier release would have stored

    old = joined(lasting, "l-rehash", "old")
    weak = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    lasting.sql("UPDATE users SET password = %s WHERE email = %s", weak, old.email)
    assert old.log_in().status_code == 200
    stored = lasting.sql("SELECT password FROM users WHERE email = %s", old.email)
    assert "m=19456,t=2,p=1" in stored[0]["password"]
    assert old.log_in().status_code == 200


ANOTHERS = "that of another session"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-CSRF-Token", None),
        ("X-CSRF-Token", "0" * 64),
        ("X-CSRF-Token", ANOTHERS),
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ],
)
def test_a_change_by_cookie_comes_from_our_own_pages(
    pages: tuple[Person, Person], name: str, value: str | None
) -> None:
    """Each of the three checks refuses by itself; a request that differs only there passes."""
    ours, another = pages
    right = {
        "Cookie": f"runner_session={cookie(ours)}",
        "X-CSRF-Token": ours.http.headers["X-CSRF-Token"],
        "Origin": str(ours.http.base_url).rstrip("/"),
        "Sec-Fetch-Site": "same-origin",
    }
    wrong = {key: kept for key, kept in right.items() if key != name}
    if value is not None:
        wrong[name] = another.http.headers[name] if value is ANOTHERS else value
    url = f"{right['Origin']}/v1/projects/changed"
    body = {"description": "by cookie"}
    before = ours.http.get("/v1/projects/changed").json()
    refused = httpx.put(url, headers=wrong, json=body)
    assert refused.status_code == 403, refused.text
    assert ours.http.get("/v1/projects/changed").json() == before
    done = httpx.put(url, headers=right, json=body)
    assert done.status_code == 200, done.text


@pytest.fixture(scope="module")
def pages(lasting: Deployment) -> tuple[Person, Person]:
    """Return somebody who has a project, and another session."""
    ours = joined(lasting, "l-csrf", "csrf")
    assert ours.http.post("/v1/projects", json={"name": "changed"}).status_code == 201
    return ours, joined(lasting, "l-csrf", "csrf-other")


def test_a_key_needs_no_token_and_a_form_of_another_site_cannot_log_in(
    lasting: Deployment,
) -> None:
    """A browser never sends that header by itself, and a form cannot send JSON."""
    token = lasting.key("l-bearer")
    with bearing(lasting.url, token) as client:
        answer = client.post(
            "/v1/projects", json={"name": "by-key"}, headers={"Origin": "https://evil.example"}
        )
        assert answer.status_code == 201
    sam = joined(lasting, "l-form", "sam")
    body = {"email": sam.email, "password": PASSWORD}
    form = httpx.post(f"{lasting.url}/v1/login", data=body)
    assert form.status_code == 415
    elsewhere = {"Origin": "https://evil.example"}
    assert httpx.post(f"{lasting.url}/v1/login", json=body, headers=elsewhere).status_code == 403
    assert sam.log_in().status_code == 200


def test_nothing_tells_whether_an_account_exists(lasting: Deployment) -> None:
    """No account, no such tenant, another tenant and a wrong password get the same words."""
    zoe = joined(lasting, "l-one", "zoe")
    lasting.key("l-not-hers")
    nobody = Person(lasting, "nobody@example.com")
    answers = [
        said(nobody.log_in()),
        said(zoe.log_in(password=NOT_HERS)),
        said(zoe.log_in("l-not-hers")),
        said(zoe.log_in("no-such-tenant")),
    ]
    assert all(each == answers[0] for each in answers), answers
    assert answers[0][0] == 401
    assert answers[0][1]["detail"] == ANSWER
    why = {(each["actor"][:12], each["metadata"]["why"]) for each in audited(
        lasting, "authentication:login") if each["outcome"] == "failure"}  # fmt: skip
    assert ("user:unknown", "nobody of that name") in why
    assert any(reason == "wrong password" for _, reason in why)


@pytest.mark.alone
def test_an_unknown_account_takes_as_long_as_a_wrong_password(lasting: Deployment) -> None:
    """It compares medians of interleaved tries, each from its own address, so none is delayed."""
    known = joined(lasting, "l-time", "tim").email
    took: dict[str, list[float]] = {known: [], "no-tim@example.com": []}
    for _ in range(12):
        for email, times in took.items():
            person = Person(lasting, email, "not anybody's password")
            person.http.get("/healthz")
            began = time.perf_counter()
            assert person.log_in().status_code == 401
            times.append(time.perf_counter() - began)
    first, second = (statistics.median(times) for times in took.values())
    assert abs(first - second) < 0.3 * max(first, second), took


def test_failures_are_throttled_here_and_from_elsewhere_the_owner_is_not(
    lasting: Deployment,
) -> None:
    """The limit is five a minute; other addresses are free; missing accounts are treated alike."""
    pat = joined(lasting, "l-throttle", "pat")
    for email in (pat.email, "no-pat@example.com"):
        guesser = Person(lasting, email, "guess after guess after guess")
        statuses = [guesser.log_in().status_code for _ in range(8)]
        assert statuses == [401] * 5 + [429] * 3
        refused = guesser.log_in(password=PASSWORD)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert pat.log_in().status_code == 200
    throttled = [each for each in audited(lasting, "authentication:login")
                 if each["metadata"].get("why") == "throttled"]  # fmt: skip
    assert len(throttled) == 2, "one record for an address, not one for each try"


def test_without_redis_nobody_logs_in(own: Deployment) -> None:
    """An attempt that cannot be counted is refused."""
    own.key("l-redis")
    person = Person(own, "red@example.com")
    assert person.accept(
        operate(own, "add", "--tenant", "l-redis", "--email", person.email)
    ).status_code == 204  # fmt: skip
    assert person.log_in().status_code == 200
    own.stack.services.redis.stop()
    assert person.log_in().status_code == 503


def test_a_forgotten_password_is_set_anew_with_the_operators_token(lasting: Deployment) -> None:
    """The token works once, and every session ends."""
    fay = joined(lasting, "l-forgot", "fay")
    token = operate(lasting, "reset", "--email", fay.email)
    fresh = Person(lasting, fay.email, "nine lanterns over the marsh")
    assert fresh.accept(token).status_code == 204
    assert fay.http.get("/v1/me").status_code == 401
    assert fresh.log_in().status_code == 200
    assert said(fresh.accept(token))[0] == 401


def test_a_removed_person_is_forgotten(lasting: Deployment) -> None:
    """Nothing is kept of people without a tenant: the last membership takes the account along."""
    boss = joined(lasting, "l-forget", "boss")
    gone = joined(lasting, "l-forget", "gone", Role.VIEWER)
    id_ = gone.http.get("/v1/me").json()["name"]
    assert boss.http.delete(f"/v1/members/{id_}").status_code == 204
    assert gone.http.get("/v1/me").status_code == 401
    assert lasting.sql("SELECT 1 FROM users WHERE email = %s", gone.email) == []
