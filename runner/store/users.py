"""Users and their sessions, as stored: only hashes of passwords, session ids and tokens.

A user belongs to no tenant. Lookups across tenants, or before a tenant is known, go through
database functions that return no more than what was asked for.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.errors import ForeignKeyViolation

from runner.store.transaction import Transaction
from runner.words.principal import Role, Tier


@dataclass(frozen=True, slots=True)
class Account:
    """A person who may log in, and the tenant to log in to."""

    user_id: UUID
    tenant_id: UUID
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A valid session with its user's role. `unused`: no use was recorded lately."""

    tenant_id: UUID
    session_id: UUID
    user_id: UUID
    role: Role
    tier: Tier
    suspended: bool
    unused: bool


@dataclass(frozen=True, slots=True)
class FoundIdentity:
    """A member that a subject of the identity provider stands for."""

    tenant_id: UUID
    identity_id: UUID
    user_id: UUID
    role: Role
    tier: Tier
    suspended: bool


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """A subject of an identity provider that is to stand for a member."""

    user_id: UUID
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session to store in the transaction's tenant. It ends with the link, if it has one."""

    id: UUID
    user_id: UUID
    hash: bytes = field(repr=False)
    ip: str | None
    user_agent: str | None
    identity_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A valid session of a user."""

    session_id: UUID
    tenant: str
    ip: str | None
    user_agent: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """A tenant that a user belongs to."""

    tenant: str
    role: Role


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials that a user logs in with."""

    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OpenInvitation:
    """An invitation that can be accepted, with id and password of the user with that address."""

    tenant_id: UUID
    invitation_id: UUID
    email: str
    role: Role
    created_by: str
    user_id: UUID | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """The user whose password may be reset, and their current hash."""

    user_id: UUID
    email: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """A tenant, found by its name."""

    tenant_id: UUID
    tier: Tier
    suspended: bool


async def find_login(tx: Transaction, email: str, tenant: str | None) -> Account | None:
    """Return the user with that address, and the tenant of that name if they belong to it.

    Without a name, it is the tenant to which they have belonged for longest.
    """
    row = await tx.one("users.find_login", email=email, tenant=tenant)
    return Account(**row) if row else None


async def find_session(tx: Transaction, hash_: bytes, idle: timedelta) -> FoundSession | None:
    """Return the session with that hash, unless it has ended or was not used for `idle`."""
    row = await tx.one("users.find_session", hash=hash_, idle=idle)
    if row is None:
        return None
    return FoundSession(**{**row, "role": Role(row["role"]), "tier": Tier(row["tier"])})


async def insert_session(tx: Transaction, new: NewSession, lifetime: timedelta) -> bool:
    """Store a session that ends after `lifetime` at the latest.

    Returns False if the user is no member, or the link is gone: then nothing else may be stored.
    """
    try:
        added = await tx.run(
            "users.insert_session",
            session_id=new.id,
            user_id=new.user_id,
            hash=new.hash,
            ip=new.ip,
            user_agent=new.user_agent,
            lifetime=lifetime,
            identity_id=new.identity_id,
        )
    except ForeignKeyViolation:
        return False
    return bool(added)


async def used(tx: Transaction, session_id: UUID) -> None:
    """Record that a session was used just now."""
    await tx.run("users.used", session_id=session_id)


async def memberships(tx: Transaction, user_id: UUID) -> list[Membership]:
    """Return the tenants that a user belongs to, in the order of joining."""
    rows = await tx.all("users.memberships", user_id=user_id)
    return [Membership(row["tenant"], Role(row["role"])) for row in rows]


async def sessions(tx: Transaction, user_id: UUID, idle: timedelta) -> list[StoredSession]:
    """Return a user's valid sessions in all tenants, newest first."""
    return [
        StoredSession(**row) for row in await tx.all("users.sessions", user_id=user_id, idle=idle)
    ]


async def end_sessions(tx: Transaction, user_id: UUID, session_id: UUID | None = None) -> int:
    """End one session of a user, or all of them; return how many were ended."""
    row = await tx.one("users.end_sessions", user_id=user_id, session_id=session_id)
    return int(row["ended"]) if row else 0


