"""Attacks on signing in at an identity provider, each beside the same without the control.

The attacks are those of RFC 9700 4 and OpenID Connect Core 16. A deployment refuses all of them.
Where a control is taken away, it is taken from the same parts in this process, on the deployment's
own PostgreSQL and Redis.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urljoin, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey
from pydantic import SecretStr
from redis.asyncio import Redis

from runner.audit.events import Origin
from runner.auth import open_sign_ins
from runner.auth.open_sign_ins import OpenSignIn, OpenSignIns, Secret
from runner.auth.provider import Provider
from runner.auth.sessions import Lifetime
from runner.auth.sign_in import Refusal, Returned, SignedIn, SignIns
from runner.cli.people import ways_in
from runner.store.db import Database
from tests.support.issuers import AUDIENCE, encode, hmac_signed, new_key
from tests.support.openid import CALLBACK, CLIENT, SigningIn, at_provider, signing_in

TENANT = "attacked"
LONG_AGO = int(time.time()) - 3600
_addresses = count(2)


@pytest.fixture(scope="module")
def signing(image: None) -> Iterator[SigningIn]:
    """Return a deployment whose people sign in at a provider; one is the attacker."""
    with signing_in() as made:
        made.member(TENANT, "ada")
        made.member(TENANT, "mallory")
        yield made


@pytest.fixture(autouse=True)
def honest(signing: SigningIn) -> Iterator[None]:
    """Leave the provider as it was."""
    yield
    signing.openid.reset()


@asynccontextmanager
async def parts(signing: SigningIn) -> AsyncIterator[SignIns]:
    """Yield the deployment's own parts for signing in, in this process."""
    stack = signing.deployment.stack
    lifetime = Lifetime(idle=timedelta(minutes=5), absolute=timedelta(minutes=5))
    async with (
        Database(SecretStr(stack.services.api_url), max_size=2) as database,
        ways_in(stack.settings, database, SecretStr(stack.services.redis_url), lifetime) as people,
    ):
        assert people.sign_ins is not None
        yield people.sign_ins


def somewhere() -> Origin:
    """Return where a browser is, each time somewhere else: attempts are counted by address."""
    return Origin(f"198.51.100.{next(_addresses)}")


async def sent_back(sign_ins: SignIns, secret: Secret, **begun: str) -> Returned:
    """Begin to sign in with that secret, and return with what the provider answers."""
    address = await sign_ins.begin(secret, OpenSignIn(**begun))
    assert isinstance(address, str), address
    return returned(at_provider(address))


def returned(address: str) -> Returned:
    """Return the answer in an address of the callback."""
    found = dict(parse_qsl(urlsplit(address).query))
    return Returned(found["state"], found.get("code"), found.get("error"), found.get("iss"))


def alike(monkeypatch: pytest.MonkeyPatch, *controls: str) -> None:
    """Take controls away: make these values the same in all browsers, as if nobody checked them."""
    honest = Secret._made
    monkeypatch.setattr(
        Secret,
        "_made",
        lambda self, what: "x" * 43 if what in controls else honest(self, what),
    )


def test_an_answer_to_somebody_else_signs_nobody_in(signing: SigningIn) -> None:
    """Login CSRF: the attacker has the victim's browser follow the end of their own sign-in.

    The victim's own sign-in, begun before, can still be finished, and so can the attacker's.
    """
    attacker, victim, bystander = (signing.browser("mallory") for _ in range(3))
    lure = at_provider(attacker.begin())
    own = victim.begin()
    for each in (victim, bystander):
        assert each.come_back(lure) == "sign-in/stale"
        assert each.me().status_code == 401
    signing.openid.subject = "subject-of-ada"
    assert victim.come_back(at_provider(own)) == ""
    assert victim.me().json()["email"] == "ada@example.com"
    assert attacker.come_back(lure) == ""


