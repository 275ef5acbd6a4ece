"""Tokens of an identity provider: each attack beside a token that differs only there."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from pydantic import SecretStr

from runner.auth import provider as providers
from runner.auth.oidc import Issuer, Trust
from runner.auth.provider import Asking
from runner.store.db import Database
from runner.words.errors import IssuerUnavailable, NotAuthenticated
from runner.words.principal import Principal, Role
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment
from tests.support.issuers import AUDIENCE, Provider, encode, hmac_signed, new_key, provider, sign

ANSWER = "a valid API key is needed: `Authorization: Bearer rk_…`"


@pytest.fixture(scope="module")
def issuer() -> Iterator[Provider]:
    """Return the identity provider that is trusted."""
    with provider() as made:
        made.keys = {kind: new_key(kind, kind) for kind in ("RSA", "EC", "OKP")}
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[Provider]:
    """Return the attacker's provider, whose keys have the same names."""
    with provider() as made:
        made.keys = {kind: new_key(kind, kind) for kind in ("RSA", "EC", "OKP")}
        yield made


@pytest.fixture(scope="module")
def trusting(image: None, issuer: Provider) -> Iterator[Deployment]:
    """Return a deployment that accepts the issuer's tokens."""
    with deployments.deployment(
        oidc_issuer=issuer.url,
        oidc_audience=AUDIENCE,
        oidc_roles={"developer": Role.DEVELOPER, "staff": Role.VIEWER, "chiefs": Role.ADMIN},
        **NO_POOL,
    ) as made:
        made.key("o-acme")
        made.key("o-other")
        yield made


def get(deployment: Deployment, token: str, path: str = "/v1/me") -> httpx.Response:
    """Present a token."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{deployment.url}{path}", headers=headers, timeout=30)


@pytest.mark.parametrize("kind", ["RSA", "EC", "OKP"])
def test_a_token_is_a_principal_of_the_tenant_and_role_it_names(
    trusting: Deployment, issuer: Provider, kind: str
) -> None:
    """This holds for each kind of key; the log names the token's subject."""
    answer = get(trusting, issuer.token(kind))
    assert answer.status_code == 200, answer.text
    me = answer.json()
    assert (me["kind"], me["name"], me["tenant"], me["role"]) == (
        "user", "oidc:ada", "o-acme", "developer",
    )  # fmt: skip
    denied = get(trusting, issuer.token(kind), "/v1/audit")
    assert denied.status_code == 403
    actors = trusting.sql("SELECT actor FROM audit_events WHERE action = 'access:denied'")
    assert {"actor": "user:oidc:ada"} in actors


def test_of_several_roles_the_highest_counts(trusting: Deployment, issuer: Provider) -> None:
    """Unknown groups are ignored."""
    token = issuer.token("EC", issuer.claims(role=["staff", "football", "chiefs"]))
    assert get(trusting, token).json()["role"] == "admin"


def _tampered(issuer: Provider) -> str:
    header, _, signature = issuer.token("EC").split(".")
    return f"{header}.{encode(issuer.claims(role='chiefs'))}.{signature}"


def _none(issuer: Provider, algorithm: str) -> str:
    return f"{encode({'alg': algorithm, 'kid': 'EC'})}.{encode(issuer.claims())}."


def _hmac_with_public_key(issuer: Provider) -> str:
    key = issuer.keys["RSA"]
    assert isinstance(key, RSAKey)
    header = {"alg": "HS256", "kid": "RSA"}
    return hmac_signed(header, issuer.claims(), key.as_pem(private=False))


def _own_key(issuer: Provider, stranger: Provider, **header: Any) -> str:
    return issuer.token("EC", key=stranger.keys["EC"], header=header)


def _jwk(stranger: Provider) -> dict[str, Any]:
    return dict(stranger.keys["EC"].as_dict(private=False))


