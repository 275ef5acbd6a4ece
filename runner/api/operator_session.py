"""`/operator/v1/session`: an operator's session, for the console's pages for operators.

An operator's key begins it, in the header as everywhere. From then on the browser has only a
cookie, which no script can read.
"""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from runner.api.callers import SESSION
from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.problems import responses
from runner.api.views import View
from runner.auth import operating
from runner.auth.operating import OperatorSession
from runner.words.errors import Conflict, NotFound

router = APIRouter(
    prefix="/operator/v1/session",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)

IN_SESSION = "a session does not begin another one: send an operator's key"
BY_KEY = "there is no session: this request came with a key"


class NewOperatorSessionView(View):
    """A new session. Only the cookie holds its id."""

    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with every change.")


class OperatorView(View):
    """The calling operator."""

    name: str = Field(description="The beginning of their key, as audit records name them.")
    csrf_token: str | None = Field(
        description="The CSRF token of this request's session; null without one."
    )


async def session_of(request: Request) -> OperatorSession | None:
    """Return the session that the request came with, if any."""
    found = request.scope.get(SESSION)
    return found if isinstance(found, OperatorSession) else None


MaybeSession = Annotated[OperatorSession | None, Depends(session_of)]


@router.post(
    "",
    summary="Begin an operator's session",
    status_code=HTTPStatus.CREATED,
    responses=responses(HTTPStatus.CONFLICT),
)
async def begin(
    request: Request,
    response: Response,
    operator: IsOperator,
    session: MaybeSession,
    parts: Parts,
) -> NewOperatorSessionView:
    """Exchange an operator's key for a session, which ends with the key at the latest.

    The browser's earlier session, if any, ends. 409 if the request came by a session.
    """
    if session is not None:
        raise Conflict(IN_SESSION)
    cookies = parts.cookies.of_operators
    made = await operating.begin(
        operators_database(parts),
        operator,
        cookies.lifetime,
        origin(request),
        earlier=cookies.read(request),
    )
    cookies.write(response, made)
    return NewOperatorSessionView(csrf_token=made.csrf)


@router.get("", summary="Read an operator's session", responses=responses())
async def read(operator: IsOperator, session: MaybeSession) -> OperatorView:
    """Return who the calling operator is, and their session's CSRF token."""
    return OperatorView(name=f"ro_{operator.prefix}", csrf_token=session.csrf if session else None)


@router.delete(
    "",
    summary="End an operator's session",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def end(
    request: Request,
    response: Response,
    operator: IsOperator,
    session: MaybeSession,
    parts: Parts,
) -> None:
    """End this session at once. 404 if the request came by a key."""
    if session is None:
        raise NotFound(BY_KEY)
    await operating.end(operators_database(parts), operator, session, origin(request))
    parts.cookies.of_operators.erase(response)
