"""`/v1/audit`: the tenant's audit log and its verification."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from runner.api import cursors
from runner.api.deps import CanReadAudit, Parts
from runner.api.fields import storable
from runner.api.problems import responses
from runner.api.views import View
from runner.audit import chain
from runner.audit import events as audit

router = APIRouter(prefix="/v1/audit", tags=["audit"])

Wanted = Annotated[str | None, Query(max_length=128), AfterValidator(lambda v: v and storable(v))]


class AuditRecord(View):
    """One record with its place in the tenant's hash chain."""

    seq: int
    hash: str = Field(description="SHA-256 over the one before it, this number and this record.")
    record: dict[str, Any] = Field(
        description="What happened; hashed in canonical form (RFC 8785).",
        examples=[{"action": "execution:submit", "actor": "key:abc", "outcome": "success"}],
    )


class AuditPage(View):
    """Records, oldest first."""

    items: list[AuditRecord]
    next_cursor: str | None


class Verification(View):
    """Whether the log is whole: no record changed, removed, inserted or moved."""

    valid: bool
    records: int = Field(description="Records that hold, counted from the first.")
    head: str = Field(description="The hash of the last of them: keep it, and compare later.")
    fault: str | None = Field(description="The first thing that does not hold.")


@router.get("", summary="Read the audit log", responses=responses())
async def read(
    principal: CanReadAudit,
    parts: Parts,
    cursor: Annotated[str | None, Query(max_length=cursors.MAX_LENGTH)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    action: Wanted = None,
    actor: Wanted = None,
    outcome: Wanted = None,
    resource_id: Wanted = None,
    since: cursors.Moment | None = None,
    until: cursors.Moment | None = None,
) -> AuditPage:
    """Return this tenant's audit records, oldest first."""
    async with parts.database.tenant(principal.tenant_id) as tx:
        found = await audit.list_after(
            tx,
            cursors.decode_seq(cursor),
            audit.Filter(
                action=action,
                actor=actor,
                outcome=outcome,
                resource_id=resource_id,
                since=cursors.in_range(since),
                until=cursors.in_range(until),
            ),
            limit + 1,
        )
    page = found[:limit]
    return AuditPage(
        items=[
            AuditRecord(seq=each.seq, hash=each.hash.hex(), record=json.loads(each.body))
            for each in page
        ],
        next_cursor=cursors.encode(page[-1].seq) if len(found) > limit else None,
    )


@router.get("/verification", summary="Verify the audit log", responses=responses())
async def verify(principal: CanReadAudit, parts: Parts) -> Verification:
    """Compute the whole chain anew and compare it with its head."""
    async with parts.database.tenant(principal.tenant_id, snapshot=True) as tx:
        verdict = await chain.verify(tx)
    return Verification(
        valid=verdict.fault is None,
        records=verdict.records,
        head=verdict.head,
        fault=verdict.fault.what if verdict.fault else None,
    )
