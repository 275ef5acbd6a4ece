"""Bearer tokens of an identity provider: JWTs, checked with the keys that it publishes.

The checks are those of RFC 8725 (JWT Best Current Practices). Our own list says which algorithms
are accepted, never the token. Keys come from the issuer's own document, never from the token
(`jku`, `jwk` and `x5u` are ignored). There is one issuer, our audience, and an end. The operator
says which tenant and role a token gives; a token can name them only in the claims that were set.
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import httpx
from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from runner.auth.grants import RANK
from runner.base.forms import is_trustworthy
from runner.store import users
from runner.store.db import Database
from runner.words.errors import IssuerUnavailable, NotAuthenticated, NotPermitted
from runner.words.execution import JSON
from runner.words.principal import Principal, PrincipalKind, Role

ALGORITHMS = frozenset(
    {
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
        "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    }
)  # fmt: skip
"""Signatures only: anybody could sign with `none`, and whoever has the public key with HMAC."""
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What a token may say that it is. `at+jwt` is an access token (RFC 9068 4); many providers write
`JWT`. Others, such as `logout+jwt`, were made for something else (RFC 8725 3.11)."""
NO_MEMBER = (
    "the token is valid, but its subject stands for no member of that tenant, or of any: the "
    "operator can change this with `runner members link`"
)
SEVERAL = "you belong to several tenants: name one of them in the header X-Runner-Tenant"
MAX_TOKEN = 8192
MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 64
MAX_SUBJECT = 255
LEEWAY_S = 30
MIN_RSA_BITS = 2048
WELL_KNOWN = "/.well-known/openid-configuration"
_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


@dataclass(frozen=True, slots=True)
class Trust:
    """The tokens that are accepted, and what their claims mean here.

    `mcp_audience` is the audience of tokens for `/mcp`, if it is another one. With `members`, a
    token's subject stands for a member here, who has the role of their membership. The keys are
    fetched again after `keys_last_s`, or if a token names an unknown one, but never twice within
    `ask_again_s`.
    """

    issuer: str
    audience: str
    tenant_claim: str
    role_claim: str
    roles: Mapping[str, Role]
    mcp_audience: str | None = None
    members: bool = False
    keys_last_s: float = 600.0
    ask_again_s: float = 30.0
    answer_s: float = 5.0


@dataclass(slots=True)
class _Known:
    """The issuer's keys by their ids, and when they were fetched."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    fetched: float = float("-inf")
    asked: float = float("-inf")


class _Unacceptable(Exception):
    """The fault of a token or a document. Whoever presents the token never hears it."""


class _Registry(JWSRegistry):
    """Replaces the library's list of algorithms by ours."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"{name!r} is not accepted")
        return self.algorithms[name]


