"""Tokens of an identity provider: JWTs, checked with the keys that it publishes.

The checks are those of RFC 8725 (JWT Best Current Practices). Our own list says which algorithms
are accepted, never the token. Keys come from the issuer's own document, never from the token
(`jku`, `jwk` and `x5u` are ignored). There is one issuer, our audience, and an end. The operator
says which tenant and role a token gives; a token can name them only in the claims that were set.

Bearer tokens come from clients. ID tokens come from the provider itself, when somebody signs in to
the console (`sign_in`): they have another audience, and must answer the question that was asked.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from joserfc import jws, jwt
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry

from runner.auth.grants import RANK
from runner.auth.provider import ALGORITHMS, Asking, Provider, Unacceptable
from runner.store import users
from runner.store.db import Database
from runner.store.users import FoundIdentity
from runner.words.errors import NotAuthenticated, NotPermitted
from runner.words.execution import JSON
from runner.words.principal import Principal, PrincipalKind, Role

TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What a token may say that it is. `at+jwt` is an access token (RFC 9068 4); many providers write
`JWT`. Others, such as `logout+jwt`, were made for something else (RFC 8725 3.11)."""
ID_TYPES = frozenset({"jwt"})
"""What an ID token may say that it is."""
NO_MEMBER = (
    "the token is valid, but its subject stands for no member of that tenant, or of any: the "
    "operator can change this with `runner members link`"
)
SEVERAL = "you belong to several tenants: name one of them in the header X-Runner-Tenant"
MAX_TOKEN = 8192
MAX_SUBJECT = 255
LEEWAY_S = 30


@dataclass(frozen=True, slots=True)
class Trust:
    """The tokens that are accepted, and what their claims mean here.

    `mcp_audience` is the audience of tokens for `/mcp`, if it is another one. With `members`, a
    token's subject stands for a member here, who has the role of their membership.
    """

    issuer: str
    audience: str
    tenant_claim: str
    role_claim: str
    roles: Mapping[str, Role]
    mcp_audience: str | None = None
    members: bool = False
    asking: Asking = field(default_factory=Asking)


@dataclass(frozen=True, slots=True)
class Identified:
    """Whom the provider has identified, and the members here that the subject stands for."""

    subject: str
    members: Sequence[FoundIdentity]


class _Registry(JWSRegistry):
    """Replaces the library's list of algorithms by ours."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(f"{name!r} is not accepted")
        return self.algorithms[name]


class Issuer:
    """One identity provider: `authenticate` for bearer tokens, `identified` for ID tokens."""

    def __init__(self, trust: Trust, database: Database) -> None:
        self.provider = Provider(trust.issuer, trust.asking)
        self._trust = trust
        self._database = database
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
        except (Unacceptable, JoseError, ValueError, RecursionError) as error:
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

    async def identified(
        self, id_token: str, client_id: str, nonce: str, tenant: str | None
    ) -> Identified:
        """Return whom an ID token is about (OpenID Connect Core 3.1.3.7).

        It must be for this client and answer the request that this nonce was sent with, so a token
        of another sign-in or of another client is worth nothing here (RFC 9700 4.5.3). Raises
        Unacceptable, and IssuerUnavailable.
        """
        try:
            claims = await self._verified(id_token, _id_claims(self._trust, client_id), ID_TYPES)
            # The library would take a list with the nonce in it.
            if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
                raise Unacceptable("it answers another request")
            several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
            if claims.get("azp", None if several else client_id) != client_id:
                raise Unacceptable("it was made for another client")
            subject, name = _subject(claims), self._tenant(claims, tenant)
        except (JoseError, ValueError, RecursionError) as error:
            raise Unacceptable(f"{type(error).__name__}") from error
        return Identified(subject, await self._members(subject, name))

    async def _members(self, subject: str, tenant: str | None) -> Sequence[FoundIdentity]:
        async with self._database.no_tenant() as tx:
            return await users.find_identity(tx, self._trust.issuer, subject, tenant)

    async def _member(self, subject: str, tenant: str | None, ends_at: float) -> Principal:
        """Return the member that the subject stands for. Raises NotPermitted."""
        found = await self._members(subject, tenant)
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

    async def _verified(
        self, token: str, wanted: jwt.JWTClaimsRegistry, types: frozenset[str] = TYPES
    ) -> dict[str, JSON]:
        if len(token) > MAX_TOKEN:
            raise Unacceptable("too long")
        header = jws.extract_compact(token.encode(), registry=self._registry).headers()
        kid, algorithm = header.get("kid"), header.get("alg")
        if not isinstance(kid, str) or not isinstance(algorithm, str):
            raise Unacceptable("it must name its key and its algorithm")
        if algorithm not in ALGORITHMS:
            raise Unacceptable("not an algorithm that is accepted")
        if str(header.get("typ", "JWT")).lower() not in types:
            raise Unacceptable("made for something else")
        key = await self.provider.key(kid)
        if key.alg not in {None, algorithm}:
            raise Unacceptable("not the algorithm of its key")
        decoded = jwt.decode(token, key, registry=self._registry)
        wanted.validate(decoded.claims)
        if "cnf" in decoded.claims:
            # It is bound to a key that nobody has proven to hold here (RFC 9449 7.1, RFC 8705 3).
            raise Unacceptable("not a bearer token")
        return decoded.claims

    def _tenant(self, claims: Mapping[str, JSON], asked: str | None) -> str | None:
        """Return the tenant that the token, or else the request, names: never another one."""
        name = claims.get(self._trust.tenant_claim)
        if name is None and self._trust.members:
            return asked
        if not isinstance(name, str):
            raise Unacceptable("it names no tenant")
        if asked not in {None, name}:
            raise Unacceptable("it is for another tenant")
        return name

    def _role(self, claims: Mapping[str, JSON]) -> Role:
        """Return the highest role that the claim's value, or one of its values, stands for."""
        value = claims.get(self._trust.role_claim)
        values: Sequence[JSON] = value if isinstance(value, list) else [value]
        known = self._trust.roles
        roles = {known[each] for each in values if isinstance(each, str) and each in known}
        if not roles:
            raise Unacceptable("it names no role")
        return min(roles, key=RANK.__getitem__)


def _claims_for(trust: Trust, audience: str) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        leeway=LEEWAY_S,
        iss={"essential": True, "value": trust.issuer},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
    )


def _id_claims(trust: Trust, client_id: str) -> jwt.JWTClaimsRegistry:
    wanted = _claims_for(trust, client_id)
    wanted.options |= {"iat": {"essential": True}, "nonce": {"essential": True}}
    return wanted


def looks_like_one(token: str) -> bool:
    """Return whether a bearer token may be a JWT: three parts, the first of them `{"…`."""
    return token.startswith("eyJ") and token.count(".") == 2  # noqa: PLR2004 - RFC 7515 7.1


def _subject(claims: Mapping[str, JSON]) -> str:
    """Return the subject: at most 255 visible ASCII characters (OpenID Connect Core 2)."""
    subject = claims["sub"]
    if not (
        isinstance(subject, str)
        and 0 < len(subject) <= MAX_SUBJECT
        and subject.isascii()
        and subject.isprintable()
    ):
        raise Unacceptable("it names nobody")
    return subject
