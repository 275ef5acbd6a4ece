"""A start and an end in one transaction are the same two that they are in two."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias

import psycopg
import pytest

from runner.audit import events as audit
from runner.errors import LeaseLost
from runner.ids import new_id
from runner.models import Claim
from runner.states import Reason, State
from runner.store import attempts, executions
from runner.store.attempts import Begun
from runner.store.db import Database
from runner.store.executions import never_ran
from tests.integration.store.conftest import LEASE, REQUEST, new_tenant, submitted

AGO = timedelta(seconds=7)
STARTED = audit.AuditEvent("worker", audit.Action.EXECUTION_START, audit.Outcome.SUCCESS)
ENDED = audit.AuditEvent("worker", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
DONE = never_ran(State.SUCCEEDED, Reason.COMPLETED, "")
Superuser: TypeAlias = "psycopg.Connection[dict[str, Any]]"
Claimed: TypeAlias = Callable[[str], Awaitable[Claim]]


@pytest.fixture
def claimed(api: Database, owner: Database, superuser: Superuser) -> Claimed:
    """Return what claims a new tenant's one execution, whosever turn it is."""

    async def claim(name: str) -> Claim:
        made = Claim(execution_id=new_id(), tenant_id=await new_tenant(owner, name), attempt=1)
        async with api.tenant(made.tenant_id) as tx:
            await executions.insert(tx, made.execution_id, REQUEST, submitted(made.tenant_id))
        superuser.execute(
            "UPDATE executions SET state = 'starting', attempt = 1, claimed_at = now(), "
            "lease_until = now() + interval '1 min' WHERE execution_id = %s",
            [made.execution_id],
        )
        return made

    return claim


def begun(claim: Claim) -> Begun:
    """Return a start of some seconds ago."""
    return Begun(AGO, audit.body(claim.tenant_id, STARTED))


async def finish(worker: Database, claim: Claim, start: Begun | None) -> None:
    """End it, with that start if any."""
    async with worker.tenant(claim.tenant_id) as tx:
        finishing = await attempts.finish_with(tx, claim, DONE, begun=start)
        await audit.append(tx, claim.tenant_id, ENDED)
        await tx.flush()
        await finishing.times()


@pytest.mark.parametrize("together", [True, False])
async def test_both_leave_the_same(
    claimed: Claimed, worker: Database, superuser: Superuser, *, together: bool
) -> None:
    """Times, events, ledger and audit records, in their order."""
    claim = await claimed(f"begun-{together}".lower())
    if not together:
        async with worker.tenant(claim.tenant_id) as tx:
            assert await attempts.start(tx, claim, LEASE, begun(claim)) == 2
    await finish(worker, claim, begun(claim) if together else None)
    id_ = [claim.execution_id]
    times = superuser.execute(
        "SELECT e.state, e.event_seq, e.started_at = u.started_at AS entered, "
        "e.ended_at - e.started_at BETWEEN '6.9 s' AND '60 s' AS lasted "
        "FROM executions e JOIN usage_records u USING (execution_id) WHERE e.execution_id = %s",
        id_,
    ).fetchone()
    assert times == {"state": "succeeded", "event_seq": 3, "entered": True, "lasted": True}
    told = superuser.execute(
        "SELECT seq, data ->> 'state' AS state FROM events WHERE execution_id = %s ORDER BY seq",
        id_,
    ).fetchall()
    assert [tuple(row.values()) for row in told] == [
        (1, "queued"),
        (2, "running"),
        (3, "succeeded"),
    ]
    records = superuser.execute(
        "SELECT action FROM audit_events WHERE tenant_id = %s ORDER BY seq", [claim.tenant_id]
    ).fetchall()
    assert [row["action"] for row in records][-3:] == [
        "execution:submit",
        "execution:start",
        "execution:end",
    ]


async def test_a_start_is_put_on_record_once(
    claimed: Claimed, worker: Database, superuser: Superuser
) -> None:
    """With one on record already, an end that brings another is none of this attempt's."""
    claim = await claimed("begun-twice")
    async with worker.tenant(claim.tenant_id) as tx:
        await attempts.start(tx, claim, LEASE, begun(claim))
    with pytest.raises(LeaseLost):
        await finish(worker, claim, begun(claim))
    row = superuser.execute(
        "SELECT state, event_seq FROM executions WHERE execution_id = %s", [claim.execution_id]
    ).fetchone()
    assert row == {"state": "running", "event_seq": 2}


async def test_an_end_without_its_start_is_refused(claimed: Claimed, worker: Database) -> None:
    """What succeeded has begun."""
    claim = await claimed("begun-never")
    with pytest.raises(LeaseLost):
        await finish(worker, claim, None)