NESTED = b'{"a":' + b"[" * 5000
Forge = Callable[[Provider, Provider], str]
FORGED: dict[str, Forge] = {
    "alg none": lambda i, _: _none(i, "none"),
    "alg NONE": lambda i, _: _none(i, "NONE"),
    "no signature": lambda i, _: i.token("EC").rpartition(".")[0] + ".",
    "HS256 with the public key": lambda i, _: _hmac_with_public_key(i),
    "HS256 with an empty key": lambda i, _: hmac_signed(
        {"alg": "HS256", "kid": "RSA"}, i.claims(), b""
    ),
    "a tampered payload": lambda i, _: _tampered(i),
    "a stranger's key in our key's name": _own_key,
    "jwk in the header": lambda i, s: _own_key(i, s, jwk=_jwk(s)),
    "jku elsewhere": lambda i, s: _own_key(i, s, jku=f"{s.url}/jku/keys"),
    "x5u elsewhere": lambda i, s: _own_key(i, s, x5u=f"{s.url}/x5u/keys"),
    "RS256 for an EC key": lambda i, _: i.token("EC", header={"alg": "RS256"}),
    "another issuer's token": lambda _, s: s.token("EC"),
    "another issuer's word for ours": lambda i, s: s.token("EC", s.claims(iss=i.url)),
    "another issuer in our key's name": lambda i, s: i.token("EC", i.claims(iss=s.url)),
    "an unknown critical header": lambda i, _: i.token("EC", header={"crit": ["x"], "x": 1}),
    "no kid": lambda i, _: i.token("EC", header={"kid": None}),
    "a foreign kid": lambda i, _: i.token("EC", header={"kid": "nobodys"}),
    "a kid that is a path": lambda i, _: i.token("EC", header={"kid": "../../etc/passwd"}),
    "a kid that is no text": lambda i, _: i.token("EC", header={"kid": ["EC"]}),
    "a huge token": lambda i, _: i.token("EC", i.claims(more="x" * 7000)),
    "deep nesting": lambda _, __: encode(NESTED) + ".e30.AAAA",
    "a header that is not JSON": lambda _, __: "eyJzFd.e30.AAAA",
    "not base64": lambda _, __: "eyJ!.e30.AAAA",
}
CLAIMS: dict[str, dict[str, Any]] = {
    "wrong issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "wrong audience": {"aud": "another-service"},
    "audiences without ours": {"aud": ["another-service", "agent-runner2"]},
    "no audience": {"aud": None},
    "expired": {"exp": int(time.time()) - 60},
    "no end": {"exp": None},
    "an end that is no number": {"exp": "2999-01-01"},
    "an end of NaN": {"exp": float("nan")},
    "not yet": {"nbf": int(time.time()) + 3600},
    "issued tomorrow": {"iat": int(time.time()) + 86_400},
    "nobody": {"sub": None},
    "a subject that hides": {"sub": "ada\nrole: owner"},
    "an unknown tenant": {"tenant": "no-such-tenant"},
    "no tenant": {"tenant": None},
    "a tenant that is no text": {"tenant": ["o-acme"]},
    "an unknown role": {"role": "owner"},
    "no role": {"role": None},
    "a role that is no text": {"role": {"developer": True}},
}


@pytest.mark.parametrize("attack", FORGED)
def test_a_forged_token_is_refused(
    trusting: Deployment, issuer: Provider, stranger: Provider, attack: str
) -> None:
    """The words are those for a wrong key; the same token with a right signature passes."""
    stranger.requests.clear()
    refused = get(trusting, FORGED[attack](issuer, stranger))
    assert (refused.status_code, refused.json()["detail"]) == (401, ANSWER)
    assert stranger.requests == [], "nothing that a token names is asked"
    assert get(trusting, issuer.token("EC")).status_code == 200


@pytest.mark.parametrize("attack", CLAIMS)
def test_a_claim_that_is_wrong_is_refused(
    trusting: Deployment, issuer: Provider, attack: str
) -> None:
    """The issuer itself signed it, and only this claim differs."""
    refused = get(trusting, issuer.token("EC", issuer.claims(**CLAIMS[attack])))
    assert (refused.status_code, refused.json()["detail"]) == (401, ANSWER)
    assert get(trusting, issuer.token("EC")).status_code == 200


@pytest.mark.parametrize(
    ("claims", "header"),
    [
        ({"aud": ["another-service", AUDIENCE]}, {}),
        ({"exp": int(time.time()) + 86_400}, {}),
        ({"more": "x" * 2000}, {}),
        ({"tenant": "o-other"}, {}),
        ({}, {"jku": "https://evil.example/keys"}),
        ({}, {"unknown": "header"}),
        ({}, {"typ": "at+jwt"}),
    ],
)
def test_what_is_harmless_passes(
    trusting: Deployment, issuer: Provider, claims: dict[str, Any], header: dict[str, Any]
) -> None:
    """The controls: what an attack carries besides is not the reason of its refusal."""
    token = issuer.token("EC", issuer.claims(**claims), header=header)
    assert get(trusting, token).status_code == 200


