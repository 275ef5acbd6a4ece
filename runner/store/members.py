"""Members of a tenant and invitations to it, as stored."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.rows import DictRow

from runner.store.transaction import Transaction
from runner.words.principal import Role

LIST_AT_MOST = 1000


@dataclass(frozen=True, slots=True)
class Member:
    """A member, or somebody who is invited: they have `expires_at` and no `user_id`."""

    id: UUID
    email: str
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime | None

    @property
    def invited(self) -> bool:
        """Whether this is an invitation that nobody has accepted yet."""
        return self.expires_at is not None


@dataclass(frozen=True, slots=True)
class NewInvitation:
    """An invitation to store."""

    id: UUID
    email: str
    role: Role
    hash: bytes = field(repr=False)


async def list_all(tx: Transaction) -> list[Member]:
    """Return this tenant's members and open invitations, oldest first."""
    return [_member(row) for row in await tx.all("members.list", limit=LIST_AT_MOST)]


async def lock(tx: Transaction) -> None:
    """Lock the members of this tenant until the transaction ends.

    Otherwise, two requests could each remove one of two owners and each count the other one.
    """
    await tx.run("members.lock")


async def get(tx: Transaction, member_id: UUID) -> Member | None:
    """Return a member of this tenant."""
    return _found(await tx.one("members.get", member_id=member_id))


async def named(tx: Transaction, email: str) -> Member | None:
    """Return the member of this tenant with that address."""
    return _found(await tx.one("members.named", email=email))


async def owners(tx: Transaction) -> int:
    """Return how many owners this tenant has."""
    row = await tx.one("members.owners")
    return int(row["owners"]) if row else 0


async def add(tx: Transaction, user_id: UUID, role: Role, created_by: str) -> bool:
    """Make a user a member; return False if they are one already."""
    return bool(await tx.run("members.add", user_id=user_id, role=role, created_by=created_by))


async def set_role(tx: Transaction, member_id: UUID, role: Role) -> None:
    """Change a member's role; their sessions have it from the next request on."""
    await tx.run("members.set_role", member_id=member_id, role=role)


async def remove(tx: Transaction, member_id: UUID) -> None:
    """End a membership and the sessions that depend on it."""
    await tx.run("members.remove", member_id=member_id)


async def invite(
    tx: Transaction, new: NewInvitation, *, created_by: str, lifetime: timedelta
) -> bool:
    """Store an invitation to this tenant; return False if that address has one already."""
    added = await tx.run(
        "members.invite",
        invitation_id=new.id,
        email=new.email,
        role=new.role,
        hash=new.hash,
        created_by=created_by,
        lifetime=lifetime,
    )
    return bool(added)


async def invitation(tx: Transaction, member_id: UUID) -> Member | None:
    """Return an invitation of this tenant, even if it has expired."""
    return _found(await tx.one("members.invitation", member_id=member_id))


async def invited(tx: Transaction, email: str) -> Member | None:
    """Return this tenant's invitation of that address, even if it has expired."""
    return _found(await tx.one("members.invited", email=email))


async def take_back(tx: Transaction, invitation_id: UUID) -> bool:
    """End an invitation; return False if there is none because somebody else was first."""
    return bool(await tx.run("members.take_back", invitation_id=invitation_id))


def _found(row: DictRow | None) -> Member | None:
    return _member(row) if row else None


def _member(row: DictRow) -> Member:
    return Member(
        id=row["member_id"],
        email=row["email"],
        role=Role(row["role"]),
        created_by=row["created_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )
