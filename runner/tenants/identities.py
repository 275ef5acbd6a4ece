"""Subjects of the identity provider that stand for members. Only the operator links them.

A link opens one tenant, and ends with the membership. A tenant's owner could otherwise link a
stranger's subject to a member of their own, and have the stranger's programs run in their tenant.
"""

from runner.audit.events import Action
from runner.auth.caller import TenantActor
from runner.store import members, users
from runner.store.members import Member
from runner.store.transaction import Transaction
from runner.store.users import NewIdentity
from runner.words.errors import Conflict, NotFound
from runner.words.ids import new_id

NO_MEMBER = "this address belongs to no member of the tenant"


async def link(tx: Transaction, who: TenantActor, email: str, issuer: str, subject: str) -> None:
    """Let a subject act as a member of this tenant.

    Raises NotFound if nobody has the address, and Conflict if the subject is linked already.
    """
    member = await _member(tx, email)
    if not await users.link(tx, new_id(), NewIdentity(member.id, issuer, subject)):
        raise Conflict("this subject already stands for a member of the tenant: unlink it first")
    facts = {"issuer": issuer, "subject": subject}
    who.record(tx, Action.MEMBER_LINK, "member", str(member.id), facts)


async def unlink(tx: Transaction, who: TenantActor, email: str, issuer: str, subject: str) -> None:
    """End this. Raises NotFound if the subject does not stand for that member."""
    member = await _member(tx, email)
    if not await users.unlink(tx, NewIdentity(member.id, issuer, subject)):
        raise NotFound("this subject does not stand for that member")
    facts = {"issuer": issuer, "subject": subject}
    who.record(tx, Action.MEMBER_UNLINK, "member", str(member.id), facts)


async def _member(tx: Transaction, email: str) -> Member:
    member = await members.named(tx, email)
    if member is None:
        raise NotFound(NO_MEMBER)
    return member
