"""The receipt of an execution, as the worker signed it."""

from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.executions.read import find
from runner.store import receipts
from runner.store.transaction import Transaction
from runner.words.errors import NotFound

NO_RECEIPT = (
    "this execution has no receipt: one is signed by the worker that ends it, "
    "and none has, because it has not ended or was cancelled in the queue"
)


async def receipt(tx: Transaction, caller: Caller, execution_id: UUID) -> str:
    """Return a receipt byte for byte, and record that it was read. Raises NotFound."""
    document = await receipts.get(tx, execution_id)
    if document is None:
        await find(tx, execution_id)
        raise NotFound(NO_RECEIPT)
    caller.record(tx, Action.RECEIPT_READ, "receipt", str(execution_id))
    return document