async def clear_sessions(tx: Transaction, user_id: UUID, idle: timedelta) -> None:
    """Delete the rows of a user's sessions that have ended."""
    await tx.run("users.clear_sessions", user_id=user_id, idle=idle)


async def credentials(tx: Transaction, user_id: UUID) -> Credentials | None:
    """Return a user's address and the hash of their password."""
    row = await tx.one("users.password", user_id=user_id)
    return Credentials(**row) if row else None


async def hold_password(tx: Transaction, user_id: UUID, password: str) -> bool:
    """Return whether that hash is still current, and lock it until the transaction ends."""
    row = await tx.one("users.hold_password", user_id=user_id, password=password)
    return bool(row and row["held"])


async def replace_password(tx: Transaction, user_id: UUID, *, old: str, new: str) -> bool:
    """Replace the hash `old`; return False if it is no longer current."""
    row = await tx.one("users.replace_password", user_id=user_id, old=old, new=new)
    return bool(row and row["replaced"])


async def find_invitation(tx: Transaction, hash_: bytes) -> OpenInvitation | None:
    """Return the invitation whose token has that hash, unless it has expired."""
    row = await tx.one("users.find_invitation", hash=hash_)
    return OpenInvitation(**{**row, "role": Role(row["role"])}) if row else None


async def add(tx: Transaction, user_id: UUID, credentials: Credentials) -> bool:
    """Store a new user; return False if somebody has that address."""
    row = await tx.one(
        "users.add", user_id=user_id, email=credentials.email, password=credentials.password
    )
    return bool(row and row["added"])


async def issue_reset(
    tx: Transaction, email: str, hash_: bytes, lifetime: timedelta
) -> UUID | None:
    """Let the holder of the token with that hash reset the password of that address.

    Returns None if nobody has the address. Ends earlier tokens. Needs the owner's connection.
    """
    row = await tx.one("users.issue_reset", email=email, hash=hash_, lifetime=lifetime)
    return row["user_id"] if row else None


async def find_reset(tx: Transaction, hash_: bytes) -> Reset | None:
    """Return whose password the token with that hash resets, unless it has expired."""
    row = await tx.one("users.find_reset", hash=hash_)
    return Reset(**row) if row else None


async def reset_password(tx: Transaction, hash_: bytes, password: str) -> int | None:
    """Use the token up: store a new password hash, and end all sessions of the user.

    Returns how many sessions ended, or None if somebody else used the token first.
    """
    row = await tx.one("users.reset_password", hash=hash_, password=password)
    return int(row["sessions_ended"]) if row else None


async def standing(tx: Transaction, tenant: str) -> Standing | None:
    """Return the tenant of that name."""
    row = await tx.one("users.standing", name=tenant)
    return Standing(**{**row, "tier": Tier(row["tier"])}) if row else None


async def find_identity(
    tx: Transaction, issuer: str, subject: str, tenant: str | None
) -> list[FoundIdentity]:
    """Return the members that a subject stands for, in the tenant of that name if there is one.

    Without a name, at most two: so the caller learns whether one has to be named.
    """
    rows = await tx.all("users.find_identity", issuer=issuer, subject=subject, tenant=tenant)
    return [
        FoundIdentity(**{**row, "role": Role(row["role"]), "tier": Tier(row["tier"])})
        for row in rows
    ]


async def link(tx: Transaction, identity_id: UUID, new: NewIdentity) -> bool:
    """Let a subject stand for a member; False if it stands for somebody in this tenant already.

    Needs the owner's connection, as unlinking does.
    """
    return bool(
        await tx.run(
            "users.link",
            identity_id=identity_id,
            user_id=new.user_id,
            issuer=new.issuer,
            subject=new.subject,
        )
    )


async def unlink(tx: Transaction, known: NewIdentity) -> bool:
    """Let a subject stand for a member no more; return False if it did not."""
    return bool(
        await tx.run(
            "users.unlink", user_id=known.user_id, issuer=known.issuer, subject=known.subject
        )
    )
