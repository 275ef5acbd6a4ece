"""Receipts as they were signed, and the public keys that verify them."""

from collections.abc import Sequence
from uuid import UUID

from runner.signing import PublicKey
from runner.store.db import Transaction


async def insert(tx: Transaction, execution_id: UUID, document: str) -> None:
    """Store the receipt of an execution of this transaction's tenant."""
    tx.later("receipts.insert", execution_id=execution_id, document=document)


async def get(tx: Transaction, execution_id: UUID) -> str | None:
    """Return the receipt's text as it was signed; None when there is none."""
    row = await tx.one("receipts.get", execution_id=execution_id)
    return row["document"] if row else None


async def publish_keys(tx: Transaction, keys: Sequence[PublicKey]) -> None:
    """Make the keys known to every API of the deployment."""
    await tx.each(
        "receipts.publish_key", [{"key_id": key.id, "public_key": key.pem} for key in keys]
    )


async def list_keys(tx: Transaction) -> list[PublicKey]:
    """Return every key that was published, the oldest first."""
    rows = await tx.all("receipts.list_keys")
    return [PublicKey(row["key_id"], row["public_key"]) for row in rows]
