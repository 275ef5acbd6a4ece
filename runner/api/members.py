"""`/v1/members`: who belongs to the tenant and as what. No mail is sent: tokens are handed on."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import ConfigDict, Field

from runner.api.deps import Allow, Parts, id_in_path
from runner.api.edge.json import JsonRoute
from runner.api.fields import Email, Strict
from runner.api.problems import JSON_TAKEN, responses
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.store.members import Member
from runner.tenants import members
from runner.tenants.members import NO_MEMBER
from runner.words.principal import Role

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=JsonRoute)

CanReadMembers = Annotated[Caller, Depends(Allow(Permission.MEMBER_READ))]
CanWriteMembers = Annotated[Caller, Depends(Allow(Permission.MEMBER_WRITE))]


class NewMemberBody(Strict):
    """An address to invite, and its role."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"email": "ada@example.com", "role": "developer"}]}
    )

    email: Email
    role: Annotated[Role, Field(strict=False)] = Field(
        description="An owner may give any role; an admin only roles below their own."
    )


class RoleBody(Strict):
    """A new role."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"role": "viewer"}]})

    role: Annotated[Role, Field(strict=False)]


class MemberView(View):
    """A member, or somebody who is invited."""

    id: UUID
    email: str
    role: Role
    status: Literal["active", "invited"]
    created_by: str
    created_at: datetime
    expires_at: datetime | None = Field(description="When the invitation expires.")

    @classmethod
    def of(cls, member: Member) -> Self:
        """Return the view of a member."""
        return cls(
            id=member.id,
            email=member.email,
            role=member.role,
            status="invited" if member.invited else "active",
            created_by=member.created_by,
            created_at=member.created_at,
            expires_at=member.expires_at,
        )


class InvitationView(View):
    """A new invitation. `token` is shown only now, because only its hash is stored."""

    member: MemberView
    token: str = Field(description="For `POST /v1/login/accept`.", examples=["ri_…"])


class MemberList(View):
    """Members and invitations, oldest first; the first thousand."""

    items: list[MemberView]


MemberId = Annotated[UUID, Depends(id_in_path("member_id", "The member's id.", NO_MEMBER))]


@router.get("", summary="List members", responses=responses())
async def list_members(caller: CanReadMembers, parts: Parts) -> MemberList:
    """Return the tenant's members and open invitations."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await members.list_all(tx)
    return MemberList(items=[MemberView.of(each) for each in found])


@router.post(
    "",
    summary="Invite somebody",
    status_code=HTTPStatus.CREATED,
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT),
)
async def invite(body: NewMemberBody, caller: CanWriteMembers, parts: Parts) -> InvitationView:
    """Make a one-time token for an address. It is valid for seven days and replaces earlier ones.

    Hand it on yourself: no mail is sent. The answer does not tell whether there is an account.
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        who = await members.decider(tx, caller)
        made = await members.invite(tx, who, body.email, body.role)
    return InvitationView(member=MemberView.of(made.member), token=made.token)


@router.patch(
    "/{member_id}",
    summary="Change a member's role",
    responses=responses(*JSON_TAKEN, HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND),
)
async def change_role(
    member_id: MemberId, body: RoleBody, caller: CanWriteMembers, parts: Parts
) -> MemberView:
    """Give a member another role, from their next request on. You cannot change your own.

    What they made that the new role could not have made ends: keys, with what these made, and
    invitations.
    """
    async with parts.database.tenant(caller.tenant_id) as tx:
        who = await members.decider(tx, caller)
        return MemberView.of(await members.change_role(tx, who, member_id, body.role))


@router.delete(
    "/{member_id}",
    summary="Remove a member",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND),
)
async def remove(member_id: MemberId, caller: CanWriteMembers, parts: Parts) -> None:
    """End a membership with its sessions, keys and invitations, or withdraw an invitation."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await members.remove(tx, await members.decider(tx, caller), member_id)
