"""The receipt of a sandbox's end, as a node signed it."""

from uuid import UUID

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.sandboxes.place import NO_SANDBOX
from runner.store import receipts, sandboxes
from runner.store.db import Database
from runner.words.errors import NotFound

NO_RECEIPT = (
    "this sandbox has no receipt: the node that ends a sandbox signs one, and none has, because it "
    "still lives or no node ever had it"
)


async def receipt(database: Database, caller: Caller, sandbox_id: UUID) -> str:
    """Return a receipt, byte for byte; that it was handed out is on record. Raises NotFound."""
    async with database.tenant(caller.tenant_id) as tx:
        document = await receipts.get_of_sandbox(tx, sandbox_id)
        if document is None:
            known = await sandboxes.where(tx, sandbox_id)
            raise NotFound(NO_SANDBOX if known is None else NO_RECEIPT)
        caller.record(tx, Action.RECEIPT_READ, "receipt", str(sandbox_id))
    return document
