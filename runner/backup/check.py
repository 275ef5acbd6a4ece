"""Verifies a restored deployment: each log, checkpoint, receipt, object and data key."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from runner.audit import checkpoints
from runner.audit.chain import Pin
from runner.backup import objects
from runner.backup.database import COUNTING
from runner.backup.manifest import BackedObject, ChainEnd
from runner.backup.objects import KeptObject
from runner.backup.whole import chain_ends, listed_objects
from runner.base.signing import BadSignature, PublicKey, verify
from runner.secrets import envelope
from runner.secrets.keyring import KeyRing, Wrapped
from runner.store import secrets
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.receipts import SANDBOX_KIND
from runner.words.errors import KeyUnavailable

_SHOWN = 3
"""How many faults of a tenant are named."""


@dataclass(slots=True)
class TenantCheck:
    """What was verified of one tenant, and the first faults."""

    tenant: UUID
    name: str | None = None
    """None if the tenant was deleted, and only its log is left."""
    records: int = 0
    checkpoints: int = 0
    receipts: int = 0
    sandbox_receipts: int = 0
    objects: int = 0
    bytes: int = 0
    secrets: str = ""
    """`open`, `closed`, or empty if it has none."""
    faults: list[str] = field(default_factory=list)

    def find(self, fault: str) -> None:
        """Keep a fault, unless there are many already."""
        if len(self.faults) < _SHOWN:
            self.faults.append(fault)


async def check(
    superuser: Database,
    store: ObjectStore,
    keys: tuple[PublicKey, ...],
    ring: KeyRing | None,
    source: Path,
) -> list[TenantCheck]:
    """Compare what was restored with the backup in `source`, and with what was signed.

    Tenants are in the order of their names. Raises StoreUnavailable if a part does not answer.
    """
    found: dict[UUID, TenantCheck] = {}

    def of(tenant: str | UUID) -> TenantCheck:
        id_ = UUID(str(tenant))
        return found.setdefault(id_, TenantCheck(id_))

    async for key, size, fault in _objects(superuser, store, source):
        tenant = of(key.split("/")[1])
        tenant.objects += 1
        tenant.bytes += size
        if fault is not None:
            tenant.find(fault)
    for end in chain_ends(source):
        await _check_records(superuser, of(end.tenant), end, keys)
    await _check_secrets(superuser, ring, of)
    return sorted(
        found.values(), key=lambda each: (each.name is None, each.name or "", each.tenant)
    )


async def _objects(
    database: Database, store: ObjectStore, source: Path
) -> AsyncIterator[tuple[str, int, str | None]]:
    """Yield the key and the bytes of each object, and what is wrong with it.

    Rows and index name the objects in the same order.
    """
    listed = listed_objects(source)
    async for some in objects.kept_now(database):
        hashes = await objects.digests(store, some)
        for kept, sha256 in zip(some, hashes, strict=True):
            yield kept.key, kept.bytes, _object_fault(kept, next(listed, None), sha256)
    for stored in listed:
        yield stored.key, stored.bytes, f"no row names the object {stored.key}"


def _object_fault(kept: KeptObject, stored: BackedObject | None, sha256: str | None) -> str | None:
    if stored is None or stored.key != kept.key:
        return f"the backup does not list the object {kept.key}"
    if sha256 is None:
        return f"the object {kept.key} is missing"
    if sha256 != stored.sha256:
        return f"the object {kept.key} is not the one of the backup"
    if kept.sha256 is not None and sha256 != kept.sha256:
        return f"the object {kept.key} is not the one that its row describes"
    return None


async def _check_records(
    database: Database, found: TenantCheck, end: ChainEnd, keys: tuple[PublicKey, ...]
) -> None:
    """Verify a tenant's log, its checkpoints and its receipts."""
    pin = Pin(end.seq, bytes.fromhex(end.hash), "the backup")
    checked = await checkpoints.verify_log(database, found.tenant, keys, [pin])
    found.records = checked.verdict.records
    if checked.verdict.fault is not None:
        found.find(f"the audit log does not hold: {checked.verdict.fault.what}")
    async with database.tenant(found.tenant) as tx:
        tx.patiently(COUNTING)
        name = await tx.one("backup.tenant_name")
        count = await tx.one("backup.receipts")
    found.name = name["name"] if name else None
    # `verify_log` has verified them.
    found.receipts = count["receipts"] if count else 0
    after = 0
    while rows := await _page(database, found.tenant, "backup.checkpoints", after):
        for row in rows:
            try:
                point = await asyncio.to_thread(
                    checkpoints.read, row["document"], keys, str(found.tenant)
                )
            except BadSignature as error:
                found.find(f"the checkpoint of record {row['seq']} does not hold: {error}")
                continue
            if (point.seq, point.hash) != (row["seq"], row["hash"]):
                found.find(f"record {row['seq']} is not the one of {point.pin.source}")
        found.checkpoints += len(rows)
        after = rows[-1]["seq"]
    await _check_sandbox_receipts(database, found, keys)


async def _check_sandbox_receipts(
    database: Database, found: TenantCheck, keys: tuple[PublicKey, ...]
) -> None:
    after = UUID(int=0)
    while rows := await _page(database, found.tenant, "backup.sandbox_receipts", after):
        for row in rows:
            which = f"the receipt of sandbox {row['sandbox_id']}"
            try:
                body = await asyncio.to_thread(verify, row["document"], SANDBOX_KIND, keys)
            except BadSignature as error:
                found.find(f"{which} does not hold: {error}")
                continue
            place = row["hash"] and row["hash"].hex()
            if (body["sandbox"], body["audit_head"]["hash"]) != (str(row["sandbox_id"]), place):
                found.find(f"{which} is of another record")
        found.sandbox_receipts += len(rows)
        after = rows[-1]["sandbox_id"]


async def _page(database: Database, tenant: UUID, name: str, after: object) -> list[dict[str, Any]]:
    async with database.tenant(tenant) as tx:
        return await tx.all(name, after=after, limit=objects.PAGE)


async def _check_secrets(
    database: Database, ring: KeyRing | None, of: Callable[[UUID], TenantCheck]
) -> None:
    """Say whether the keys that were restored open each tenant's data key."""
    async with database.no_tenant() as tx:
        stored = await secrets.keys_not_under(tx, "")
    for each in stored:
        tenant = of(each.tenant_id)
        try:
            wrapped = Wrapped(each.kek_id, each.wrapped)
            await (ring or KeyRing({})).unwrap(
                wrapped, bound_to=envelope.data_key_of(each.tenant_id)
            )
        except KeyUnavailable as error:
            tenant.secrets = "closed"
            tenant.find(f"its secrets do not open: {error.detail}")
        else:
            tenant.secrets = "open"
