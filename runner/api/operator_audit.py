"""`/operator/v1/audit`: the deployment's own audit log, which belongs to no tenant.

It holds what operators and nodes did, and guesses at keys that do not exist. What operators did to
a tenant is in the tenant's log.
"""

from fastapi import APIRouter, Depends, Request

from runner.api.audit import (
    AuditPage,
    Cursor,
    Filtered,
    KnownHash,
    KnownSeq,
    Ndjson,
    Order,
    PageSize,
    Verification,
    exported,
    page_of,
    verified,
)
from runner.api.context import origin
from runner.api.deps import IsOperator, Parts, is_operator
from runner.api.problems import responses
from runner.auth.caller import By
from runner.words.ids import PLATFORM_TENANT

router = APIRouter(
    prefix="/operator/v1/audit", tags=["operator"], dependencies=[Depends(is_operator)]
)


@router.get("", summary="Read the deployment's audit log", responses=responses())
async def read(
    parts: Parts,
    filtered: Filtered,
    cursor: Cursor = None,
    limit: PageSize = 100,
    order: Order = "oldest",
) -> AuditPage:
    """Return the deployment's records, oldest first unless `order` says otherwise."""
    return await page_of(parts, PLATFORM_TENANT, filtered, cursor, limit, order)


@router.get("/verification", summary="Verify the deployment's audit log", responses=responses())
async def verify(parts: Parts, seq: KnownSeq = None, hash_: KnownHash = None) -> Verification:
    """Compute the whole chain and compare it with its head and its newest checkpoint.

    To check that the log still has a record that you know, give its `seq` and `hash`.
    """
    return await verified(parts, PLATFORM_TENANT, seq, hash_)


@router.get(
    "/export",
    summary="Export the deployment's audit log",
    response_class=Ndjson,
    responses=responses(),
)
async def export_log(
    request: Request, operator: IsOperator, parts: Parts, filtered: Filtered
) -> Ndjson:
    """Return the log as NDJSON, as `runner audit export --platform` does.

    `runner audit verify FILE` checks it offline. The log, and so the file, records the export.
    """
    by = By(operator.actor, origin(request))
    return await exported(parts, PLATFORM_TENANT, filtered, by)
