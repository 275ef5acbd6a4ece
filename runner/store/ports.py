"""Ports of living sandboxes that somebody has opened; of their tokens, the hash alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from psycopg.rows import DictRow

from runner.store.sandboxes import Whereabouts
from runner.store.transaction import Transaction
from runner.words.lives import EndReason, Life
from runner.words.principal import Tier


@dataclass(frozen=True, slots=True)
class OpenedPort:
    """A port that may be reached without an API key: by its token, or, if public, by anybody."""

    port: int
    public: bool
    opened_by: str
    opened_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class FoundPort:
    """An opened port, of whatever tenant. Without a hash, it is public."""

    tenant_id: UUID
    expires_at: datetime
    tier: Tier
    token_hash: bytes | None = field(repr=False)


async def hold_sandbox(tx: Transaction, sandbox_id: UUID) -> Whereabouts | None:
    """Return where a sandbox is; nobody else opens a port of it before this transaction ends."""
    row = await tx.one("ports.hold_sandbox", sandbox_id=sandbox_id)
    if row is None:
        return None
    reason = EndReason(row["reason"]) if row["reason"] else None
    return Whereabouts(Life(row["state"]), reason, row["detail"], None)


async def others(tx: Transaction, sandbox_id: UUID, port: int) -> int:
    """Return how many other ports of a sandbox are open; forgets those whose time is over."""
    await tx.run("ports.forget_expired", sandbox_id=sandbox_id)
    row = await tx.one("ports.others", sandbox_id=sandbox_id, port=port)
    return row["ports"] if row else 0


async def put(
    tx: Transaction,
    sandbox_id: UUID,
    port: int,
    *,
    token_hash: bytes | None,
    opened_by: str,
    lasts_s: float,
    ends_at: datetime | None,
) -> OpenedPort:
    """Store an opened port, in place of what was stored of it; without a hash, it is public.

    It expires in `lasts_s` seconds, and at `ends_at` at the latest.
    """
    await tx.run("ports.close", sandbox_id=sandbox_id, port=port)
    row = await tx.one(
        "ports.open",
        sandbox_id=sandbox_id,
        port=port,
        public=token_hash is None,
        token_hash=token_hash,
        opened_by=opened_by,
        lasts_s=lasts_s,
        ends_at=ends_at,
    )
    if row is None:
        raise RuntimeError("PostgreSQL stored a port and returned none")
    return _of_row(row)


async def list_open(tx: Transaction, sandbox_id: UUID) -> Sequence[OpenedPort]:
    """Return a sandbox's opened ports, in order."""
    return [_of_row(row) for row in await tx.all("ports.list", sandbox_id=sandbox_id)]


async def close(tx: Transaction, sandbox_id: UUID, port: int) -> bool:
    """Forget an opened port; return whether there was one."""
    return await tx.run("ports.close", sandbox_id=sandbox_id, port=port) > 0


async def find(tx: Transaction, sandbox_id: UUID, port: int) -> FoundPort | None:
    """Return an opened port of a sandbox that lives, of whatever tenant that is not suspended."""
    row = await tx.one("ports.find", sandbox_id=sandbox_id, port=port)
    if row is None:
        return None
    return FoundPort(row["tenant_id"], row["expires_at"], Tier(row["tier"]), row["token_hash"])


def _of_row(row: DictRow) -> OpenedPort:
    return OpenedPort(**row)