@pytest.mark.parametrize(
    ("kept", "outcome"),
    [
        ("state", Refusal.STALE),
        ("verifier", Refusal.REFUSED),
        ("nonce", Refusal.REFUSED),
        (None, None),
    ],
)
async def test_each_of_three_controls_alone_stops_login_csrf(
    signing: SigningIn, monkeypatch: pytest.MonkeyPatch, kept: str | None, outcome: Refusal | None
) -> None:
    """Without state, PKCE and nonce, the victim is in the attacker's session."""
    alike(monkeypatch, *({"state", "verifier", "nonce"} - {kept}))
    async with parts(signing) as sign_ins:
        signing.openid.subject = "subject-of-mallory"
        lure = await sent_back(sign_ins, Secret.new())
        victim = Secret.new()
        await sent_back(sign_ins, victim)
        found = await sign_ins.finish(victim, lure, somewhere())
        assert found is outcome if outcome else isinstance(found, SignedIn)


@pytest.mark.parametrize(
    ("kept", "outcome"),
    [("verifier", Refusal.REFUSED), ("nonce", Refusal.REFUSED), (None, None)],
)
async def test_a_stolen_code_is_worth_nothing_in_another_browser(
    signing: SigningIn, monkeypatch: pytest.MonkeyPatch, kept: str | None, outcome: Refusal | None
) -> None:
    """The attacker puts it into a sign-in of their own (RFC 9700 4.5); PKCE or nonce stops them."""
    alike(monkeypatch, *({"verifier", "nonce"} - {kept}))
    async with parts(signing) as sign_ins:
        signing.openid.subject = "subject-of-ada"
        stolen = await sent_back(sign_ins, Secret.new())
        attacker = Secret.new()
        await sent_back(sign_ins, attacker)
        injected = replace(stolen, state=attacker.state)
        found = await sign_ins.finish(attacker, injected, somewhere())
        assert found is outcome if outcome else isinstance(found, SignedIn)


