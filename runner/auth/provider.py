"""What an identity provider publishes, and its answer to a code: keys, endpoints, ID tokens.

The provider is asked at the addresses of its own discovery document, over TLS (OpenID Connect
Discovery 4). No redirect is followed and no proxy of the environment is used: exactly the address
that was set, or that its document names, is asked. Answers are bounded in size and time.
"""

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from pydantic import SecretStr

from runner.base.forms import is_trustworthy
from runner.words.errors import IssuerUnavailable
from runner.words.execution import JSON

ALGORITHMS = frozenset(
    {
        "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
        "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
    }
)  # fmt: skip
"""Signatures only: anybody could sign with `none`, and whoever has the public key with HMAC."""
MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 64
MIN_RSA_BITS = 2048
WELL_KNOWN = "/.well-known/openid-configuration"
BASIC = "client_secret_basic"
_KINDS: Mapping[str, type[RSAKey | ECKey | OKPKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

_log = structlog.get_logger("runner.api")


class Unacceptable(Exception):
    """The fault of a token, a document or an answer. Whoever presents it never hears it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How the provider is asked.

    What it publishes is fetched again after `keys_last_s`, or if a token names an unknown key, but
    never twice within `ask_again_s`. One answer may take `answer_s`.
    """

    keys_last_s: float = 600.0
    ask_again_s: float = 30.0
    answer_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Client:
    """This deployment, as the provider knows it. Without a secret, it is a public client."""

    id: str
    callback: str
    secret: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where people sign in, where a code is exchanged, and how.

    With `names_itself`, each answer by way of a browser says whose it is (RFC 9207).
    """

    authorization: str
    token: str
    names_itself: bool
    methods: tuple[str, ...]


@dataclass(slots=True)
class _Known:
    """What the provider has published, and when it was fetched."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    endpoints: Endpoints | None = None
    fetched: float = float("-inf")
    asked: float = float("-inf")


class Provider:
    """One identity provider, by the name that its tokens have."""

    def __init__(self, issuer: str, asking: Asking) -> None:
        self.issuer = issuer
        self._asking = asking
        self._known = _Known()
        self._turn = asyncio.Lock()

    async def key(self, kid: str) -> Key:
        """Return the key of that id. Raises Unacceptable, and IssuerUnavailable."""
        if (found := self._fresh(kid)) is None:
            async with self._turn:
                # Another request may have fetched them while this one waited.
                if self._fresh(kid) is None:
                    await self._ask()
            found = self._fresh(kid)
        if found is not None:
            return found
        if not self._is_fresh():
            raise IssuerUnavailable("the identity provider does not give its keys; try again")
        raise Unacceptable("no such key")

    async def endpoints(self) -> Endpoints:
        """Return where people sign in. Raises IssuerUnavailable."""
        if not self._is_fresh():
            async with self._turn:
                if not self._is_fresh():
                    await self._ask()
        if not self._is_fresh() or self._known.endpoints is None:
            raise IssuerUnavailable("the identity provider does not say where to sign in")
        return self._known.endpoints

    async def id_token(self, client: Client, code: str, verifier: str) -> str:
        """Exchange a code for the ID token (OpenID Connect Core 3.1.3), which nobody checked yet.

        The verifier proves that the code was asked for by whoever presents it (RFC 7636 4.5).
        Raises Unacceptable, and IssuerUnavailable.
        """
        endpoints = await self.endpoints()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.callback,
            "code_verifier": verifier,
        }
        headers = _proof(client, endpoints, form)
        try:
            async with (
                asyncio.timeout(self._asking.answer_s),
                self._http() as http,
            ):
                answer = await _document(http, endpoints.token, form, headers)
        except (httpx.HTTPError, TimeoutError) as error:
            raise IssuerUnavailable("the identity provider does not answer; try again") from error
        except (ValueError, RecursionError) as error:
            raise Unacceptable("no answer of a token endpoint") from error
        except Unacceptable as error:
            # Mostly a setting that differs from the provider's: only the operator can mend it.
            _log.warning("oidc_code_refused", answer=str(error))
            raise
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Unacceptable("no ID token")
        return token

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._known.fetched < self._asking.keys_last_s

    def _fresh(self, kid: str) -> Key | None:
        return self._known.keys.get(kid) if self._is_fresh() else None

    async def _ask(self) -> None:
        """Fetch what is published and replace all that is known. Without an answer, nothing."""
        now = time.monotonic()
        if now - self._known.asked < self._asking.ask_again_s:
            return
        self._known.asked = now
        try:
            keys, endpoints = await self._fetch()
        except (Unacceptable, httpx.HTTPError, ValueError, RecursionError, TimeoutError):
            # A request that needs an unknown key is told; known keys keep their time.
            return
        self._known.keys = keys
        self._known.endpoints = endpoints
        self._known.fetched = now

    async def _fetch(self) -> tuple[Mapping[str, Key], Endpoints | None]:
        async with asyncio.timeout(self._asking.answer_s), self._http() as http:
            found = await _document(http, self.issuer.rstrip("/") + WELL_KNOWN)
            if found.get("issuer") != self.issuer:
                raise Unacceptable("the document is another issuer's")
            place = found.get("jwks_uri")
            if not isinstance(place, str) or not is_trustworthy(place):
                raise Unacceptable("its keys are not where they can be trusted")
            return _keys(await _document(http, place)), _endpoints(found)

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(trust_env=False, timeout=self._asking.answer_s)


def _endpoints(found: Mapping[str, JSON]) -> Endpoints | None:
    """Return the endpoints of a document; None if it has none that can be trusted."""
    authorization, token = found.get("authorization_endpoint"), found.get("token_endpoint")
    if not isinstance(authorization, str) or not isinstance(token, str):
        return None
    # RFC 6749 3.1 and 3.2: over TLS, and without a fragment.
    if not all(
        is_trustworthy(each) and not urlsplit(each).fragment for each in (authorization, token)
    ):
        return None
    methods = found.get("token_endpoint_auth_methods_supported")
    return Endpoints(
        authorization,
        token,
        names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        methods=tuple(map(str, methods)) if isinstance(methods, list) else (BASIC,),
    )


def _proof(client: Client, endpoints: Endpoints, form: dict[str, str]) -> dict[str, str]:
    """Return the headers that prove who asks, or add that to the form (RFC 6749 2.3.1)."""
    if client.secret is None:
        form["client_id"] = client.id
        return {}
    secret = client.secret.get_secret_value()
    if BASIC not in endpoints.methods:
        form |= {"client_id": client.id, "client_secret": secret}
        return {}
    pair = f"{quote_plus(client.id)}:{quote_plus(secret)}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


async def _document(
    http: httpx.AsyncClient,
    url: str,
    form: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, JSON]:
    # Not packed: what a few bytes unpack to has no bound.
    wanted = {"Accept": "application/json", "Accept-Encoding": "identity", **(headers or {})}
    method = "GET" if form is None else "POST"
    async with http.stream(method, url, headers=wanted, data=form) as answer:
        body = b""
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > MAX_DOCUMENT:
                raise Unacceptable("too long")
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            answer.raise_for_status()
        if answer.status_code != httpx.codes.OK:
            raise Unacceptable(f"{answer.status_code} {_error(body)}".strip())
    found = json.loads(body)
    if not isinstance(found, dict):
        raise Unacceptable("not an object")
    return found


def _error(body: bytes) -> str:
    """Return the code of an error in an answer (RFC 6749 5.2), such as `invalid_grant`."""
    try:
        return code_of(json.loads(body).get("error"))
    except (ValueError, AttributeError, RecursionError):
        return ""


def code_of(error: JSON) -> str:
    """Return a short code of an error that a log may hold; empty for anything else."""
    return error[:64] if isinstance(error, str) and error.isascii() and error.isprintable() else ""


def _keys(document: Mapping[str, JSON]) -> Mapping[str, Key]:
    """Return the public keys that may sign, by id; skip everything else."""
    offered = document.get("keys")
    if not isinstance(offered, list):
        raise Unacceptable("no keys")
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
