"""One transaction at a time that adds to a tenant's templates, within what it may have."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.quotas.standing import Standing, template_refusal
from runner.store import quotas
from runner.store.db import Database
from runner.store.tenants import Tenant
from runner.store.transaction import Transaction
from runner.words.errors import NotFound

KIND = "template"
"""The name that audit records have for one."""


@asynccontextmanager
async def alone(
    database: Database, caller: Caller, *, counts: bool = True
) -> AsyncIterator[tuple[Transaction, Tenant, Standing]]:
    """Yield the only transaction that may add a template now.

    Raises QuotaExceeded, and puts that on record, if the tenant may have no more of them. With
    `counts` false, the template is one that was counted when it was announced.
    """
    async with database.tenant(caller.tenant_id) as tx:
        # Locked until the transaction ends, so that the last place is given away only once.
        tenant, standing = await quotas.alone(tx)
        if tenant is None:
            raise NotFound("the tenant of this key no longer exists")
        refused = template_refusal(standing) if counts else None
        if refused is None:
            yield tx, tenant, standing
            return
    async with database.tenant(caller.tenant_id) as tx:
        denied = Outcome.DENIED
        caller.record(tx, Action.TEMPLATE_BUILD, KIND, None, refused.facts, outcome=denied)
    raise refused
