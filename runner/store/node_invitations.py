"""Rows of invitations, by whose one-time tokens hosts join. They need the operator's login."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from runner.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class StoredInvitation:
    """An invitation. Whether it is `open` is as of when it was read."""

    invitation_id: UUID
    node: str
    """The node's name without the digits of its state folder."""
    made_by: str
    made_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None
    used_as: str | None
    """The node that was given a certificate for it."""
    open: bool


async def insert(
    tx: Transaction,
    invitation_id: UUID,
    *,
    node: str,
    hash_: bytes,
    made_by: str,
    lasting: timedelta,
) -> StoredInvitation:
    """Store a new invitation, by the hash of its token's secret."""
    row = await tx.one(
        "node_invitations.insert",
        invitation_id=invitation_id,
        node=node,
        hash=hash_,
        made_by=made_by,
        lasting=lasting,
    )
    if row is None:
        raise RuntimeError("INSERT has returned no row")
    return StoredInvitation(**row)


async def list_newest(tx: Transaction, limit: int, *, ended: bool) -> Sequence[StoredInvitation]:
    """Return the newest open invitations, newest first; with `ended`, the newest of all."""
    rows = await tx.all("node_invitations.list", limit=limit, ended=ended)
    return [StoredInvitation(**row) for row in rows]


async def revoke(tx: Transaction, invitation_id: UUID) -> str | None:
    """End an invitation; return its node's name, or None if it was used or revoked before."""
    row = await tx.one("node_invitations.revoke", invitation_id=invitation_id)
    return row["node"] if row else None


async def use(tx: Transaction, hash_: bytes, *, node: str, node_id: str) -> UUID | None:
    """Use up the open invitation of this hash and node; return its id, or None if there is none."""
    row = await tx.one("node_invitations.use", hash=hash_, node=node, node_id=node_id)
    return row["invitation_id"] if row else None
