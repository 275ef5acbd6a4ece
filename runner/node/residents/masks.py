"""Keeps the values of secrets that a sandbox was ever given, sealed in its row.

A process may write a value long after its secret was changed or deleted. So a later process of this
node must know every value, not only the present ones.
"""

import json
from collections.abc import Iterable

import structlog

from runner.secrets.envelope import masks_of
from runner.secrets.vault import Vault
from runner.store import residents
from runner.store.db import Database
from runner.store.residents import SandboxHold
from runner.words.errors import KeyUnavailable

_log = structlog.get_logger("runner.worker")


class MaskStore:
    """Seals values with the data key of the sandbox's tenant, bound to the sandbox."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    async def keep(self, hold: SandboxHold, values: Iterable[str]) -> None:
        """Store these values in place of those stored before. Raises LeaseLost.

        Without a key for secrets, as in a deployment that has secrets in a file only, nothing is
        stored: a value that then changes while the worker is away is not masked any more.
        """
        text = json.dumps(sorted(values))
        bound_to = masks_of(hold.tenant_id, hold.sandbox_id)
        try:
            async with self._database.tenant(hold.tenant_id) as tx:
                sealed = await self._vault.seal(tx, hold.tenant_id, text, bound_to=bound_to)
                await residents.keep_masks(tx, hold, sealed)
        except KeyUnavailable as error:
            _log.warning("masks_not_kept", sandbox=str(hold.sandbox_id), why=error.detail)

    async def read(self, hold: SandboxHold, sealed: bytes | None) -> frozenset[str]:
        """Return the values that were stored. Raises KeyUnavailable if they do not open."""
        if sealed is None:
            return frozenset()
        bound_to = masks_of(hold.tenant_id, hold.sandbox_id)
        async with self._database.tenant(hold.tenant_id) as tx:
            text = await self._vault.unseal(tx, hold.tenant_id, sealed, bound_to=bound_to)
        return frozenset(json.loads(text))
