"""Shows a page to a browser that signs in, where programs get a problem document.

A browser goes through the two routes of signing in at an identity provider by itself: whatever they
answer is what somebody sees. The routes answer with pages. Checks in front of them, and the
framework, answer with problems: of rates, of wrong parameters, of what is away.
"""

from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runner.api.edge.groups import CALLBACK, SIGN_IN
from runner.api.problems import MEDIA_TYPE
from runner.auth.sign_in import Refusal

CONSOLE = "/console#/"
REFUSED = "sign-in"
"""The page of the console that says why nobody was signed in; behind it is the reason."""
_KEPT = (b"connection",)
"""The header of a problem that holds for the page, too."""


class PagesForBrowsers:
    """Answers a browser with the console's login and the reason, instead of with a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not browses(scope):
            await self._app(scope, receive, send)
            return
        replaced = False

        async def shown(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and _is_problem(message):
                replaced = True
                page = refused(_reason(message["status"]))
                page.raw_headers += [each for each in message["headers"] if each[0] in _KEPT]
                await page(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, shown)


def browses(scope: Scope) -> bool:
    """Return whether somebody sees the answer: a browser that navigates asks for HTML first."""
    accepted = ",".join(Headers(scope=scope).getlist("accept"))
    return scope["path"] in {SIGN_IN, CALLBACK} and "text/html" in accepted.lower()


def refused(why: Refusal) -> RedirectResponse:
    """Return the way to the console's login, which says why nobody was signed in."""
    return RedirectResponse(f"{CONSOLE}{REFUSED}/{why}", HTTPStatus.SEE_OTHER)


def _is_problem(message: Message) -> bool:
    return Headers(raw=message["headers"]).get("content-type", "").startswith(MEDIA_TYPE)


def _reason(status: int) -> Refusal:
    match status:
        case HTTPStatus.NOT_FOUND:
            return Refusal.NO_PROVIDER
        case HTTPStatus.TOO_MANY_REQUESTS:
            return Refusal.TOO_MANY
        case _ if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return Refusal.UNAVAILABLE
    return Refusal.INVALID
