"""An identity provider at which people sign in, and browsers that do: OpenID Connect's code flow.

It is strict as OpenID Connect Core 3.1, RFC 6749 and RFC 7636 demand, and a test can make it
careless in one place at a time, or let it issue an ID token that differs in one claim.
"""

import base64
import hashlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urljoin, urlsplit

import httpx

from runner.words.principal import Role
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment
from tests.support.issuers import AUDIENCE, Answer, Provider, new_key, provider
from tests.support.people import Person, joined, operate

CLIENT = "runner console"
SECRET = "a secret/with+signs:in it"  # noqa: S105 - of a provider that lives for one test
CALLBACK = "/v1/login/oidc/callback"
_addresses = count(2)
_codes = count()
HTML: Mapping[str, str] = {"Content-Type": "text/html; charset=utf-8"}


@dataclass
class OpenIdProvider:
    """Signs in `subject`, whoever comes, and notes what it was asked for."""

    provider: Provider
    callback: str
    secret: str | None = SECRET
    subject: str = "subject-of-ada"
    asks: bool = False
    """Whether it shows a page with a choice; by default, it sends browsers back at once."""
    pkce: bool = True
    once: bool = True
    names_itself: bool = True
    claims: dict[str, Any] = field(default_factory=dict)
    """What differs in its ID tokens; None leaves a claim out."""
    header: dict[str, Any] = field(default_factory=dict)
    forge: Callable[[dict[str, Any]], str] | None = None
    """Makes the ID token of the claims, in place of an honest signature."""
    granted: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    """What its token endpoint was sent."""

    def reset(self) -> None:
        """Be honest and strict again."""
        self.claims, self.header, self.forge = {}, {}, None
        self.pkce = self.once = self.names_itself = True
        self.attach()

    def attach(self, **says: Any) -> None:
        """Make the provider one at which people sign in; `says` changes its document."""
        url = self.provider.url
        self.provider.says = {
            "authorization_endpoint": f"{url}/authorize?realm=a%20b",
            "token_endpoint": f"{url}/token",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": self.names_itself,
            **says,
        }
        self.provider.more = self.answer

    def answer(self, method: str, path: str, body: bytes) -> Answer | None:
        """Answer one request."""
        asked = urlsplit(path)
        given = dict(parse_qsl(asked.query))
        match method, asked.path:
            case "GET", "/authorize":
                return self._page(given) if self.asks else self._send_back(given)
            case "GET", "/agree":
                return self._send_back(given)
            case "GET", "/decline":
                return self._to(given, error="access_denied")
            case "POST", "/token":
                return self._token(dict(parse_qsl(body.decode())))
            case _:
                return 404, {}, b""

    def grant(self, asked: Mapping[str, str]) -> str:
        """Return a code for a request."""
        code = f"code-{next(_codes)}"
        self.granted[code] = {**asked, "sub": self.subject}
        return code

    def _page(self, asked: Mapping[str, str]) -> Answer:
        query = escape(urlencode(asked))
        page = (
            "<!doctype html><title>Example SSO</title><h1>Example SSO</h1>"
            f"<a href='/agree?{query}'>Continue as Ada</a> <a href='/decline?{query}'>Cancel</a>"
        )
        return 200, HTML, page.encode()

    def _send_back(self, asked: Mapping[str, str]) -> Answer:
        wanted = {
            "response_type": "code", "client_id": CLIENT, "redirect_uri": self.callback,
            "code_challenge_method": "S256", "scope": "openid", "realm": "a b",
        }  # fmt: skip
        wrong = {name for name, value in wanted.items() if asked.get(name) != value}
        if wrong or not all(asked.get(each) for each in ("state", "nonce", "code_challenge")):
            return 400, HTML, f"wrong: {wrong}".encode()
        return self._to(asked, code=self.grant(asked))

    def _to(self, asked: Mapping[str, str], **back: str) -> Answer:
        told = {**back, "state": asked["state"], "session_state": "of no interest"}
        if self.names_itself:
            told["iss"] = self.provider.url
        return 302, {"Location": f"{asked['redirect_uri']}?{urlencode(told)}"}, b""

    def _token(self, form: dict[str, str]) -> Answer:
        self.forms.append(form)
        if not self._is_client(form):
            return 401, {}, b'{"error": "invalid_client"}'
        code = form.get("code", "")
        granted = self.granted.pop(code, None) if self.once else self.granted.get(code)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            granted is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != granted["redirect_uri"]
            or (self.pkce and challenge != granted["code_challenge"])
        ):
            return 400, {}, b'{"error": "invalid_grant"}'
        return 200, {}, json.dumps(self._tokens(granted)).encode()

    def _is_client(self, form: Mapping[str, str]) -> bool:
        proof = self.provider.credentials[-1]
        if self.secret is None:
            return proof is None and form.get("client_id") == CLIENT
        if form.get("client_secret") is not None:
            return (form.get("client_id"), form["client_secret"]) == (CLIENT, self.secret)
        pair = base64.b64decode((proof or "").removeprefix("Basic ")).decode()
        name, _, secret = pair.partition(":")
        return (unquote_plus(name), unquote_plus(secret)) == (CLIENT, self.secret)

    def _tokens(self, granted: Mapping[str, str]) -> dict[str, Any]:
        claims = self.provider.claims(
            **{
                "aud": CLIENT, "sub": granted["sub"], "nonce": granted["nonce"], "tenant": None,
                "role": None, **self.claims,
            }
        )  # fmt: skip
        return {
            "access_token": "opaque",
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self.forge(claims)
            if self.forge
            else self.provider.token("EC", claims, header=self.header),
        }


