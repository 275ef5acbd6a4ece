"""An operator's session: begun with a key, in a cookie of its own, and over when the key is."""

from typing import Any

import httpx
import pytest

from tests.integration.api.test_operator import TENANTS, make, runner
from tests.support.deployment import Deployment, bearing
from tests.support.people import OperatingPerson, joined
from tests.support.routes import operations

SESSION = "/operator/v1/session"
SESSIONS = "/operator/v1/sessions"
COOKIE = "runner_operator"


@pytest.fixture
def ops(lasting: Deployment) -> OperatingPerson:
    """Return an operator who has logged in."""
    return OperatingPerson(lasting)


def cookie(of: OperatingPerson) -> str:
    """Return the session id that the browser keeps."""
    return str(of.http.cookies[COOKIE])


def sent(deployment: Deployment, name: str, value: str, path: str = SESSION) -> int:
    """Return the status of a request with one cookie alone."""
    return httpx.get(f"{deployment.url}{path}", headers={"Cookie": f"{name}={value}"}).status_code


def test_a_session_acts_as_its_key_until_its_end(lasting: Deployment, ops: OperatingPerson) -> None:
    """The deployment's log names the key, as that of a tenant does."""
    told = ops.http.get(SESSION).json()
    assert told == {"name": ops.prefix, "csrf_token": ops.http.headers["X-CSRF-Token"]}
    id_, token = make(ops.http, "os-made")
    with bearing(lasting.url, token) as tenant:
        (made,) = tenant.get("/v1/audit", params={"action": "tenant:create"}).json()["items"]
    actor = f"operator:{ops.prefix.removeprefix('ro_')}"
    assert made["record"]["actor"] == actor
    assert ops.http.get(f"{TENANTS}/{id_}").status_code == 200
    kept = cookie(ops)
    assert ops.http.delete(SESSION).status_code == 204
    assert ops.http.get(SESSION).status_code == 401
    assert sent(lasting, COOKIE, kept) == 401
    told = lasting.sql(
        "SELECT action FROM audit_events WHERE actor = %s AND action LIKE 'authentication:%%' "
        "ORDER BY seq",
        actor,
    )
    assert [each["action"] for each in told] == ["authentication:login", "authentication:logout"]


def test_its_cookie_is_out_of_reach_of_scripts_and_other_sites(shared: Deployment) -> None:
    answer = shared.operator().post(SESSION)
    name, _, attributes = answer.headers["set-cookie"].partition("=")
    assert name == "__Host-runner_operator"
    parts = {part.strip().lower() for part in attributes.split(";")[1:]}
    assert parts == {"httponly", "secure", "samesite=strict", "path=/", "max-age=43200"}


def test_nothing_that_opens_is_stored_or_logged(lasting: Deployment, ops: OperatingPerson) -> None:
    rows = lasting.sql("SELECT t::text FROM operator_sessions t")
    rows += lasting.sql("SELECT t::text FROM audit_events t")
    logs = (lasting.stack.settings.state_dir / "log").iterdir()
    stored = str(rows) + "".join(path.read_text() for path in logs)
    for secret in (ops.key, cookie(ops), ops.http.headers["X-CSRF-Token"]):
        assert secret not in stored


def test_what_is_no_operators_credential_opens_nothing(
    lasting: Deployment, ops: OperatingPerson, document: dict[str, Any]
) -> None:
    """Neither a tenant's session nor its key does, at any route; nor does either cookie swapped.

    The control is the operator's own session: where it stands, no answer is 401.
    """
    owner = joined(lasting, "os-owner", "os-owner")
    theirs = [each for each in operations(document) if each.path.startswith("/operator/")]
    assert len(theirs) > 20
    key = lasting.http("os-owner")
    for each in theirs:
        for stranger in (owner.http, key):
            assert each.send(stranger).status_code == 401, each.route
        if each.route != f"DELETE {SESSION}":
            assert each.send(ops.http).status_code != 401, each.route
    for path in ("/v1/me", "/v1/executions", "/v1/audit"):
        assert ops.http.get(path).status_code == 401
    swapped = str(owner.http.cookies["runner_session"])
    assert sent(lasting, COOKIE, swapped) == 401
    assert sent(lasting, "runner_session", cookie(ops), "/v1/me") == 401
    assert sent(lasting, COOKIE, cookie(ops)) == 200


def test_a_header_counts_before_the_cookie(lasting: Deployment, ops: OperatingPerson) -> None:
    wrong = {"Authorization": f"Bearer {ops.key[:-5]}AAAAA"}
    assert ops.http.get(SESSION, headers=wrong).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-CSRF-Token": ""},
        {"X-CSRF-Token": "0" * 64},
        {"Origin": "https://evil.test"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["no token", "another token", "another origin", "another host of the site"],
)
def test_a_change_from_elsewhere_is_refused(ops: OperatingPerson, headers: dict[str, str]) -> None:
    """The control is the same change from our own page."""
    body = {"name": f"os-{ops.prefix.removeprefix('ro_')}"}
    assert ops.http.post(TENANTS, json=body, headers=headers).status_code == 403
    assert ops.http.post(TENANTS, json=body).status_code == 201


