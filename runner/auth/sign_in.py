"""Signing in at the identity provider: OpenID Connect's code flow, with PKCE, for the console.

    browser ── begin ──→ API: a secret in a cookie of this browser; an open sign-in in Redis
            ──→ provider: state, nonce, and the hash of the verifier (RFC 7636, S256)
            ── code ──→ API: the cookie must fit the state, and the sign-in must still be open
                         └──→ provider: code and verifier, for an ID token with that nonce

The rules are those of RFC 9700 (OAuth's security), RFC 9207 (whose answer it is) and OpenID Connect
Core 3.1; each is named where it is kept. `open_sign_ins` holds what is under way: each sign-in can
be finished once, by the browser that began it.

What comes out is a session like one by password (`login`). It rests on the link between the subject
and the member, and ends with it. A refusal is a value; the console has a sentence for each.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from runner.audit.events import Origin
from runner.auth.login import Logins
from runner.auth.oidc import Issuer
from runner.auth.open_sign_ins import OpenSignIn, OpenSignIns, Secret
from runner.auth.provider import Client, Unacceptable, code_of
from runner.auth.sessions import SessionId
from runner.words.errors import (
    NotAuthenticated,
    NotReady,
    TooManyAttempts,
)

SCOPE = "openid"
_PLACE = re.compile(r"[!-~]{1,500}", re.ASCII)
"""A page of the console, as what stands behind `/console#/`: no spaces, no control characters."""


class Refusal(StrEnum):
    """Why nobody was signed in."""

    DENIED = "denied"
    """The provider says that the person, or a rule of it, did not want it."""
    STALE = "stale"
    """Not begun in this browser, finished already, or begun too long ago."""
    NO_MEMBER = "no-member"
    SEVERAL = "several"
    """The subject stands for members of several tenants, and none was named."""
    REFUSED = "refused"
    """The answer is not one of this provider to this sign-in."""
    UNAVAILABLE = "unavailable"
    TOO_MANY = "too-many"
    INVALID = "invalid"
    """The address that led here is none of a sign-in."""
    NO_PROVIDER = "no-provider"


@dataclass(frozen=True, slots=True)
class Returned:
    """The parameters with which the provider has sent a browser back (RFC 6749 4.1.2)."""

    state: str | None = None
    code: str | None = field(default=None, repr=False)
    error: str | None = None
    issuer: str | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A new session, and the page of the console to go on at."""

    session: SessionId
    place: str


@dataclass(frozen=True, slots=True)
class SignIns:
    """The parts that signing in at the provider takes. `name` is what people call it."""

    name: str
    client: Client
    issuer: Issuer
    logins: Logins
    open: OpenSignIns

    async def begin(self, secret: Secret, begun: OpenSignIn) -> str | Refusal:
        """Return the address at the provider that a browser with this secret is sent to."""
        try:
            endpoints = await self.issuer.provider.endpoints()
            await self.open.put(secret, begun)
        except NotReady:
            return Refusal.UNAVAILABLE
        return _with(
            endpoints.authorization,
            {
                "response_type": "code",
                "client_id": self.client.id,
                "redirect_uri": self.client.callback,
                "scope": SCOPE,
                "state": secret.state,
                "nonce": secret.nonce,
                "code_challenge": secret.challenge,
                "code_challenge_method": "S256",
            },
        )

    async def finish(
        self, secret: Secret | None, returned: Returned, origin: Origin
    ) -> SignedIn | Refusal:
        """Return a new session for whoever the provider says came back."""
        if secret is None or not _same(returned.state, secret.state):
            # Somebody else's answer, or nobody's: the sign-in of this browser stays open.
            return Refusal.STALE
        try:
            begun = await self.open.take(secret)
            if begun is None:
                return Refusal.STALE
            await self.logins.count(origin)
            return await self._finish(secret, begun, returned, origin)
        except NotReady:
            return Refusal.UNAVAILABLE
        except TooManyAttempts:
            return Refusal.TOO_MANY
        except Unacceptable as error:
            await self.logins.not_signed_in(str(error), origin)
            return Refusal.REFUSED

    async def _finish(
        self, secret: Secret, begun: OpenSignIn, returned: Returned, origin: Origin
    ) -> SignedIn | Refusal:
        provider = self.issuer.provider
        endpoints = await provider.endpoints()
        if returned.issuer is None:
            if endpoints.names_itself:
                raise Unacceptable("the answer does not say whose it is")
        elif returned.issuer != provider.issuer:
            # RFC 9207 2.4: the code belongs to another provider, which must not get it from us.
            raise Unacceptable("the answer is another issuer's")
        if returned.error is not None:
            if returned.error == "access_denied":
                return Refusal.DENIED
            raise Unacceptable(f"the provider answered {code_of(returned.error)}")
        if returned.code is None:
            raise Unacceptable("no code")
        token = await provider.id_token(self.client, returned.code, secret.verifier)
        found = await self.issuer.identified(token, self.client.id, secret.nonce, begun.tenant)
        if len(found.members) != 1:
            why = "member of several tenants" if found.members else "nobody of that subject"
            await self.logins.not_signed_in(why, origin, found.subject)
            return Refusal.SEVERAL if found.members else Refusal.NO_MEMBER
        try:
            session = await self.logins.begin_by_link(found.members[0], origin)
        except NotAuthenticated:
            return Refusal.NO_MEMBER
        if begun.replaces is not None:
            await self.logins.replaced(bytes.fromhex(begun.replaces))
        return SignedIn(session, place_in_console(begun.place))


def place_in_console(text: str | None) -> str:
    """Return a page of the console as it was asked for; the first page for anything else.

    An address is made by putting this behind `/console#/`. So whatever it is, it leads nowhere else
    (RFC 9700 4.11: no open redirector); the form keeps control characters out of headers.
    """
    return text if text and _PLACE.fullmatch(text) else ""


def _same(given: str | None, wanted: str) -> bool:
    return hmac.compare_digest((given or "").encode(), wanted.encode())


def _with(address: str, parameters: Mapping[str, str]) -> str:
    """Return an address with these parameters beside its own (RFC 6749 3.1)."""
    parts = urlsplit(address)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()])
    return urlunsplit(parts._replace(query=query))