class Browser:
    """A browser without pages: it keeps cookies, and follows addresses when it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        number = next(_addresses)
        # Attempts are counted by address, and all of 127.0.0.0/8 is this host (RFC 1122 3.2.1.3).
        transport = httpx.HTTPTransport(local_address=f"127.2.{number >> 8}.{number & 255}")
        self.http = httpx.Client(base_url=url, transport=transport, timeout=30)

    def begin(self, **query: str) -> str:
        """Begin to sign in; return the address at the provider."""
        answer = self.http.get("/v1/login/oidc", params=query)
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def come_back(self, address: str) -> str:
        """Follow an address back from the provider; return the console's page behind `#/`."""
        answer = self.http.get(address, headers={"Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 303, answer.text
        return self.page(answer)

    def page(self, answer: httpx.Response) -> str:
        """Return the page of the console that an answer leads to, which can be nothing else."""
        reached = urlsplit(urljoin(str(answer.url), answer.headers["location"]))
        assert f"{reached.scheme}://{reached.netloc}{reached.path}" == f"{self.url}/console"
        assert reached.fragment.startswith("/")
        return reached.fragment[1:]

    def sign_in(self, **query: str) -> str:
        """Sign in; return the console's page behind `#/`."""
        return self.come_back(at_provider(self.begin(**query)))

    def me(self) -> httpx.Response:
        """Ask who is logged in."""
        return self.http.get("/v1/me")


def at_provider(address: str) -> str:
    """Agree at the provider; return the address to which it sends the browser back."""
    answer = httpx.get(address, timeout=30)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


@dataclass
class SigningIn:
    """A deployment whose people sign in at a provider, and that provider."""

    deployment: Deployment
    openid: OpenIdProvider

    @property
    def issuer(self) -> Provider:
        """The provider's keys and document."""
        return self.openid.provider

    def member(self, tenant: str, name: str, role: Role = Role.DEVELOPER) -> Person:
        """Return a member for whom the subject of that name stands."""
        person = joined(self.deployment, tenant, name, role)
        self.link("link", tenant, name)
        return person

    def link(self, what: str, tenant: str, name: str) -> None:
        """Link or unlink a subject, as the operator does."""
        operate(
            self.deployment, what, "--tenant", tenant, "--email", f"{name}@example.com",
            "--subject", f"subject-of-{name}",
        )  # fmt: skip

    def browser(self, name: str = "ada") -> Browser:
        """Return a new browser, whose user the provider knows by that name."""
        self.openid.subject = f"subject-of-{name}"
        made = Browser(self.deployment.url)
        self.deployment.clients.callback(made.http.close)
        return made


@contextmanager
def signing_in(host: str = "127.0.0.1", **settings: Any) -> Iterator[SigningIn]:
    """Run a deployment whose people sign in at a provider, reached by that name of this host."""
    with provider() as issuer, socket.socket() as free:
        issuer.keys = {"EC": new_key("EC", "EC")}
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        openid = OpenIdProvider(issuer, f"http://{host}:{port}{CALLBACK}")
        openid.attach()
        with deployments.deployment(
            **{
                "port": port,
                "oidc_issuer": issuer.url,
                "oidc_audience": AUDIENCE,
                "oidc_members": True,
                "oidc_client_id": CLIENT,
                "oidc_client_secret": SECRET,
                "oidc_callback": openid.callback,
                "insecure_cookies": True,
                **NO_POOL,
                **settings,
            }
        ) as made:
            yield SigningIn(made, openid)
