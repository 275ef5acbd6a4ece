"""`/v1/login` and one's own account: sessions for the web pages, invitations, the password."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, ConfigDict, Field, SecretStr, StringConstraints

from runner.api.callers import SESSION
from runner.api.context import origin
from runner.api.deps import Allow, Parts, id_in_path
from runner.api.edge.json import JsonRoute
from runner.api.fields import Email, Name, Strict, storable
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth import grants
from runner.auth.caller import Caller
from runner.auth.login import NO_SESSION
from runner.auth.passwords import MAX_LENGTH
from runner.auth.permissions import Permission
from runner.auth.sessions import Session
from runner.store.keys import Grant
from runner.store.users import StoredSession
from runner.words.errors import NotFound
from runner.words.principal import PrincipalKind, Role

router = APIRouter(prefix="/v1", tags=["account"], route_class=JsonRoute)

CanReadAccount = Annotated[Caller, Depends(Allow(Permission.ACCOUNT_READ))]
CanWriteAccount = Annotated[Caller, Depends(Allow(Permission.ACCOUNT_WRITE))]

BY_KEY = "there is no session: this request came with a key or a token"
_ANSWERS = responses(*JSON_TAKEN, HTTPStatus.TOO_MANY_REQUESTS)


def _storable(value: SecretStr) -> SecretStr:
    storable(value.get_secret_value())
    return value


Password = Annotated[
    SecretStr, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_storable)
]


class LoginBody(Strict):
    """Credentials to log in with."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"email": "ada@example.com", "password": "four unrelated words here"}]
        }
    )

    email: Email
    password: Password
    tenant: Name | None = Field(
        default=None,
        description="The tenant to log in to; by default the one that you joined first.",
    )


class AcceptBody(Strict):
    """The token of an invitation or a password reset, and the password."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "ri_…", "password": "four unrelated words here"}]}
    )

    token: Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(storable)]
    password: Password = Field(
        description="Your existing password if you have an account, otherwise a new one."
    )


class PasswordBody(Strict):
    """A change of password."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"current": "four unrelated words here", "new": "five others that follow"}]
        }
    )

    current: Password
    new: Password


class NewSessionView(View):
    """A new session. Only the cookie holds its id."""

    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with every change.")


class MembershipView(View):
    """A tenant that you belong to."""

    tenant: str
    role: Role


class MeView(View):
    """The caller."""

    kind: PrincipalKind
    name: str = Field(description="A key's prefix, or a user's id.")
    email: str | None = Field(description="Only for users who log in with a password.")
    tenant: str
    role: Role
    permissions: list[str]
    memberships: list[MembershipView] = Field(description="The tenants that you belong to.")
    csrf_token: str | None = Field(
        description="The CSRF token of this request's session; null without one."
    )


class SessionView(View):
    """One of your sessions."""

    id: UUID
    tenant: str
    ip: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime = Field(description="Accurate to about a minute.")
    expires_at: datetime
    current: bool = Field(description="Whether this request uses this session.")

    @classmethod
    def of(cls, stored: StoredSession, current: UUID) -> Self:
        """Return the view of a session."""
        return cls(
            id=stored.session_id,
            tenant=stored.tenant,
            ip=stored.ip,
            user_agent=stored.user_agent,
            created_at=stored.created_at,
            last_used_at=stored.last_used_at,
            expires_at=stored.expires_at,
            current=stored.session_id == current,
        )


class SessionList(View):
    """Your sessions in all tenants, newest first."""

    items: list[SessionView]


async def in_session(request: Request) -> Session:
    """Return the session that the request came with. Raises NotFound for one by key or token."""
    found = request.scope.get(SESSION)
    if not isinstance(found, Session):
        raise NotFound(BY_KEY)
    return found


InSession = Annotated[Session, Depends(in_session)]


SessionId = Annotated[UUID, Depends(id_in_path("session_id", "The session's id.", NO_SESSION))]


@router.post("/login", summary="Log in", responses=_ANSWERS)
async def log_in(
    request: Request, response: Response, body: LoginBody, parts: Parts
) -> NewSessionView:
    """Begin a session, whose new id is in a cookie. The request's own session, if any, ends.

    The answer is the same whatever was wrong.
    """
    made = await parts.logins.log_in(
        body.email, body.password.get_secret_value(), body.tenant, origin(request)
    )
    if (earlier := parts.cookies.read(request)) is not None:
        await parts.logins.replaced(earlier.hash)
    parts.cookies.write(response, made)
    return NewSessionView(csrf_token=made.csrf)


@router.post(
    "/login/accept",
    summary="Accept an invitation",
    status_code=HTTPStatus.NO_CONTENT,
    responses=_ANSWERS,
)
async def accept(request: Request, body: AcceptBody, parts: Parts) -> None:
    """Accept an invitation or reset a password, with a one-time token.

    The operator's token for a forgotten password sets it anew and ends every session.
    """
    await parts.logins.accept(body.token, body.password.get_secret_value(), origin(request))


@router.post(
    "/logout",
    summary="Log out",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def log_out(
    response: Response, caller: CanWriteAccount, session: InSession,
    parts: Parts,
) -> None:  # fmt: skip
    """End this session at once."""
    await parts.logins.log_out(caller, session)
    parts.cookies.erase(response)


@router.get("/me", summary="Who am I", responses=responses())
async def me(request: Request, caller: CanReadAccount, parts: Parts) -> MeView:
    """Return who you are, what you may do, and a session's CSRF token."""
    principal, session = caller.principal, request.scope.get(SESSION)
    own = session if isinstance(session, Session) else None
    account = await parts.logins.account(caller, own)
    return MeView(
        kind=principal.kind,
        name=principal.name,
        email=account.email,
        tenant=account.tenant,
        role=principal.role,
        permissions=sorted(grants.effective(Grant(principal.role, principal.permissions))),
        memberships=[
            MembershipView(tenant=each.tenant, role=each.role) for each in account.memberships
        ],
        csrf_token=own.csrf if own else None,
    )


@router.put(
    "/me/password",
    summary="Change the password",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(
        *JSON_TAKEN, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS
    ),
)
async def change_password(
    response: Response, body: PasswordBody, caller: CanWriteAccount,
    session: InSession, parts: Parts,
) -> None:  # fmt: skip
    """Change your password. All your sessions end, including this one."""
    await parts.logins.change_password(
        caller, session, body.current.get_secret_value(), body.new.get_secret_value()
    )
    parts.cookies.erase(response)


@router.get("/sessions", summary="List your sessions", responses=responses(HTTPStatus.NOT_FOUND))
async def list_sessions(caller: CanReadAccount, session: InSession, parts: Parts) -> SessionList:
    """Return your sessions."""
    found = await parts.logins.sessions(caller, session)
    return SessionList(items=[SessionView.of(each, session.id) for each in found])


@router.delete(
    "/sessions/{session_id}",
    summary="End a session",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def end_session(
    session_id: SessionId,
    caller: CanWriteAccount, session: InSession, parts: Parts,
) -> None:  # fmt: skip
    """End one of your sessions at once, such as one on a lost machine."""
    await parts.logins.end(caller, session, session_id)
