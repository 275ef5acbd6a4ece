"""The members of a tenant and their roles: invitations, changes of role, removals.

No mail is sent: the inviter hands the token over. Accepting an invitation proves only that somebody
was given the token, and nothing about the address. So an address is a name, and opens no tenant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action
from runner.auth.caller import By, Caller
from runner.auth.grants import covers, manages
from runner.auth.permissions import Permission
from runner.auth.rights import demote, own_grant
from runner.auth.tokens import digest, new_token
from runner.store import members, rights
from runner.store.keys import Grant
from runner.store.members import Member, NewInvitation
from runner.store.rights import Ended
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NotFound, NotPermitted
from runner.words.ids import new_id
from runner.words.principal import PrincipalKind, Role

INVITATION = timedelta(days=7)
NO_MEMBER = "no such member"
LAST_OWNER = "a tenant keeps one owner; make somebody else one first"


@dataclass(frozen=True, slots=True)
class Decider:
    """The author of a change to a tenant's members: one of its principals, or the operator.

    `grant` is None for the operator, who may do everything. `user_id` is set if a user acts.
    """

    tenant_id: UUID
    by: By = field(default_factory=By)
    grant: Grant | None = None
    user_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Invited:
    """A new invitation. Show `token` now: it is stored nowhere."""

    member: Member
    token: str = field(repr=False)


async def decider(tx: Transaction, caller: Caller) -> Decider:
    """Return what the caller may change, and lock that until the transaction ends.

    Raises NotAuthenticated and NotPermitted.
    """
    # Lock all members' rows before the caller's own; two callers could otherwise deadlock.
    await members.lock(tx)
    principal = caller.principal
    return Decider(
        caller.tenant_id,
        caller.by,
        await own_grant(tx, principal, Permission.MEMBER_WRITE),
        principal.id if principal.kind is PrincipalKind.USER else None,
    )


async def list_all(tx: Transaction) -> Sequence[Member]:
    """Return the tenant's members and open invitations, oldest first."""
    return await members.list_all(tx)


async def invite(tx: Transaction, who: Decider, email: str, role: Role) -> Invited:
    """Invite an address to the tenant; an earlier invitation of this address ends.

    The result does not tell whether there is an account. Raises NotPermitted for a role that the
    caller may not give, and Conflict if the address belongs to a member.
    """
    _may_give(who, role)
    await members.lock(tx)
    if await members.named(tx, email):
        raise Conflict("this address already belongs to a member")
    if earlier := await members.invited(tx, email):
        _may_manage(who, earlier.role)
        await members.take_back(tx, earlier.id)
    token = new_token()
    new = NewInvitation(new_id(), email, role, digest(token))
    if not await members.invite(tx, new, created_by=who.by.actor, lifetime=INVITATION):
        raise Conflict("another request invited this address at the same moment")
    _record(tx, who, Action.MEMBER_INVITE, new.id, {"email": email, "role": role.value})
    if (member := await members.invitation(tx, new.id)) is None:
        raise NotFound(NO_MEMBER)
    return Invited(member, token)


async def change_role(tx: Transaction, who: Decider, member_id: UUID, role: Role) -> Member:
    """Give a member another role, and end what they made that the new role could not have made.

    Raises NotFound, NotPermitted for the caller's own role or one that the caller may not give or
    take, and Conflict for the last owner.
    """
    member = await _locked(tx, member_id)
    if member.id == who.user_id:
        raise NotPermitted("you cannot change your own role")
    _may_manage(who, member.role)
    _may_give(who, role)
    if member.role is role:
        return member
    await _keep_an_owner(tx, member)
    await members.set_role(tx, member.id, role)
    ended = await demote(tx, f"user:{member.id}", role)
    facts = {"from": member.role.value, "to": role.value, **_facts(ended)}
    _record(tx, who, Action.MEMBER_UPDATE, member.id, facts)
    return await _locked(tx, member_id)


async def remove(tx: Transaction, who: Decider, member_id: UUID) -> None:
    """End a membership with its sessions and all that the member made, or withdraw an invitation.

    Members may always remove themselves, except the last owner. Raises NotFound, NotPermitted and
    Conflict.
    """
    if invitation := await members.invitation(tx, member_id):
        _may_manage(who, invitation.role)
        await members.take_back(tx, invitation.id)
        _record(tx, who, Action.MEMBER_REMOVE, invitation.id, {"invited": True})
        return
    member = await _locked(tx, member_id)
    if member.id != who.user_id:
        _may_manage(who, member.role)
    await _keep_an_owner(tx, member)
    ended = await rights.end_made(tx, f"user:{member.id}")
    await members.remove(tx, member.id)
    facts = {"role": member.role.value, **_facts(ended)}
    _record(tx, who, Action.MEMBER_REMOVE, member.id, facts)


def _facts(ended: Ended) -> dict[str, object]:
    return {
        "keys_revoked": ended.keys,
        "invitations_taken_back": ended.invitations,
        "ports_closed": ended.ports,
    }


async def _locked(tx: Transaction, member_id: UUID) -> Member:
    await members.lock(tx)
    found = await members.get(tx, member_id)
    if found is None:
        raise NotFound(NO_MEMBER)
    return found


async def _keep_an_owner(tx: Transaction, member: Member) -> None:
    if member.role is Role.OWNER and await members.owners(tx) == 1:
        raise Conflict(LAST_OWNER)


def _may_manage(who: Decider, role: Role) -> None:
    if who.grant is not None and not manages(who.grant.role, role):
        raise NotPermitted(
            f"the role {who.grant.role.value} may not manage members with the role {role.value}"
        )


def _may_give(who: Decider, role: Role) -> None:
    """Refuse a role that the caller may not give, or that can do more than the caller's key."""
    _may_manage(who, role)
    if who.grant is not None and not covers(who.grant, Grant(role)):
        raise NotPermitted("a key with limits of its own cannot make members, who would have none")


def _record(
    tx: Transaction, who: Decider, action: Action, member_id: UUID, facts: Mapping[str, object]
) -> None:
    event = who.by.did(action, "member", str(member_id), facts)
    audit.append(tx, who.tenant_id, event)
