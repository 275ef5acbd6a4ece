"""Signing in at an identity provider: the way there and back, and the session at its end."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import redis

from runner.auth.open_sign_ins import Secret
from runner.auth.sign_in import Refusal
from tests.support.deployment import Deployment, eventually
from tests.support.issuers import AUDIENCE
from tests.support.openid import CALLBACK, CLIENT, SECRET, SigningIn, at_provider, signing_in
from tests.support.people import Person, id_of, joined, operate

NAVIGATES = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def signing(image: None) -> Iterator[SigningIn]:
    """Return a deployment whose people sign in at a provider."""
    with signing_in() as made:
        yield made


@pytest.fixture(autouse=True)
def honest(signing: SigningIn) -> Iterator[None]:
    """Leave the provider as it was."""
    yield
    signing.openid.reset()


def logins(deployment: Deployment, outcome: str = "success") -> list[dict[str, Any]]:
    """Return the records of logins, oldest first."""
    return deployment.sql(
        "SELECT actor, body::jsonb -> 'metadata' AS metadata FROM audit_events "
        "WHERE action = 'authentication:login' AND outcome = %s ORDER BY at",
        outcome,
    )


def test_a_member_signs_in_and_has_a_session_like_any_other(signing: SigningIn) -> None:
    """Its cookie, its CSRF token and its record are those of a login with a password."""
    owner = joined(signing.deployment, "s-first", "first-owner")
    ada = signing.member("s-first", "first")
    id_ = id_of(owner, ada.email)
    browser = signing.browser("first")
    back = at_provider(browser.begin(page="executions?state=failed"))
    answer = browser.http.get(back)
    assert browser.page(answer) == "executions?state=failed"

    set_by_password = ada.log_in("s-first").headers["set-cookie"]
    written = {each.partition("=")[0]: each for each in answer.headers.get_list("set-cookie")}
    blank = re.compile(r"=[A-Za-z0-9_-]{43}")
    session = written["runner_session"]
    assert blank.sub("", session, count=1) == blank.sub("", set_by_password, count=1)
    assert 'runner_sign_in=""' in written["runner_sign_in"], "it is of no more use"

    me = browser.me().json()
    assert (me["kind"], me["name"], me["tenant"], me["role"], me["email"]) == (
        "user", id_, "s-first", "developer", ada.email,
    )  # fmt: skip
    body = {"command": ["true"]}
    assert browser.http.post("/v1/executions", json=body).status_code == 403, "no CSRF token"
    headers = {"X-CSRF-Token": me["csrf_token"]}
    assert browser.http.post("/v1/executions", json=body, headers=headers).status_code == 202
    record = logins(signing.deployment)[-2]
    assert record["actor"] == f"user:{id_}"
    assert set(record["metadata"]) == {"session", "identity"}
    assert browser.http.post("/v1/logout", headers=headers).status_code == 204
    assert browser.me().status_code == 401


def test_the_provider_is_asked_as_the_standard_says(signing: SigningIn) -> None:
    """The secret is in a header, and the browser carries neither verifier nor secret."""
    signing.member("s-asked", "asked")
    browser = signing.browser("asked")
    address = browser.begin()
    asked = parse_qs(urlsplit(address).query)
    assert asked["scope"] == ["openid"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{signing.deployment.url}{CALLBACK}"]
    assert len({asked[each][0] for each in ("state", "nonce", "code_challenge")}) == 3
    assert browser.come_back(at_provider(address)) == ""
    form = signing.openid.forms[-1]
    assert set(form) == {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", form["code_verifier"])
    assert form["code_verifier"] not in address
    (proof,) = signing.issuer.credentials[-1:]
    assert proof is not None
    assert proof.startswith("Basic ")


def test_a_provider_may_want_the_secret_in_the_body(image: None) -> None:
    with signing_in() as other:
        # Before the first look at it: what a provider publishes is kept for minutes.
        other.openid.attach(token_endpoint_auth_methods_supported=["client_secret_post"])
        other.member("s-post", "post")
        assert other.browser("post").sign_in() == ""
        assert other.issuer.credentials == [None]
        form = other.openid.forms[-1]
        assert (form["client_id"], form["client_secret"]) == (CLIENT, SECRET)


def test_a_public_client_has_no_secret_and_pkce_protects_it(image: None) -> None:
    with signing_in(oidc_client_secret=None) as other:
        other.openid.secret = None
        other.member("s-public", "public")
        assert other.browser("public").sign_in() == ""
        assert "client_secret" not in other.openid.forms[-1]
        other.openid.granted["stolen"] = {
            **dict.fromkeys(("sub", "nonce", "code_challenge"), "x"),
            "redirect_uri": other.openid.callback,
        }
        browser = other.browser("public")
        state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
        back = f"{CALLBACK}?code=stolen&state={state}&iss={other.issuer.url}"
        assert browser.come_back(back) == "sign-in/refused"


def test_the_login_page_learns_what_the_provider_is_called(
    signing: SigningIn, shared: Deployment
) -> None:
    """Without a provider there is nothing to show, and nowhere to go."""
    named = httpx.get(f"{signing.deployment.url}/v1/login", timeout=30).json()
    assert named == {"provider": {"name": "127.0.0.1"}}
    assert httpx.get(f"{shared.url}/v1/login", timeout=30).json() == {"provider": None}
    for path in ("/v1/login/oidc", CALLBACK):
        assert httpx.get(f"{shared.url}{path}", timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("?page=a&page=b", 422, "invalid"),
        ("?unknown=1", 422, "invalid"),
        (f"?tenant={'x' * 64}", 422, "invalid"),
        (f"/callback?state={'x' * 4097}", 422, "invalid"),
        ("/callback?state=a&state=b", 422, "invalid"),
    ],
    ids=["twice", "unknown", "long", "long on the way back", "twice on the way back"],
)
def test_a_browser_is_shown_a_page_where_a_program_gets_a_problem(
    signing: SigningIn, query: str, status: int, reason: str
) -> None:
    """A browser that navigates asks for HTML first."""
    browser = signing.browser()
    for accept in ("application/json", "*/*"):
        answer = browser.http.get(f"/v1/login/oidc{query}", headers={"Accept": accept})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    answer = browser.http.get(f"/v1/login/oidc{query}", headers=NAVIGATES)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console#/sign-in/{reason}")
    assert answer.content == b""
    assert answer.headers["x-request-id"]


def test_a_browser_is_shown_a_page_where_there_is_no_provider(shared: Deployment) -> None:
    for path in ("/v1/login/oidc", CALLBACK):
        answer = httpx.get(f"{shared.url}{path}", headers=NAVIGATES, timeout=30)
        assert answer.headers["location"] == "/console#/sign-in/no-provider"


def test_each_reason_has_a_sentence_in_the_console() -> None:
    written = Path("console/src/pages/login.tsx").read_text()
    sentences = written.partition("REFUSALS")[2].partition("};")[0]
    names = set(re.findall(r'^  "?([a-z-]+)"?:', sentences, re.MULTILINE))
    assert names == {each.value for each in Refusal}


def test_somebody_who_declines_is_told_so(signing: SigningIn) -> None:
    """Whatever the provider says besides is not shown, and the cookie is gone."""
    browser = signing.browser()
    state = parse_qs(urlsplit(browser.begin()).query)["state"][0]
    declined = {"error": "access_denied", "error_description": "<b>", "state": state}
    answer = browser.http.get(CALLBACK, params={**declined, "iss": signing.issuer.url})
    assert browser.page(answer) == "sign-in/denied"
    assert "runner_sign_in" not in browser.http.cookies


def test_a_subject_without_a_link_gets_no_session(signing: SigningIn) -> None:
    """The log of the deployment names the subject, so that the operator can link it."""
    joined(signing.deployment, "s-nobody", "nobody-owner")
    for named in ({}, {"tenant": "s-nobody"}, {"tenant": "no-such-tenant"}):
        browser = signing.browser("nobody")
        assert browser.sign_in(**named) == "sign-in/no-member"
        assert browser.me().status_code == 401
        assert logins(signing.deployment, "failure")[-1] == {
            "actor": "user:oidc:subject-of-nobody",
            "metadata": {"why": "nobody of that subject"},
        }


def test_somebody_of_several_tenants_names_one(signing: SigningIn) -> None:
    """The request says it, or the token; one cannot contradict the other."""
    signing.member("s-one", "both")
    signing.deployment.key("s-two")
    joined(signing.deployment, "s-two", "two-owner")
    token = _invited(signing, "s-two", "both@example.com")
    assert Person(signing.deployment, "both@example.com").accept(token).is_success
    assert signing.browser("both").sign_in() == "", "only one is linked yet"
    signing.link("link", "s-two", "both")

    assert signing.browser("both").sign_in() == "sign-in/several"
    for tenant in ("s-one", "s-two"):
        browser = signing.browser("both")
        assert browser.sign_in(tenant=tenant) == ""
        assert browser.me().json()["tenant"] == tenant
    signing.openid.claims = {"tenant": "s-two"}
    browser = signing.browser("both")
    assert browser.sign_in() == ""
    assert browser.me().json()["tenant"] == "s-two"
    assert signing.browser("both").sign_in(tenant="s-one") == "sign-in/refused"


def _invited(signing: SigningIn, tenant: str, email: str) -> str:
    return operate(
        signing.deployment, "add", "--tenant", tenant, "--email", email, "--role", "viewer"
    )


def test_people_of_a_suspended_tenant_may_look_as_with_a_password(signing: SigningIn) -> None:
    """Both ways in lead to the same: they can read, and change nothing."""
    ada = signing.member("s-suspended", "suspended")
    signing.deployment.sql(
        "UPDATE tenants SET suspended_at = now(), suspended_why = 'test' WHERE name = 's-suspended'"
    )
    browser = signing.browser("suspended")
    assert browser.sign_in() == ""
    assert ada.log_in("s-suspended").is_success
    browser.http.headers["X-CSRF-Token"] = browser.me().json()["csrf_token"]
    for http in (browser.http, ada.http):
        assert http.get("/v1/executions").status_code == 200
        refused = http.post("/v1/executions", json={"command": ["true"]})
        assert refused.json()["type"] == "urn:runner:problem:tenant-suspended"


def test_the_session_ends_with_the_link_and_a_session_by_password_does_not(
    signing: SigningIn,
) -> None:
    """Its streams end, too."""
    ada = signing.member("s-unlinked", "unlinked")
    browser = signing.browser("unlinked")
    assert browser.sign_in() == ""
    assert browser.me().status_code == 200
    signing.link("unlink", "s-unlinked", "unlinked")
    eventually(lambda: browser.me().status_code == 401)
    assert ada.http.get("/v1/me").status_code == 200


def test_a_new_password_ends_the_session_as_it_ends_all(signing: SigningIn) -> None:
    ada = signing.member("s-password", "password")
    browser = signing.browser("password")
    assert browser.sign_in() == ""
    body = {"current": ada.password, "new": "lantern orchard mosaic beetle"}
    assert ada.http.put("/v1/me/password", json=body).status_code == 204
    assert browser.me().status_code == 401


def test_the_session_that_the_browser_had_ends_with_the_new_one(signing: SigningIn) -> None:
    """Nobody else can use it any more. A sign-in that fails ends nothing."""
    signing.member("s-replaced", "replaced")
    browser = signing.browser("replaced")
    assert browser.sign_in() == ""
    first = browser.http.cookies["runner_session"]

    def works() -> bool:
        headers = {"Cookie": f"runner_session={first}"}
        url = f"{signing.deployment.url}/v1/me"
        return httpx.get(url, headers=headers, timeout=30).status_code == 200

    signing.openid.claims = {"nonce": "another"}
    assert browser.sign_in() == "sign-in/refused"
    assert works()
    signing.openid.claims = {}
    assert browser.sign_in() == ""
    assert browser.http.cookies["runner_session"] != first
    assert not works()


def test_an_id_token_opens_nothing_by_itself(signing: SigningIn) -> None:
    """It is for the console's sign-in. The same token for the API's audience is a bearer token."""
    signing.member("s-bearer", "bearer")
    url = f"{signing.deployment.url}/v1/me"
    for audience, status in ((CLIENT, 401), (AUDIENCE, 200)):
        claims = signing.issuer.claims(aud=audience, sub="subject-of-bearer", tenant=None)
        headers = {"Authorization": f"Bearer {signing.issuer.token('EC', claims)}"}
        assert httpx.get(url, headers=headers, timeout=30).status_code == status


def test_a_provider_that_is_away_is_told_on_the_login_page(signing: SigningIn) -> None:
    """The token endpoint fails, and then does not answer in time."""
    signing.member("s-away", "away")
    browser = signing.browser("away")
    back = at_provider(browser.begin())
    signing.issuer.more = lambda *_: None
    assert browser.come_back(back) == "sign-in/unavailable"
    signing.openid.attach()
    assert browser.sign_in() == ""


def test_redis_holds_nothing_that_helps_to_sign_in(signing: SigningIn) -> None:
    """Neither the cookie, nor state, nonce or verifier; and no sign-in for longer than minutes."""
    browser = signing.browser()
    asked = parse_qs(urlsplit(browser.begin(page="usage")).query)
    secret = Secret(browser.http.cookies["runner_sign_in"])
    with redis.Redis.from_url(signing.deployment.stack.services.redis_url) as store:
        name = f"runner:sign-in:{secret.key}"
        held = name.encode() + (store.get(name) or b"")
        assert 0 < store.ttl(name) <= 600
    assert (asked["state"], asked["nonce"]) == ([secret.state], [secret.nonce])
    for each in (secret.text, secret.state, secret.nonce, secret.verifier):
        assert each.encode() not in held
