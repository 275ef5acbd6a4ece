"""A tenant's secrets: written and used, never read back."""

from collections.abc import Sequence

from runner.audit.events import Action
from runner.auth.caller import Caller
from runner.secrets.vault import Vault
from runner.store import secrets
from runner.store.secrets import StoredSecret
from runner.store.transaction import Transaction
from runner.words.errors import NotFound

NO_SECRET = "no such secret"  # noqa: S105 - an answer
KIND = "secret"


async def list_all(tx: Transaction) -> Sequence[StoredSecret]:
    """Return the tenant's secrets by name, without their values."""
    return await secrets.list_all(tx)


async def write(
    tx: Transaction, vault: Vault, caller: Caller, name: str, value: str
) -> StoredSecret:
    """Store a secret, replacing any of that name. Executions that begin later use it."""
    stored = await vault.put(tx, caller.tenant_id, name, value)
    action = Action.SECRET_CREATE if stored.is_new else Action.SECRET_UPDATE
    caller.record(tx, action, KIND, name)
    return stored


async def delete(tx: Transaction, caller: Caller, name: str) -> None:
    """Delete a secret. Executions that have begun keep its value. Raises NotFound."""
    if not await secrets.delete(tx, name):
        raise NotFound(NO_SECRET)
    caller.record(tx, Action.SECRET_DELETE, KIND, name)