async def test_the_provider_checks_the_verifier_that_we_send(
    signing: SigningIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If it is left out, the provider refuses the code, unless it does without PKCE."""
    honest = Provider.id_token
    monkeypatch.setattr(
        Provider, "id_token", lambda self, client, code, _: honest(self, client, code, "")
    )
    async with parts(signing) as sign_ins:
        for pkce in (True, False):
            signing.openid.pkce = pkce
            secret = Secret.new()
            found = await sign_ins.finish(secret, await sent_back(sign_ins, secret), somewhere())
            assert (found is Refusal.REFUSED) is pkce


def test_an_answer_counts_once(signing: SigningIn) -> None:
    """Not even the browser that has used it can use it again, with the cookie that it had."""
    browser = signing.browser()
    back = at_provider(browser.begin())
    secret = browser.http.cookies["runner_sign_in"]
    assert browser.come_back(back) == ""
    browser.http.cookies.clear()
    browser.http.cookies.set("runner_sign_in", secret)
    assert browser.come_back(back) == "sign-in/stale"
    assert browser.me().status_code == 401


class Reopening(OpenSignIns):
    """Forgets to close what is taken."""

    async def take(self, secret: Secret) -> OpenSignIn | None:
        """Return a sign-in, and leave it open."""
        found = await super().take(secret)
        if found is not None:
            await self.put(secret, found)
        return found


@pytest.mark.parametrize("careless", [False, True])
async def test_without_that_a_replayed_answer_would_sign_in_again(
    signing: SigningIn, *, careless: bool
) -> None:
    """The control: a provider that takes codes twice, and here a sign-in that stays open."""
    signing.openid.once = False
    redis_url = SecretStr(signing.deployment.stack.services.redis_url)
    async with parts(signing) as sign_ins, Reopening(redis_url) as reopening:
        tried = replace(sign_ins, open=reopening) if careless else sign_ins
        secret = Secret.new()
        answer = await sent_back(tried, secret)
        assert isinstance(await tried.finish(secret, answer, somewhere()), SignedIn)
        again = await tried.finish(secret, answer, somewhere())
        assert isinstance(again, SignedIn) if careless else again is Refusal.STALE


@pytest.mark.parametrize(("lasts_s", "in_time"), [(1, False), (600, True)])
async def test_a_sign_in_is_open_for_minutes_only(
    signing: SigningIn, monkeypatch: pytest.MonkeyPatch, lasts_s: int, *, in_time: bool
) -> None:
    monkeypatch.setattr(open_sign_ins, "OPEN_S", lasts_s)
    async with parts(signing) as sign_ins:
        secret = Secret.new()
        answer = await sent_back(sign_ins, secret)
        time.sleep(1.2)  # noqa: ASYNC251 - nothing else runs in this loop
        found = await sign_ins.finish(secret, answer, somewhere())
        assert isinstance(found, SignedIn) if in_time else found is Refusal.STALE


Claims = dict[str, Any]
WRONG: dict[str, Claims] = {
    "another nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "several nonces": {"nonce": ["another", "one"]},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "the API's audience": {"aud": AUDIENCE},
    "another client's": {"aud": "another-client"},
    "no audience": {"aud": None},
    "several audiences and no client": {"aud": [CLIENT, "another-client"]},
    "made for another client": {"aud": [CLIENT, "another-client"], "azp": "another-client"},
    "one audience, another client": {"azp": "another-client"},
    "expired": {"exp": LONG_AGO},
    "no end": {"exp": None},
    "issued at no time": {"iat": None},
    "issued tomorrow": {"iat": LONG_AGO + 90_000},
    "nobody": {"sub": None},
    "a subject that hides": {"sub": "ada\nowner"},
    "a tenant that is no text": {"tenant": ["attacked"]},
    "bound to a key": {"cnf": {"jkt": "0ZcOCORZNYy"}},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_id_token_with_a_wrong_claim_signs_nobody_in(signing: SigningIn, wrong: str) -> None:
    """The provider itself has signed it, and without the one claim it is good."""
    browser = signing.browser()
    signing.openid.claims = WRONG[wrong]
    assert browser.sign_in() == "sign-in/refused"
    assert browser.me().status_code == 401
    signing.openid.claims = {}
    assert browser.sign_in() == ""


def _none(_: SigningIn, claims: Claims) -> str:
    return f"{encode({'alg': 'none', 'kid': 'EC'})}.{encode(claims)}."


def _hmac_with_public_key(signing: SigningIn, claims: Claims) -> str:
    key = signing.issuer.keys["EC"]
    assert isinstance(key, ECKey)
    return hmac_signed({"alg": "HS256", "kid": "EC"}, claims, key.as_pem(private=False))


def _own_key(signing: SigningIn, claims: Claims) -> str:
    return signing.issuer.token("EC", claims, key=new_key("EC", "EC"))


def _of_type(kind: str) -> Callable[[SigningIn, Claims], str]:
    return lambda signing, claims: signing.issuer.token("EC", claims, header={"typ": kind})


FORGED: dict[str, Callable[[SigningIn, Claims], str]] = {
    "no signature": _none,
    "HMAC with the public key": _hmac_with_public_key,
    "another key in its name": _own_key,
    "an access token": _of_type("at+jwt"),
    "a logout token": _of_type("logout+jwt"),
    "no token": lambda *_: "opaque",
}


@pytest.mark.parametrize("attack", FORGED)
def test_a_forged_id_token_signs_nobody_in(signing: SigningIn, attack: str) -> None:
    """Its claims are right, nonce included: only who has made it, or what for, is wrong."""
    browser = signing.browser()
    signing.openid.forge = lambda claims: FORGED[attack](signing, claims)
    assert browser.sign_in() == "sign-in/refused"
    signing.openid.forge = lambda claims: signing.issuer.token("EC", claims)
    assert browser.sign_in() == ""


@pytest.mark.parametrize(
    "harmless",
    [
        {"aud": [CLIENT]},
        {"azp": CLIENT},
        {"aud": [CLIENT, "another-client"], "azp": CLIENT},
        {"tenant": TENANT},
        {"role": "owner"},
        {"email": "somebody.else@example.com"},
    ],
    ids=str,
)
def test_what_is_harmless_passes(signing: SigningIn, harmless: Claims) -> None:
    """Neither a role nor an address in a token counts: the link says who it is."""
    browser = signing.browser()
    signing.openid.claims = harmless
    assert browser.sign_in() == ""
    me = browser.me().json()
    assert (me["email"], me["role"]) == ("ada@example.com", "developer")


@pytest.mark.parametrize(
    ("promised", "said", "signs_in"),
    [
        (True, "ours", True),
        (True, "another", False),
        (True, None, False),
        (False, None, True),
        (False, "another", False),
    ],
)
async def test_the_answer_of_another_provider_is_not_passed_on(
    signing: SigningIn, *, promised: bool, said: str | None, signs_in: bool
) -> None:
    """Mix-up (RFC 9207): ours never sees the code. One that never names itself need not."""
    signing.openid.names_itself = promised
    signing.openid.attach()
    named = {"ours": signing.issuer.url, "another": "https://evil.example", None: None}[said]
    async with parts(signing) as sign_ins:
        secret = Secret.new()
        answer = replace(await sent_back(sign_ins, secret), issuer=named)
        asked = len(signing.openid.forms)
        found = await sign_ins.finish(secret, answer, somewhere())
        assert isinstance(found, SignedIn) if signs_in else found is Refusal.REFUSED
        assert len(signing.openid.forms) == asked + signs_in


ELSEWHERE = (
    "https://evil.example/",
    "//evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "https:evil.example",
    "javascript:alert(1)",
    "/v1/logout",
    "../../v1/logout",
    "x\r\nLocation: https://evil.example/",
    "\x00",
    "@evil.example",
    ".evil.example",
    "x" * 3000,
)


@pytest.mark.parametrize("page", ELSEWHERE, ids=lambda page: repr(page[:24]))
def test_no_page_that_is_asked_for_leads_out_of_the_console(signing: SigningIn, page: str) -> None:
    """`come_back` checks where the browser ends, both signed in and refused at the start."""
    browser = signing.browser()
    assert unquote(browser.sign_in(page=page)) in {page, ""}
    elsewhere = {"Sec-Fetch-Site": "cross-site"}
    answer = browser.http.get("/v1/login/oidc", params={"page": page}, headers=elsewhere)
    assert unquote(browser.page(answer)) in {page, ""}


def test_the_same_addresses_lead_out_where_they_are_followed_as_they_are() -> None:
    """The control: most of the list are addresses elsewhere for who redirects to what is asked."""
    here = f"https://runner.example{CALLBACK}"
    out = [
        each
        for each in ELSEWHERE
        if not urljoin(here, each.replace("\\", "/")).startswith("https://runner.example/console")
    ]
    assert len(out) >= 9


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_elsewhere_cannot_begin_a_sign_in(signing: SigningIn, site: str) -> None:
    """Its visitor ends on our own page and decides there. From our own page, it begins."""
    browser = signing.browser()
    headers = {"Sec-Fetch-Site": site}
    answer = browser.http.get("/v1/login/oidc", params={"page": "usage"}, headers=headers)
    assert browser.page(answer) == "usage"
    assert "set-cookie" not in answer.headers
    for own in ("same-origin", "none"):
        answer = browser.http.get("/v1/login/oidc", headers={"Sec-Fetch-Site": own})
        assert answer.headers["location"].startswith(signing.issuer.url)


def test_scripts_and_other_hosts_do_not_reach_the_cookie(signing: SigningIn) -> None:
    """It crosses sites with a link, or nobody could come back; over TLS, no other host sets it."""
    written = signing.browser().http.get("/v1/login/oidc").headers["set-cookie"]
    name, _, attributes = written.partition("=")
    parts_of = {part.strip().lower() for part in attributes.split(";")[1:]}
    assert name == "runner_sign_in"
    assert parts_of == {"httponly", "samesite=lax", "path=/", "max-age=600"}


@pytest.mark.parametrize(
    "says",
    [
        {"token_endpoint": "http://192.0.2.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"token_endpoint": None},
        {"authorization_endpoint": "http://192.0.2.1/authorize"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://login.example/authorize#x"},
        {"issuer": "https://evil.example"},
    ],
    ids=str,
)
async def test_nobody_is_sent_where_codes_and_secrets_can_be_read(
    signing: SigningIn, says: dict[str, Any]
) -> None:
    """A document that names such an address is as good as none. The honest one is used."""
    for document, usable in ((says, False), ({}, True)):
        signing.openid.attach(**document)
        async with parts(signing) as sign_ins:
            found = await sign_ins.begin(Secret.new(), OpenSignIn())
            assert isinstance(found, str) if usable else found is Refusal.UNAVAILABLE


def test_a_token_endpoint_that_redirects_is_not_followed(signing: SigningIn) -> None:
    """Code, verifier and secret would go to whoever it names."""
    browser = signing.browser()
    back = at_provider(browser.begin())
    signing.issuer.requests.clear()
    there = {"Location": f"{signing.issuer.url}/elsewhere"}
    signing.issuer.more = lambda *_: (307, there, b"")
    assert browser.come_back(back) == "sign-in/refused"
    assert signing.issuer.requests == ["/token"]


async def test_what_somebody_writes_into_redis_opens_nothing(signing: SigningIn) -> None:
    """A forged sign-in has no code of the provider's, and its page is checked like any other."""
    async with (
        parts(signing) as sign_ins,
        Redis.from_url(signing.deployment.stack.services.redis_url) as store,
    ):
        for forged in ("x", "{}", '{"more": 1}', '{"replaces": "x"}', '{"place": 1}'):
            secret = Secret.new()
            await store.set(f"runner:sign-in:{secret.key}", forged, ex=60)
            answer = Returned(secret.state, "no-code", None, signing.issuer.url)
            found = await sign_ins.finish(secret, answer, somewhere())
            assert found in {Refusal.STALE, Refusal.REFUSED}
        secret = Secret.new()
        answer = await sent_back(sign_ins, secret)
        await store.set(f"runner:sign-in:{secret.key}", '{"place": "x\\r\\ny"}', ex=60)
        signed_in = await sign_ins.finish(secret, answer, somewhere())
        assert isinstance(signed_in, SignedIn)
        assert signed_in.place == ""


async def test_answers_are_counted_by_address(signing: SigningIn) -> None:
    """As logins with a password are. The same number from many addresses is not refused."""
    async with parts(signing) as sign_ins:
        for origins, refused in (([somewhere()] * 31, 1), ([somewhere() for _ in range(31)], 0)):
            found = []
            for origin in origins:
                secret = Secret.new()
                await sign_ins.open.put(secret, OpenSignIn())
                answer = Returned(secret.state, None, "access_denied", signing.issuer.url)
                found.append(await sign_ins.finish(secret, answer, origin))
            assert found.count(Refusal.TOO_MANY) == refused
            assert found.count(Refusal.DENIED) == 31 - refused


def test_a_state_that_is_there_twice_is_refused(signing: SigningIn) -> None:
    """Which one counts would depend on who reads them (RFC 6749 3.1). Others' parameters pass."""
    browser = signing.browser()
    back = at_provider(browser.begin())
    state = parse_qs(urlsplit(back).query)["state"][0]
    assert browser.http.get(f"{back}&state={state}").status_code == 422
    assert browser.come_back(f"{back}&authuser=0&prompt=none&prompt_id=1") == ""


def test_nothing_that_opens_is_logged_or_stored(signing: SigningIn) -> None:
    """Neither code, verifier, secret nor ID token."""
    browser = signing.browser()
    back = at_provider(browser.begin())
    cookie = browser.http.cookies["runner_sign_in"]
    code = parse_qs(urlsplit(back).query)["code"][0]
    assert browser.come_back(back) == ""
    settings = signing.deployment.stack.settings
    logs = "".join(each.read_text() for each in (settings.state_dir / "log").iterdir())
    rows = str(signing.deployment.sql("SELECT t::text FROM audit_events t"))
    rows += str(signing.deployment.sql("SELECT t::text FROM sessions t"))
    assert f"user:{browser.me().json()['name']}" in rows
    for each in (
        cookie,
        Secret(cookie).verifier,
        f"{code}&",
        settings.oidc_client_secret.get_secret_value() if settings.oidc_client_secret else "",
    ):
        assert each not in logs + rows


def test_a_stranger_cannot_ask_for_a_session_of_a_provider_by_post(signing: SigningIn) -> None:
    """`response_mode=form_post` is not used: a page elsewhere could send such a form."""
    url = f"{signing.deployment.url}{CALLBACK}"
    assert httpx.post(url, data={"code": "x"}, timeout=30).status_code == 415
    assert httpx.post(url, timeout=30).status_code == 405
