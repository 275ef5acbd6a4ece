"""Secrets in and out of the store."""

import hmac
from dataclasses import dataclass
from uuid import UUID

from runner.secrets import envelope
from runner.secrets.envelope import Unopened
from runner.secrets.keyring import KeyEncryption, Wrapped
from runner.store import secrets
from runner.store.db import Database
from runner.store.secrets import StoredSecret
from runner.store.transaction import Transaction
from runner.words.errors import Invalid, KeyUnavailable

MAX_SECRETS = 256
"""Most secrets of one tenant."""


class Vault:
    """Seals and opens the values of secrets, each with its tenant's own data key."""

    def __init__(self, keys: KeyEncryption) -> None:
        self._keys = keys

    async def put(self, tx: Transaction, tenant: UUID, name: str, value: str) -> StoredSecret:
        """Store a value; it replaces one of the same name.

        Raises Invalid if the tenant has as many as it may, and KeyUnavailable without the keys.
        """
        known = {each.name for each in await secrets.list_all(tx)}
        if name not in known and len(known) >= MAX_SECRETS:
            raise Invalid(f"a tenant may have {MAX_SECRETS} secrets", "name")
        sealed = await self.seal(tx, tenant, value, bound_to=envelope.value_of(tenant, name))
        return await secrets.put(tx, name, sealed)

    async def read(self, tx: Transaction, tenant: UUID, name: str) -> str | None:
        """Return the value of a secret, or None if there is no secret of that name.

        Raises KeyUnavailable if it cannot be opened.
        """
        sealed = await secrets.sealed(tx, name)
        if sealed is None:
            return None
        try:
            return await self._open(tx, tenant, sealed, envelope.value_of(tenant, name))
        except Unopened:
            raise KeyUnavailable(f"the secret {name!r} was changed in the database") from None

    async def seal(self, tx: Transaction, tenant: UUID, value: str, *, bound_to: bytes) -> bytes:
        """Return a value sealed with the tenant's data key; make that key if there is none yet.

        Raises KeyUnavailable without the keys.
        """
        key = await self._own_key(tx, tenant)
        return envelope.seal(key, value.encode(), bound_to=bound_to)

    async def unseal(self, tx: Transaction, tenant: UUID, sealed: bytes, *, bound_to: bytes) -> str:
        """Return the value that `seal` got. Raises KeyUnavailable if it does not open."""
        try:
            return await self._open(tx, tenant, sealed, bound_to)
        except Unopened:
            raise KeyUnavailable("a sealed value was changed in the database") from None

    async def mac(self, tx: Transaction, tenant: UUID, message: bytes, *, purpose: bytes) -> bytes:
        """Return a MAC of 32 bytes that only this tenant's data key makes, for this purpose.

        Raises KeyUnavailable without the keys.
        """
        return envelope.mac(await self._own_key(tx, tenant), message, purpose=purpose)

    async def is_mac(
        self, tx: Transaction, tenant: UUID, message: bytes, mac: bytes, *, purpose: bytes
    ) -> bool:
        """Return whether `mac` made this MAC; compared in constant time. Raises KeyUnavailable."""
        key = await self._data_key(tx, tenant)
        if key is None:
            return False
        return hmac.compare_digest(envelope.mac(key, message, purpose=purpose), mac)

    async def _own_key(self, tx: Transaction, tenant: UUID) -> bytes:
        """Return the tenant's data key; make it if there is none yet."""
        key = await self._data_key(tx, tenant)
        if key is None:
            made = await self._keys.wrap(envelope.new_key(), bound_to=envelope.data_key_of(tenant))
            await secrets.add_key(tx, made.kek_id, made.sealed)
            # Read the key again: another transaction may have stored one first.
            key = await self._data_key(tx, tenant)
        if key is None:
            raise RuntimeError("PostgreSQL stored a data key and returned none")
        return key

    async def _open(self, tx: Transaction, tenant: UUID, sealed: bytes, bound_to: bytes) -> str:
        key = await self._data_key(tx, tenant)
        return envelope.unseal(key or b"", sealed, bound_to=bound_to).decode()

    async def _data_key(self, tx: Transaction, tenant: UUID) -> bytes | None:
        stored = await secrets.get_key(tx)
        if stored is None:
            return None
        wrapped = Wrapped(stored.kek_id, stored.wrapped)
        return await self._keys.unwrap(wrapped, bound_to=envelope.data_key_of(tenant))


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """Result of a rotation.

    `unopened` are tenants whose data keys did not open and stay unchanged; `in_use` are the
    key-encryption keys that still wrap something.
    """

    changed: int
    unopened: tuple[UUID, ...]
    in_use: frozenset[str]


async def rewrap_all(owner: Database, keys: KeyEncryption) -> Rewrapped:
    """Wrap every tenant's data key with the current key-encryption key.

    You may repeat this, and executions may run meanwhile: each data key changes in one statement,
    and the key that wrapped it before still unwraps.
    """
    current = await keys.current()
    changed = 0
    unopened = []
    async with owner.no_tenant() as tx:
        stale = await secrets.keys_not_under(tx, current)
    for each in stale:
        bound_to = envelope.data_key_of(each.tenant_id)
        try:
            key = await keys.unwrap(Wrapped(each.kek_id, each.wrapped), bound_to=bound_to)
        except KeyUnavailable:
            unopened.append(each.tenant_id)
            continue
        made = await keys.wrap(key, bound_to=bound_to)
        async with owner.tenant(each.tenant_id) as tx:
            changed += await secrets.rewrap(tx, each, made.kek_id, made.sealed)
    async with owner.no_tenant() as tx:
        left = await secrets.keys_not_under(tx, current)
    in_use = frozenset({current, *(each.kek_id for each in left)})
    return Rewrapped(changed, tuple(unopened), in_use)
