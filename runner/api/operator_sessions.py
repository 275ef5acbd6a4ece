"""`/operator/v1/sessions`: an operator's open sessions, to end those that are no longer in use."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, id_in_path, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.operator_session import MaybeSession
from runner.api.problems import responses
from runner.api.views import View
from runner.auth import operating
from runner.auth.operating import NO_SESSION
from runner.store.operators import StoredOperatorSession

router = APIRouter(
    prefix="/operator/v1/sessions",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)

SessionId = Annotated[UUID, Depends(id_in_path("session_id", "The session's id.", NO_SESSION))]


class OperatorSessionView(View):
    """One of your sessions."""

    id: UUID = Field(description="Audit records of its beginning and end name it.")
    created_at: datetime
    last_used_at: datetime = Field(description="Accurate to about a minute.")
    expires_at: datetime
    current: bool = Field(description="Whether this request uses this session.")

    @classmethod
    def of(cls, stored: StoredOperatorSession, current: UUID | None) -> Self:
        """Return the view of a session."""
        return cls(
            id=stored.session_id,
            created_at=stored.created_at,
            last_used_at=stored.last_used_at,
            expires_at=stored.expires_at,
            current=stored.session_id == current,
        )


class OperatorSessionList(View):
    """Your sessions, newest first."""

    items: list[OperatorSessionView]


@router.get("", summary="List an operator's sessions", responses=responses())
async def list_sessions(
    operator: IsOperator, session: MaybeSession, parts: Parts
) -> OperatorSessionList:
    """Return the open sessions that your key began. Those of other operators' keys are theirs."""
    found = await operating.sessions_of(operators_database(parts), operator, parts.cookies.lifetime)
    current = session.id if session else None
    return OperatorSessionList(items=[OperatorSessionView.of(each, current) for each in found])


@router.delete(
    "/{session_id}",
    summary="End one of an operator's sessions",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def end_session(
    request: Request, session_id: SessionId, operator: IsOperator, parts: Parts
) -> None:
    """End one of your sessions at once, such as one on a lost machine."""
    database, lifetime = operators_database(parts), parts.cookies.lifetime
    await operating.end_one(database, operator, session_id, lifetime, origin(request))
