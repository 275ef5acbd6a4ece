"""Receipts as they were signed."""

from uuid import UUID

from runner.store.transaction import Transaction

KIND = "agent-runner/receipt/v1"


def insert_later(tx: Transaction, execution_id: UUID, document: str) -> None:
    """Store the receipt of an execution of this transaction's tenant, with what follows."""
    tx.later("receipts.insert", execution_id=execution_id, document=document)


async def get(tx: Transaction, execution_id: UUID) -> str | None:
    """Return the receipt's text as it was signed; None when there is none."""
    row = await tx.one("receipts.get", execution_id=execution_id)
    return row["document"] if row else None