def test_the_forger_can_sign_what_passes(trusting: Deployment, issuer: Provider) -> None:
    """The control of the forgeries: the same code with the right key makes a good token."""
    header = {"alg": "RS256", "kid": "RSA"}
    token = sign(header, issuer.claims(), issuer.keys["RSA"], "RS256")
    assert get(trusting, token).status_code == 200


def test_a_tenant_that_is_suspended_may_only_read(trusting: Deployment, issuer: Provider) -> None:
    """The same holds for its keys."""
    trusting.key("o-suspended")
    trusting.sql(
        "UPDATE tenants SET suspended_at = now(), suspended_why = 'test' WHERE name = 'o-suspended'"
    )
    token = issuer.token("EC", issuer.claims(tenant="o-suspended"))
    assert get(trusting, token, "/v1/executions").status_code == 200
    headers = {"Authorization": f"Bearer {token}"}
    body = {"command": ["true"]}
    refused = httpx.post(f"{trusting.url}/v1/executions", json=body, headers=headers)
    assert refused.status_code == 403


def accepting(trusting: Deployment, issuer: Provider, **changed: Any) -> tuple[Issuer, Database]:
    """Return a separate checker with time limits of its own."""
    asking = Asking(**{"keys_last_s": 60.0, "ask_again_s": 0.0, "answer_s": 2.0, **changed})
    trust = Trust(
        issuer.url, AUDIENCE, "tenant", "role", {"developer": Role.DEVELOPER}, asking=asking
    )
    database = Database(SecretStr(trusting.stack.services.api_url), max_size=1)
    return Issuer(trust, database), database


async def test_a_new_key_is_found_and_an_old_one_is_dead(trusting: Deployment) -> None:
    """After a rotation, a replayed token of the old key is refused."""
    with provider() as rotating:
        rotating.rotate("first")
        checker, database = accepting(trusting, rotating)
        async with database:
            old = rotating.token("first")
            assert isinstance(await checker.authenticate(old, ANSWER), Principal)
            rotating.rotate("second")
            assert isinstance(
                await checker.authenticate(rotating.token("second"), ANSWER), Principal
            )
            with pytest.raises(NotAuthenticated):
                await checker.authenticate(old, ANSWER)


async def test_made_up_keys_do_not_make_us_ask_again_and_again(trusting: Deployment) -> None:
    """There is one request within the interval; without it, there would be one per token."""
    for ask_again_s, most in ((60.0, 1), (0.0, 21)):
        with provider() as asked:
            asked.rotate("known")
            checker, database = accepting(trusting, asked, ask_again_s=ask_again_s)
            async with database:
                await checker.authenticate(asked.token("known"), ANSWER)
                for number in range(20):
                    token = asked.token("known", header={"kid": f"made-up-{number}"})
                    with pytest.raises(NotAuthenticated):
                        await checker.authenticate(token, ANSWER)
            assert asked.requests.count("/keys") == most


async def test_keys_last_while_the_issuer_is_away_and_no_longer(
    trusting: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known keys work until their time; then everybody is refused, and may try again."""
    late_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + late_s)
    monkeypatch.setattr(providers, "time", clock)
    with provider() as away:
        away.rotate("known")
        checker, database = accepting(trusting, away, keys_last_s=600.0)
        async with database:
            token = away.token("known")
            await checker.authenticate(token, ANSWER)
            away.down = True
            await checker.authenticate(token, ANSWER)
            late_s = 601.0
            with pytest.raises(IssuerUnavailable):
                await checker.authenticate(token, ANSWER)
            away.down = False
            await checker.authenticate(token, ANSWER)


@pytest.mark.parametrize(
    "says",
    [
        {"issuer": "https://evil.example"},
        {"jwks_uri": "http://192.0.2.1/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_a_discovery_document_that_is_not_the_issuers_gives_no_keys(
    trusting: Deployment, says: dict[str, Any]
) -> None:
    """It names another issuer, or an address where others could change the keys."""
    with provider() as odd:
        odd.rotate("known")
        checker, database = accepting(trusting, odd)
        odd.says = says
        async with database:
            with pytest.raises(IssuerUnavailable):
                await checker.authenticate(odd.token("known"), ANSWER)
            odd.says = {}
            await checker.authenticate(odd.token("known"), ANSWER)