class Issuer:
    """One identity provider. `authenticate` makes its tokens principals."""

    def __init__(self, trust: Trust, database: Database) -> None:
        self._trust = trust
        self._database = database
        self._known = _Known()
        self._asking = asyncio.Lock()
        # Unregistered header fields are ignored (RFC 7515 4), unless `crit` says that they must not
        # be.
        self._registry = _Registry(strict_check_header=False)
        self._claims = _claims_for(trust, trust.audience)
        self._mcp_claims = _claims_for(trust, trust.mcp_audience or trust.audience)

    async def authenticate(
        self, token: str, answer: str, *, tenant: str | None = None, at_mcp: bool = False
    ) -> Principal:
        """Return the principal that the token describes, for `/mcp` or for everything else.

        `tenant` is the name of the tenant that the request is for, if it says so. Raises
        NotAuthenticated with the words of `answer`, whatever is wrong with the token; NotPermitted
        if the token is right, but the person is no member there, or of several tenants; and
        IssuerUnavailable if the issuer's keys are not known and cannot be fetched.
        """
        try:
            claims = await self._verified(token, self._mcp_claims if at_mcp else self._claims)
            subject = _subject(claims)
            name = self._tenant(claims, tenant)
            role = None if self._trust.members else self._role(claims)
        except (_Unacceptable, JoseError, ValueError, RecursionError) as error:
            raise NotAuthenticated(answer) from error
        if role is None:
            return await self._member(subject, name, claims["exp"] + LEEWAY_S)
        async with self._database.no_tenant() as tx:
            standing = await users.standing(tx, name) if name else None
        if standing is None:
            raise NotAuthenticated(answer)
        return Principal(
            tenant_id=standing.tenant_id,
            id=uuid5(NAMESPACE_URL, f"{self._trust.issuer}#{subject}"),
            kind=PrincipalKind.USER,
            name=f"oidc:{subject}",
            role=role,
            tier=standing.tier,
            suspended=standing.suspended,
            ends_at=claims["exp"] + LEEWAY_S,
        )

    async def _member(self, subject: str, tenant: str | None, ends_at: float) -> Principal:
        """Return the member that the subject stands for. Raises NotPermitted."""
        async with self._database.no_tenant() as tx:
            found = await users.find_identity(tx, self._trust.issuer, subject, tenant)
        if len(found) != 1:
            raise NotPermitted(SEVERAL if found else NO_MEMBER)
        (member,) = found
        return Principal(
            tenant_id=member.tenant_id,
            id=member.user_id,
            kind=PrincipalKind.USER,
            name=str(member.user_id),
            role=member.role,
            tier=member.tier,
            suspended=member.suspended,
            login_id=member.identity_id,
            ends_at=ends_at,
        )

    async def _verified(self, token: str, wanted: jwt.JWTClaimsRegistry) -> dict[str, JSON]:
        if len(token) > MAX_TOKEN:
            raise _Unacceptable("too long")
        header = jws.extract_compact(token.encode(), registry=self._registry).headers()
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(kid, str) or not isinstance(algorithm, str):
            raise _Unacceptable("it must name its key and its algorithm")
        if algorithm not in ALGORITHMS:
            raise _Unacceptable("not an algorithm that is accepted")
        if str(header.get("typ", "JWT")).lower() not in TYPES:
            raise _Unacceptable("not an access token")
        key = await self._key(kid)
        if key.alg not in {None, algorithm}:
            raise _Unacceptable("not the algorithm of its key")
        decoded = jwt.decode(token, key, registry=self._registry)
        wanted.validate(decoded.claims)
        if "cnf" in decoded.claims:
            # It is bound to a key that nobody has proven to hold here (RFC 9449 7.1, RFC 8705 3).
            raise _Unacceptable("not a bearer token")
        return decoded.claims

    async def _key(self, kid: str) -> Key:
        if (found := self._fresh(kid)) is not None:
            return found
        async with self._asking:
            # Another request may have fetched them while this one waited.
            if (found := self._fresh(kid)) is not None:
                return found
            now = time.monotonic()
            if now - self._known.asked >= self._trust.ask_again_s:
                await self._ask(now)
        if (found := self._fresh(kid)) is not None:
            return found
        if not self._is_fresh():
            raise IssuerUnavailable("the identity provider does not give its keys; try again")
        raise _Unacceptable("no such key")

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._known.fetched < self._trust.keys_last_s

    def _fresh(self, kid: str) -> Key | None:
        return self._known.keys.get(kid) if self._is_fresh() else None

    async def _ask(self, now: float) -> None:
        """Fetch the keys and replace all known ones. Without an answer, nothing changes."""
        self._known.asked = now
        try:
            keys = await self._fetch()
        except (_Unacceptable, httpx.HTTPError, ValueError, RecursionError, TimeoutError):
            # A request that needs an unknown key is told; known keys keep their time.
            return
        self._known.keys = keys
        self._known.fetched = now

    async def _fetch(self) -> Mapping[str, Key]:
        trust = self._trust
        # Follow no redirects and use no proxy of the environment: ask exactly the address that was
        # set.
        async with (
            asyncio.timeout(trust.answer_s),
            httpx.AsyncClient(trust_env=False, timeout=trust.answer_s) as client,
        ):
            found = await _document(client, trust.issuer.rstrip("/") + WELL_KNOWN)
            if found.get("issuer") != trust.issuer:
                raise _Unacceptable("the document is another issuer's")
            place = found.get("jwks_uri")
            if not isinstance(place, str) or not is_trustworthy(place):
                raise _Unacceptable("its keys are not where they can be trusted")
            return _keys(await _document(client, place))

    def _tenant(self, claims: Mapping[str, JSON], asked: str | None) -> str | None:
        """Return the tenant that the token, or else the request, names: never another one."""
        name = claims.get(self._trust.tenant_claim)
        if name is None and self._trust.members:
            return asked
        if not isinstance(name, str):
            raise _Unacceptable("it names no tenant")
        if asked not in {None, name}:
            raise _Unacceptable("it is for another tenant")
        return name

    def _role(self, claims: Mapping[str, JSON]) -> Role:
        """Return the highest role that the claim's value, or one of its values, stands for."""
        value = claims.get(self._trust.role_claim)
        values: Sequence[JSON] = value if isinstance(value, list) else [value]
        known = self._trust.roles
        roles = {known[each] for each in values if isinstance(each, str) and each in known}
        if not roles:
            raise _Unacceptable("it names no role")
        return min(roles, key=RANK.__getitem__)


def _claims_for(trust: Trust, audience: str) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        leeway=LEEWAY_S,
        iss={"essential": True, "value": trust.issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
    )


def looks_like_one(token: str) -> bool:
    """Return whether a bearer token may be a JWT: three parts, the first of them `{"…`."""
    return token.startswith("eyJ") and token.count(".") == 2  # noqa: PLR2004 - RFC 7515 7.1


async def _document(client: httpx.AsyncClient, url: str) -> dict[str, JSON]:
    # Not packed: what a few bytes unpack to has no bound.
    wanted = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=wanted) as answer:
        if answer.status_code != httpx.codes.OK:
            raise _Unacceptable(f"{answer.status_code}")
        body = b""
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise _Unacceptable("too long")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise _Unacceptable("not an object")
    return found


def _keys(document: Mapping[str, JSON]) -> Mapping[str, Key]:
    """Return the public keys that may sign, by id; skip everything else."""
    offered = document.get("keys")
    if not isinstance(offered, list):
        raise _Unacceptable("no keys")
    found: dict[str, Key] = {}
    for each in offered[:MAX_KEYS]:
        if isinstance(each, dict) and (key := _key(each)) is not None:
            found[each["kid"]] = key
    return found


def _key(offered: dict[str, Any]) -> Key | None:
    kind = _KINDS.get(str(offered.get("kty")))
    if kind is None or not isinstance(offered.get("kid"), str) or "d" in offered:
        return None
    if offered.get("use", "sig") != "sig" or str(offered.get("alg", "RS256")) not in ALGORITHMS:
        return None
    modulus = offered.get("n")
    if kind is RSAKey and not (isinstance(modulus, str) and len(modulus) * 6 >= MIN_RSA_BITS):
        return None
    try:
        return kind.import_key(offered)
    except (JoseError, ValueError):
        return None


def _subject(claims: Mapping[str, JSON]) -> str:
    """Return the subject: at most 255 visible ASCII characters (OpenID Connect Core 2)."""
    subject = claims["sub"]
    if not (
        isinstance(subject, str)
        and 0 < len(subject) <= MAX_SUBJECT
        and subject.isascii()
        and subject.isprintable()
    ):
        raise _Unacceptable("it names nobody")
    return subject
