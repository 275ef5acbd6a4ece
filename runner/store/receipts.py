"""Receipts as they were signed."""

from uuid import UUID

from runner.store.transaction import Transaction

KIND = "agent-runner/receipt/v1"
SANDBOX_KIND = "agent-runner/sandbox-receipt/v1"


def insert_later(tx: Transaction, execution_id: UUID, document: str) -> None:
    """Store the receipt of an execution of this tenant, in the next round trip."""
    tx.later("receipts.insert", execution_id=execution_id, document=document)


async def get(tx: Transaction, execution_id: UUID) -> str | None:
    """Return the receipt's text as it was signed, or None."""
    row = await tx.one("receipts.get", execution_id=execution_id)
    return row["document"] if row else None


def insert_of_sandbox_later(tx: Transaction, sandbox_id: UUID, document: str) -> None:
    """Store the receipt of a sandbox of this transaction's tenant, with what follows."""
    tx.later("receipts.insert_of_sandbox", sandbox_id=sandbox_id, document=document)


async def get_of_sandbox(tx: Transaction, sandbox_id: UUID) -> str | None:
    """Return the receipt of a sandbox's end as it was signed; None when there is none."""
    row = await tx.one("receipts.get_of_sandbox", sandbox_id=sandbox_id)
    return row["document"] if row else None


async def count_of_sandbox(tx: Transaction, sandbox_id: UUID) -> dict[str, int]:
    """Return what the audit log holds of a sandbox: processes, transfers, egress decisions."""
    row = await tx.one("receipts.count_of_sandbox", sandbox_id=sandbox_id)
    return dict(row or {})
