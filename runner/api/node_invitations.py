"""`/operator/v1/node-invitations`: one-time tokens by which hosts join as nodes.

The API only makes and revokes them. It has no key that could sign a certificate: whoever has one
runs `runner nodes admit`, where tokens are used.
"""

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field, StringConstraints

from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, id_in_path, is_operator, operators_database
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth.caller import By
from runner.door.joining import public_key_of
from runner.fleet import invitations
from runner.store.node_invitations import StoredInvitation
from runner.words.errors import Conflict, SetupError
from runner.words.principal import Operator

router = APIRouter(
    prefix="/operator/v1/node-invitations",
    tags=["operator"],
    dependencies=[Depends(is_operator)],
    route_class=JsonRoute,
)

MINUTE = timedelta(minutes=1)
InvitationId = Annotated[
    UUID,
    Depends(id_in_path("invitation_id", "The invitation's id.", invitations.NO_INVITATION)),
]


class NodeInvitationBody(Strict):
    """A host that is to become a node."""

    node: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,63}$")] = Field(
        description="Its `RUNNER_NODE`; by default, that is its host's name.", examples=["host-2"]
    )
    minutes: int = Field(
        default=invitations.DEFAULT // MINUTE,
        ge=1,
        le=invitations.LONGEST // MINUTE,
        description="Minutes for which the token is good.",
    )


class NodeInvitationView(View):
    """An invitation, without its token."""

    invitation_id: UUID
    node: str
    open: bool = Field(description="Whether its token is still good.")
    made_by: str
    made_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None
    used_as: str | None = Field(description="The node that was given a certificate for it.")

    @classmethod
    def of(cls, stored: StoredInvitation) -> Self:
        """Return the view of an invitation."""
        return cls.model_validate(stored, from_attributes=True)


class NewNodeInvitationView(NodeInvitationView):
    """A new invitation, with its token."""

    token: str = Field(description="For `runner nodes join`. It is shown once, and works once.")


class NodeInvitationList(View):
    """Invitations, newest first."""

    items: list[NodeInvitationView]


@router.post(
    "",
    summary="Invite a host",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT),
)
async def invite(
    request: Request, body: NodeInvitationBody, operator: IsOperator, parts: Parts
) -> NewNodeInvitationView:
    """Make a token by which one host may become this node.

    409 if this API has no certificate of an authority for doors, so that it does not know whom a
    host should trust.
    """
    try:
        authority = public_key_of(parts.settings.door_certificates)
    except SetupError as error:
        raise Conflict(error.detail) from error
    made = await invitations.invite(
        operators_database(parts),
        body.node,
        authority,
        _by(request, operator),
        lasting=body.minutes * MINUTE,
    )
    view = NodeInvitationView.of(made.stored)
    return NewNodeInvitationView(**view.model_dump(), token=made.token)


@router.get("", summary="List invitations", responses=responses())
async def list_invitations(
    parts: Parts,
    *,
    ended: Annotated[
        bool, Query(description="Whether to list those that were used, revoked or expired, too.")
    ] = False,
) -> NodeInvitationList:
    """Return the invitations whose tokens are still good, newest first, 200 at most."""
    found = await invitations.list_invitations(operators_database(parts), ended=ended)
    return NodeInvitationList(items=list(map(NodeInvitationView.of, found)))


@router.delete(
    "/{invitation_id}",
    summary="Revoke an invitation",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def revoke(
    request: Request, invitation_id: InvitationId, operator: IsOperator, parts: Parts
) -> None:
    """End an invitation whose token was not used yet."""
    await invitations.revoke(operators_database(parts), invitation_id, _by(request, operator))


def _by(request: Request, operator: Operator) -> By:
    return By(operator.actor, origin(request))
