"""Receipts as pins of the chain: each names the place of its execution's end in the chain, signed.

Whoever rewrites a chain must also remove its receipts, and an ended execution without one is found.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from runner.audit.chain import Fault
from runner.base.signing import BadSignature, PublicKey, verify
from runner.store.db import Database
from runner.store.receipts import KIND
from runner.store.transaction import Transaction

PAGE = 50
"""Verifying a signature takes up to two milliseconds. A page of this size keeps a thread for a
tenth of a second, and the thread ends soon if nobody waits for it any more."""


async def contradicted(tx: Transaction, *, after: int) -> Fault | None:
    """Return the first end of an execution behind record `after` that its receipt contradicts.

    It does not verify the receipts' signatures: a receipt that was forged to contradict the chain
    is a fault as well, and the worker's sweep has little time.
    """
    row = await tx.one("receipts.contradicted", after=after)
    return _fault(row["seq"], row["execution_id"]) if row else None


async def contradicting_receipt(
    database: Database, tenant: UUID, keys: tuple[PublicKey, ...]
) -> Fault | None:
    """Return the fault of the first stored receipt that the chain does not pass through.

    Signatures are verified in a thread, and while no connection is held.
    """
    after = UUID(int=0)
    while rows := await _page(database, tenant, after):
        if (fault := await asyncio.to_thread(_first, rows, keys)) is not None:
            return fault
        after = rows[-1]["execution_id"]
    return None


async def _page(database: Database, tenant: UUID, after: UUID) -> Sequence[Mapping[str, Any]]:
    async with database.tenant(tenant) as tx:
        return await tx.all("receipts.with_place", after=after, limit=PAGE)


def _first(rows: Sequence[Mapping[str, Any]], keys: tuple[PublicKey, ...]) -> Fault | None:
    for row in rows:
        id_ = row["execution_id"]
        try:
            body = verify(row["document"], KIND, keys)
        except BadSignature as error:
            return Fault(row["seq"] or 0, f"the receipt of execution {id_} is not ours: {error}")
        head = body["audit_head"]
        if (
            body["execution"] != str(id_)
            or row["hash"] is None
            or row["hash"].hex() != head["hash"]
        ):
            return _fault(head["seq"], id_)
    return None


def _fault(seq: int, execution: object) -> Fault:
    return Fault(seq, f"record {seq} is not the one of the receipt of execution {execution}")
