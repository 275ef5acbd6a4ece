"""Keys and sessions of the platform's operators, as stored. They belong to no tenant."""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Found:
    """A usable operator's key. `unused`: no use was recorded lately."""

    operator_id: UUID
    unused: bool
    hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoredOperator:
    """An operator's key, usable or not."""

    operator_id: UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class FoundOperatorSession:
    """A session that holds, and the key that it rests on. `unused`: no use was recorded lately."""

    session_id: UUID
    operator_id: UUID
    prefix: str
    unused: bool


@dataclass(frozen=True, slots=True)
class StoredOperatorSession:
    """A session that holds."""

    session_id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class NewOperatorSession:
    """A session to store."""

    id: UUID
    operator_id: UUID
    hash: bytes = field(repr=False)


async def insert(
    tx: Transaction,
    operator_id: UUID,
    *,
    name: str,
    prefix: str,
    hash_: bytes,
    expires_at: datetime | None,
) -> None:
    """Store a new key. Needs the owner's connection, like `revoke`."""
    await tx.run(
        "operators.insert",
        operator_id=operator_id,
        name=name,
        prefix=prefix,
        hash=hash_,
        expires_at=expires_at,
    )


async def find(tx: Transaction, prefix: str) -> Found | None:
    """Return the usable key of that prefix, or None."""
    row = await tx.one("operators.find", prefix=prefix)
    return Found(**row) if row else None


async def used(tx: Transaction, operator_id: UUID) -> None:
    """Record that a key was used just now."""
    await tx.run("operators.used", operator_id=operator_id)


async def list_all(tx: Transaction) -> list[StoredOperator]:
    """Return every key, oldest first."""
    return [StoredOperator(**row) for row in await tx.all("operators.list")]


async def revoke(tx: Transaction, prefix: str) -> bool:
    """End a key at once; return False if no usable key has that prefix."""
    return bool(await tx.run("operators.revoke", prefix=prefix))


async def insert_session(tx: Transaction, new: NewOperatorSession, lifetime: timedelta) -> None:
    """Store a session that ends after `lifetime` at the latest."""
    await tx.run(
        "operators.insert_session",
        session_id=new.id,
        operator_id=new.operator_id,
        hash=new.hash,
        lifetime=lifetime,
    )


async def find_session(
    tx: Transaction, hash_: bytes, idle: timedelta
) -> FoundOperatorSession | None:
    """Return the session with that hash, unless it or its key has ended, or it was idle."""
    row = await tx.one("operators.find_session", hash=hash_, idle=idle)
    return FoundOperatorSession(**row) if row else None


async def standing(
    tx: Transaction, *, keys: Collection[UUID], sessions: Collection[UUID], idle: timedelta
) -> set[UUID]:
    """Return which of these keys and sessions still hold."""
    rows = await tx.all("operators.standing", keys=list(keys), sessions=list(sessions), idle=idle)
    return {row["id"] for row in rows}


async def sessions(
    tx: Transaction, operator_id: UUID, idle: timedelta
) -> list[StoredOperatorSession]:
    """Return the sessions of a key that hold, newest first."""
    rows = await tx.all("operators.sessions", operator_id=operator_id, idle=idle)
    return [StoredOperatorSession(**row) for row in rows]


async def end_one_session(
    tx: Transaction, operator_id: UUID, session_id: UUID, idle: timedelta
) -> bool:
    """End a session of a key at once; return False if it has none with that id that holds."""
    return bool(
        await tx.run(
            "operators.end_one_session", operator_id=operator_id, session_id=session_id, idle=idle
        )
    )


async def used_session(tx: Transaction, session_id: UUID) -> None:
    """Record that a session was used just now."""
    await tx.run("operators.used_session", session_id=session_id)


async def end_session(tx: Transaction, hash_: bytes) -> bool:
    """End a session at once; return False if none with that hash was open."""
    return bool(await tx.run("operators.end_session", hash=hash_))