def test_a_session_makes_no_other_one(lasting: Deployment, ops: OperatingPerson) -> None:
    """Otherwise it would never be over. With the key, another one ends the browser's own."""
    assert ops.http.post(SESSION).status_code == 409
    before = cookie(ops)
    assert ops.log_in().status_code == 201
    assert cookie(ops) != before
    assert sent(lasting, COOKIE, before) == 401
    assert ops.http.get(SESSION).status_code == 200


@pytest.mark.parametrize(
    "ended",
    [
        "UPDATE operator_sessions SET expires_at = now() WHERE hash = sha256(%s)",
        "UPDATE operator_sessions SET last_used_at = now() - interval '31 min' "
        "WHERE hash = sha256(%s)",
        "UPDATE operators o SET expires_at = now() FROM operator_sessions s "
        "WHERE s.operator_id = o.operator_id AND s.hash = sha256(%s)",
    ],
    ids=["at its end", "unused", "with its key"],
)
def test_a_session_ends(lasting: Deployment, ops: OperatingPerson, ended: str) -> None:
    assert sent(lasting, COOKIE, cookie(ops)) == 200
    lasting.sql(ended, cookie(ops).encode())
    assert sent(lasting, COOKIE, cookie(ops)) == 401


def test_a_revoked_key_ends_its_sessions_at_once(lasting: Deployment, ops: OperatingPerson) -> None:
    other = OperatingPerson(lasting)
    revoked = runner(lasting, "operators", "revoke", ops.prefix)
    assert revoked.returncode == 0, revoked.stderr
    assert ops.http.get(SESSION).status_code == 401
    assert other.http.get(SESSION).status_code == 200


def test_an_operator_lists_their_sessions_and_ends_one(
    lasting: Deployment, ops: OperatingPerson
) -> None:
    """Those of another operator are not there, and cannot be ended."""
    with bearing(lasting.url, ops.key) as by_key:
        assert by_key.post(SESSION).status_code == 201
        second = str(by_key.cookies[COOKIE])
        by_key.cookies.clear()
        (newest, oldest) = by_key.get(SESSIONS).json()["items"]
        assert not newest["current"]
        listed = ops.http.get(SESSIONS).json()["items"]
        assert [(each["id"], each["current"]) for each in listed] == [
            (newest["id"], False), (oldest["id"], True),
        ]  # fmt: skip
        other = OperatingPerson(lasting)
        (theirs,) = other.http.get(SESSIONS).json()["items"]
        assert ops.http.delete(f"{SESSIONS}/{theirs['id']}").status_code == 404
        assert other.http.get(SESSION).status_code == 200

        assert sent(lasting, COOKIE, second) == 200
        assert ops.http.delete(f"{SESSIONS}/{newest['id']}").status_code == 204
        assert sent(lasting, COOKIE, second) == 401
        assert ops.http.delete(f"{SESSIONS}/{newest['id']}").status_code == 404
        assert by_key.delete(f"{SESSIONS}/{oldest['id']}").status_code == 204
        assert ops.http.get(SESSIONS).status_code == 401
    told = lasting.sql(
        "SELECT body::jsonb -> 'metadata' ->> 'session' AS session FROM audit_events "
        "WHERE actor = %s AND action = 'session:end' ORDER BY seq",
        f"operator:{ops.prefix.removeprefix('ro_')}",
    )
    assert [each["session"] for each in told] == [newest["id"], oldest["id"]]


def test_what_a_page_asks_by_itself_is_no_use_of_a_session(
    lasting: Deployment, ops: OperatingPerson
) -> None:
    """The control is the same request while somebody is at the page."""
    hash_ = cookie(ops).encode()

    def unused_s() -> float:
        (row,) = lasting.sql(
            "SELECT extract(epoch FROM now() - last_used_at) AS s FROM operator_sessions "
            "WHERE hash = sha256(%s)",
            hash_,
        )
        return float(row["s"])

    lasting.sql(
        "UPDATE operator_sessions SET last_used_at = now() - interval '10 min' "
        "WHERE hash = sha256(%s)",
        hash_,
    )
    assert ops.http.get(SESSION, headers={"X-Runner-Unattended": "1"}).status_code == 200
    assert unused_s() > 500
    assert ops.http.get(SESSION).status_code == 200
    assert unused_s() < 100


def test_a_key_has_no_session_to_end(lasting: Deployment) -> None:
    by_key = lasting.operator()
    assert by_key.get(SESSION).json()["csrf_token"] is None
    assert by_key.delete(SESSION).status_code == 404
