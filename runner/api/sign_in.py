"""`GET /v1/login`, and the two ends of signing in at an identity provider: there, and back.

A browser goes through both, so neither answers with JSON: whatever happens, it ends on a page of
the console, at an address that begins with `/console#/` (`edge.browsers` shows there what else
goes wrong, to a browser). The page behind that which somebody wanted
to see comes from the address (RFC 9700 4.11), and so does nothing else.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, ClassVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import Field, StringConstraints

from runner.api.context import origin
from runner.api.deps import Dependencies, Parts
from runner.api.edge.browsers import CONSOLE, refused
from runner.api.edge.groups import CALLBACK, SIGN_IN
from runner.api.fields import Text
from runner.api.problems import responses
from runner.api.views import View
from runner.auth.open_sign_ins import OPEN_S, OpenSignIn, Secret
from runner.auth.sign_in import Refusal, Returned, SignIns, place_in_console
from runner.words.errors import NotFound

NO_PROVIDER = "people sign in to this deployment with a password: it has no identity provider"

router = APIRouter(tags=["account"])

_ANSWERS = responses(HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS)
_MOST = 4096
_Parameter = Annotated[str | None, Query(max_length=_MOST)]


@dataclass(frozen=True, slots=True)
class SignInCookie:
    """The cookie that binds a sign-in to the browser that began it.

    It is `Lax`: the provider sends the browser back from another site, and a `Strict` cookie would
    stay behind. With its prefix, no other host and no plain HTTP can set one (RFC 9700 4.7.1).
    """

    NAMES: ClassVar[tuple[str, str]] = ("__Host-runner_sign_in", "runner_sign_in")
    secure: bool

    @property
    def name(self) -> str:
        """The cookie's name."""
        return self.NAMES[0] if self.secure else self.NAMES[1]

    def read(self, request: Request) -> Secret | None:
        """Return the secret that a request carries, or None."""
        return Secret.parse(request.cookies.get(self.name))

    def write(self, response: Response, secret: Secret) -> None:
        """Give a secret to the browser, where scripts cannot read it."""
        response.set_cookie(
            self.name,
            secret.text,
            max_age=OPEN_S,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax",
        )

    def erase(self, response: Response) -> None:
        """Make the browser forget the secret."""
        response.delete_cookie(
            self.name, path="/", secure=self.secure, httponly=True, samesite="lax"
        )


class ProviderView(View):
    """The identity provider at which people may sign in."""

    name: str = Field(description="What to call it.", examples=["Example SSO"])


class WaysView(View):
    """How people log in to this deployment, beside a password."""

    provider: ProviderView | None = Field(
        description="Send browsers to `GET /v1/login/oidc`. Null if there is none."
    )


@router.get("/v1/login", summary="How people log in", responses=responses())
async def ways(parts: Parts) -> WaysView:
    """Return whether people can sign in at an identity provider, beside logging in here."""
    found = parts.sign_ins
    return WaysView(provider=ProviderView(name=found.name) if found else None)


@router.get(
    SIGN_IN,
    summary="Sign in at the identity provider",
    status_code=HTTPStatus.SEE_OTHER,
    response_class=RedirectResponse,
    responses=_ANSWERS,
)
async def begin(
    request: Request,
    parts: Parts,
    page: Annotated[
        str | None,
        Query(
            max_length=_MOST,
            description="The page of the console to end on: what is behind `#/`.",
        ),
    ] = None,
    tenant: Annotated[
        Annotated[Text, StringConstraints(max_length=63)] | None,
        Query(description="The tenant, for somebody who belongs to several."),
    ] = None,
) -> Response:
    """Send a browser to the identity provider, which sends it back to `…/callback`.

    A page of another site that sends a browser here is answered with the console's own login.
    """
    sign_ins, place = _provided(parts), place_in_console(page)
    if parts.cookies.is_from_elsewhere(request):
        return _console(place)
    earlier = parts.cookies.read(request)
    begun = OpenSignIn(
        place=place, tenant=tenant or None, replaces=earlier.hash.hex() if earlier else None
    )
    secret = Secret.new()
    address = await sign_ins.begin(secret, begun)
    if isinstance(address, Refusal):
        return refused(address)
    response = RedirectResponse(address, HTTPStatus.SEE_OTHER)
    _cookie(parts).write(response, secret)
    return response


@router.get(
    CALLBACK,
    summary="Come back from the identity provider",
    status_code=HTTPStatus.SEE_OTHER,
    response_class=RedirectResponse,
    responses=_ANSWERS,
)
async def come_back(
    request: Request,
    parts: Parts,
    state: _Parameter = None,
    code: _Parameter = None,
    error: _Parameter = None,
    iss: _Parameter = None,
) -> Response:
    """Begin a session for whoever the provider has identified, and show the console.

    The provider may add parameters that nobody knows here; they are ignored (RFC 6749 4.1.2).
    """
    sign_ins, cookie = _provided(parts), _cookie(parts)
    found = await sign_ins.finish(
        cookie.read(request), Returned(state, code, error, iss), origin(request)
    )
    if isinstance(found, Refusal):
        response: Response = refused(found)
    else:
        response = _console(found.place)
        parts.cookies.write(response, found.session)
    if found is not Refusal.STALE:
        # Without the right state, this was perhaps somebody else's answer: ours may still come.
        cookie.erase(response)
    return response


def _provided(parts: Dependencies) -> SignIns:
    if parts.sign_ins is None:
        raise NotFound(NO_PROVIDER)
    return parts.sign_ins


def _cookie(parts: Dependencies) -> SignInCookie:
    return SignInCookie(parts.cookies.secure)


def _console(place: str) -> Response:
    return RedirectResponse(f"{CONSOLE}{place}", HTTPStatus.SEE_OTHER)
