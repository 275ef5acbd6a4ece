"""`/v1/audit`: the tenant's audit log, its verification and its export.

`operator_audit` has the same of the deployment's own log.
"""

import json
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, Field

from runner.api import cursors
from runner.api.deps import Allow, Dependencies, Parts
from runner.api.fields import storable
from runner.api.problems import responses
from runner.api.views import View
from runner.audit import checkpoints, export
from runner.audit import events as audit
from runner.audit.chain import Pin
from runner.audit.checkpoints import Checkpoint
from runner.auth.caller import By, Caller
from runner.auth.permissions import Permission

router = APIRouter(prefix="/v1/audit", tags=["audit"])

CanExportAudit = Annotated[Caller, Depends(Allow(Permission.AUDIT_EXPORT))]
CanReadAudit = Annotated[Caller, Depends(Allow(Permission.AUDIT_READ))]

Wanted = Annotated[str | None, Query(max_length=128), AfterValidator(lambda v: v and storable(v))]


class AuditRecord(View):
    """One record with its place in the tenant's hash chain."""

    seq: int
    hash: str = Field(description="SHA-256 over the previous hash, this number and this record.")
    record: dict[str, Any] = Field(
        description="What happened, hashed in canonical form (RFC 8785).",
        examples=[{"action": "execution:submit", "actor": "key:abc", "outcome": "success"}],
    )


class AuditPage(View):
    """Records in the order that was asked for."""

    items: list[AuditRecord]
    next_cursor: str | None


class CheckpointView(View):
    """A signed statement of the log's state at one moment."""

    seq: int = Field(description="The number of the newest record that it covers.")
    at: str = Field(description="When it was signed.", examples=["2026-01-02T03:04:05.000006Z"])
    key: str = Field(description="The key that signed it.", examples=["3f1c09b2a7d45e68"])
    document: str = Field(description="The signed text. Keep it elsewhere to compare later.")

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "CheckpointView":
        """Return the view of a checkpoint."""
        return cls(
            seq=checkpoint.seq,
            at=checkpoint.at,
            key=checkpoint.key,
            document=checkpoint.document,
        )


class Verification(View):
    """The result of a check of the log: that no record was changed, removed, inserted or moved."""

    valid: bool
    records: int = Field(description="Number of intact records, from the first.")
    head: str = Field(description="The hash of the last of them. Keep it to compare later.")
    fault: str | None = Field(description="The first fault found.")
    checkpoint: CheckpointView | None = Field(
        description="The newest checkpoint. Records after it are not sealed yet."
    )


class Ndjson(StreamingResponse):
    """One JSON text to a line."""

    media_type = "application/x-ndjson"


async def wanted(
    action: Wanted = None,
    actor: Wanted = None,
    outcome: Wanted = None,
    resource_id: Wanted = None,
    since: cursors.Moment | None = None,
    until: cursors.Moment | None = None,
) -> audit.Filter:
    """Return which records a request asks for."""
    return audit.Filter(
        action=action,
        actor=actor,
        outcome=outcome,
        resource_id=resource_id,
        since=cursors.in_range(since),
        until=cursors.in_range(until),
    )


Filtered = Annotated[audit.Filter, Depends(wanted)]
Cursor = Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)]
PageSize = Annotated[int, Query(ge=1, le=500)]
Order = Annotated[
    Literal["oldest", "newest"],
    Query(description="Which records come first; a cursor is for the order it was given in."),
]
KnownSeq = Annotated[int | None, Query(ge=1, le=cursors.MAX_SEQ)]
KnownHash = Annotated[str | None, Query(alias="hash", pattern=r"^[0-9a-f]{64}$")]


@router.get("", summary="Read the audit log", responses=responses())
async def read(
    caller: CanReadAudit,
    parts: Parts,
    filtered: Filtered,
    cursor: Cursor = None,
    limit: PageSize = 100,
    order: Order = "oldest",
) -> AuditPage:
    """Return this tenant's audit records, oldest first unless `order` says otherwise."""
    return await page_of(parts, caller.tenant_id, filtered, cursor, limit, order)


@router.get("/verification", summary="Verify the audit log", responses=responses())
async def verify(
    caller: CanReadAudit, parts: Parts, seq: KnownSeq = None, hash_: KnownHash = None
) -> Verification:
    """Compute the whole chain and compare it with its head, newest checkpoint and receipts.

    To check that the log still has a record that you know, give its `seq` and `hash`.
    """
    return await verified(parts, caller.tenant_id, seq, hash_)


@router.get("/export", summary="Export the audit log", response_class=Ndjson, responses=responses())
async def export_log(caller: CanExportAudit, parts: Parts, filtered: Filtered) -> Ndjson:
    """Return the log as NDJSON: a head with the public keys, the records, a signed checkpoint.

    `runner audit verify FILE` checks it offline. A filtered export is no chain, so it cannot show
    whether a record was left out. The log, and so the file, records the export itself.
    """
    return await exported(parts, caller.tenant_id, filtered, caller.by)


async def page_of(
    parts: Dependencies,
    tenant_id: UUID,
    filtered: audit.Filter,
    cursor: str | None,
    limit: int,
    order: Literal["oldest", "newest"],
) -> AuditPage:
    """Return a page of a log."""
    place = cursors.decode_seq(cursor)
    async with parts.database.tenant(tenant_id) as tx:
        if order == "oldest":
            found = await audit.list_after(tx, place, filtered, limit + 1)
        else:
            # Records are numbered from 1, so no cursor has the number 0.
            found = await audit.list_before(tx, place or cursors.MAX_SEQ, filtered, limit + 1)
    page, next_cursor = cursors.page(found, limit, lambda each: each.seq)
    return AuditPage(
        items=[
            AuditRecord(seq=each.seq, hash=each.hash.hex(), record=json.loads(each.body))
            for each in page
        ],
        next_cursor=next_cursor,
    )


async def verified(
    parts: Dependencies, tenant_id: UUID, seq: int | None, hash_: str | None
) -> Verification:
    """Return whether a log holds, and still has the record that somebody knows, if they do."""
    known = []
    if seq is not None and hash_ is not None:
        known.append(Pin(seq, bytes.fromhex(hash_), "what you hold"))
    keys = parts.trusted.read()
    async with parts.verifying.turn(tenant_id):
        checked = await checkpoints.verify_log(parts.database, tenant_id, keys, known)
    verdict = checked.verdict
    return Verification(
        valid=verdict.fault is None,
        records=verdict.records,
        head=verdict.head,
        fault=verdict.fault.what if verdict.fault else None,
        checkpoint=CheckpointView.of(checked.checkpoint) if checked.checkpoint else None,
    )


async def exported(parts: Dependencies, tenant_id: UUID, filtered: audit.Filter, by: By) -> Ndjson:
    """Return a log as a file, after recording in it who exports it."""
    lines = await export.begin(
        parts.database, tenant_id, filtered, parts.trusted, actor=by.actor, origin=by.origin
    )
    return Ndjson(
        lines,
        headers={"Content-Disposition": f'attachment; filename="audit-{tenant_id}.ndjson"'},
    )
