"""A log as a file: NDJSON, one canonical JSON text (RFC 8785) a line; the last is a checkpoint.

    {"body": {"tenant", "exported_at", "filter"}, "keys": [{"id", "pem"}], "type": KIND}
    {"hash", "previous_hash", "record", "seq"}                       once for each record
    {"body": {"tenant", "seq", "hash", "at"}, "key", "signature", "type": checkpoints.KIND}

The log is append-only, and an export ends at the record of its checkpoint. So its pages can be read
one after another in short transactions, however slowly a client takes them.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import rfc8785

from runner.audit import checkpoints
from runner.audit.chain import Link
from runner.audit.checkpoints import Checkpoint
from runner.audit.events import Action, AuditEvent, Filter, Origin, Outcome, append_now, timestamp
from runner.base.signing import PublicKey, TrustedKeys
from runner.store.db import Database

KIND = "agent-runner/audit-export/v1"
PAGE = 500
SEALED_WITHIN_S = 10.0
"""How long an export waits for a worker to sign a checkpoint."""


def line(link: Link) -> str:
    """Return a record with its place in the chain as canonical JSON; its body is that already."""
    return (
        f'{{"hash":"{link.hash.hex()}","previous_hash":"{link.previous_hash.hex()}",'
        f'"record":{link.body},"seq":{link.seq}}}'
    )


async def begin(
    database: Database,
    tenant: UUID,
    wanted: Filter,
    keys: TrustedKeys,
    *,
    actor: str,
    origin: Origin,
) -> AsyncIterator[bytes]:
    """Record the export, wait until that record is sealed, and return the export's lines.

    Raises NotReady if no worker seals it in time.
    """
    event = AuditEvent(
        actor=actor,
        action=Action.AUDIT_EXPORT,
        outcome=Outcome.SUCCESS,
        resource_type="audit",
        origin=origin,
        metadata=_given(wanted),
    )
    async with database.tenant(tenant) as tx:
        head = await append_now(tx, tenant, event)
    checkpoint = await checkpoints.covering(
        database, tenant, head.seq, keys, within_s=SEALED_WITHIN_S
    )
    return lines(database, tenant, wanted, checkpoint, keys.read())


async def lines(
    database: Database,
    tenant: UUID,
    wanted: Filter,
    checkpoint: Checkpoint,
    keys: Sequence[PublicKey],
) -> AsyncIterator[bytes]:
    """Yield an export in pieces of whole lines, up to the record of the checkpoint."""
    yield _header(tenant, wanted, keys)
    after = 0
    while True:
        async with database.tenant(tenant) as tx:
            rows = await tx.all(
                "audit.export",
                after=after,
                upto=checkpoint.seq,
                limit=PAGE,
                **wanted.values(),
            )
        if not rows:
            break
        yield "".join(f"{line(Link(**row))}\n" for row in rows).encode()
        after = rows[-1]["seq"]
    yield f"{checkpoint.document}\n".encode()


def _header(tenant: UUID, wanted: Filter, keys: Sequence[PublicKey]) -> bytes:
    header: dict[str, Any] = {
        "type": KIND,
        "body": {
            "tenant": str(tenant),
            "exported_at": timestamp(datetime.now(UTC)),
            # A part of a chain cannot be verified as a chain; tell the reader so.
            "filter": _given(wanted) or None,
        },
        "keys": [{"id": key.id, "pem": key.pem} for key in keys],
    }
    return rfc8785.dumps(header) + b"\n"


def _given(wanted: Filter) -> dict[str, str]:
    return {name: value for name, value in wanted.values().items() if value is not None}
