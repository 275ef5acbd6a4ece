"""A start and an end in one transaction have the same result as in two."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.base.duties import Duties
from runner.base.signing import Signer
from runner.embedded.services import Services
from runner.executions.notices import EndNotices
from runner.node.runs.attempt import Attempt
from runner.node.runs.finish import Finisher
from runner.node.runs.recorder import Recorder
from runner.node.runs.start import Start
from runner.queue.changes import Changes
from runner.secrets.envelope import new_key as new_secrets_key
from runner.secrets.keyring import KeyRing
from runner.store import attempts, executions, files, ledger
from runner.store.attempts import Begun
from runner.store.db import Database
from runner.store.files import NewFile
from runner.store.objects import new_key
from runner.words.errors import LeaseLost, StoreUnavailable
from runner.words.execution import Claim, InputFile, StoredObject, never_ran
from runner.words.ids import new_id
from runner.words.states import Reason, State
from tests.integration.store.conftest import LEASE, REQUEST, SUBMITTED, Claimed

AGO = timedelta(seconds=7)
STARTED = audit.AuditEvent("worker", audit.Action.EXECUTION_START, audit.Outcome.SUCCESS)
ENDED = audit.AuditEvent("worker", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
DONE = never_ran(State.SUCCEEDED, Reason.COMPLETED, "")
Superuser: TypeAlias = "psycopg.Connection[dict[str, Any]]"


def begun(claim: Claim) -> Begun:
    """Return a start of some seconds ago."""
    return Begun(AGO, audit.body(claim.tenant_id, STARTED))


async def finish(worker: Database, claim: Claim, start: Begun | None) -> None:
    """End it, together with that start if there is one."""
    async with worker.tenant(claim.tenant_id) as tx:
        finishing = await attempts.finish_with(tx, claim, DONE, begun=start)
        audit.append(tx, claim.tenant_id, ENDED)
        await tx.flush()
        await finishing.times()


@pytest.mark.parametrize("together", [True, False])
async def test_both_leave_the_same(
    claimed: Claimed, worker: Database, superuser: Superuser, *, together: bool
) -> None:
    """This covers times, events, ledger and audit records, in their order."""
    claim = await claimed(f"begun-{together}".lower())
    if not together:
        assert await attempts.start(worker, claim, LEASE, begun(claim)) == 2
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
    """If one is recorded, an end with another start does not belong to this attempt."""
    claim = await claimed("begun-twice")
    await attempts.start(worker, claim, LEASE, begun(claim))
    with pytest.raises(LeaseLost):
        await finish(worker, claim, begun(claim))
    row = superuser.execute(
        "SELECT state, event_seq FROM executions WHERE execution_id = %s", [claim.execution_id]
    ).fetchone()
    assert row == {"state": "running", "event_seq": 2}


@pytest.mark.parametrize("stored", [True, False])
async def test_an_end_recognises_its_own_start(
    claimed: Claimed,
    worker: Database,
    superuser: Superuser,
    postgres: Services,
    tmp_path: Path,
    *,
    stored: bool,
) -> None:
    """The run was cancelled while its start went on record, and the answer never came.

    Stored or not, the result is written, and the start is told once.
    """
    claim = await claimed(f"begun-cancelled-{stored}".lower())
    start = Start(lambda: begun(claim).record)
    asked = asyncio.Event()

    async def store() -> None:
        if stored:
            await attempts.start(worker, claim, LEASE, start.begun())
        asked.set()
        await asyncio.sleep(60)

    async def run() -> None:
        async with start.recorded(store, ahead=False):
            await start.begin()
            await asyncio.sleep(60)

    running = asyncio.create_task(run())
    async with asyncio.timeout(10):
        await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with Changes(SecretStr(postgres.redis_url), Duties()) as changes:
        recorder = Recorder(
            database=worker, changes=changes, claim=claim, bounds=REQUEST.run.bounds
        )
        attempt = Attempt(claim, REQUEST, recorder, start=start)
        finisher = Finisher(
            database=worker,
            changes=changes,
            notices=EndNotices(KeyRing({"some": new_secrets_key()})),
            signer=Signer.open(tmp_path),
            node="n",
        )
        await finisher.finish(attempt, DONE)
        await recorder.stop()
    told = superuser.execute(
        "SELECT data ->> 'state' AS state FROM events WHERE execution_id = %s ORDER BY seq",
        [claim.execution_id],
    ).fetchall()
    assert [row["state"] for row in told] == ["queued", "running", "succeeded"]
    records = superuser.execute(
        "SELECT action FROM audit_events WHERE tenant_id = %s ORDER BY seq", [claim.tenant_id]
    ).fetchall()
    assert [row["action"] for row in records][-2:] == ["execution:start", "execution:end"]


async def test_a_start_that_was_not_confirmed_is_told_again(
    claimed: Claimed, worker: Database, superuser: Superuser
) -> None:
    """A worker that repeats it gets its own start; nothing is written twice."""
    claim = await claimed("begun-unconfirmed")
    for _ in range(2):
        assert await attempts.start(worker, claim, LEASE, begun(claim)) == 2
    counts = superuser.execute(
        "SELECT (SELECT count(*) FROM events WHERE execution_id = %s) AS events, "
        "(SELECT count(*) FROM audit_events WHERE tenant_id = %s AND action = 'execution:start') "
        "AS records",
        [claim.execution_id, claim.tenant_id],
    ).fetchone()
    assert counts == {"events": 2, "records": 1}


async def test_an_end_without_its_start_is_refused(claimed: Claimed, worker: Database) -> None:
    """An execution that succeeded must have begun."""
    claim = await claimed("begun-never")
    with pytest.raises(LeaseLost):
        await finish(worker, claim, None)


@pytest.mark.parametrize("records_last", [True, False])
async def test_who_waits_for_a_row_does_not_hold_the_chain(
    claimed: Claimed, api: Database, worker: Database, superuser: Superuser, *, records_last: bool
) -> None:
    """An execution ends while another that is given the same stored file is submitted.

    The control: with its record before its rows, each waits for the other, and one is given up.
    """
    claim = await claimed(f"chain-{records_last}".lower())
    tenant, key = claim.tenant_id, new_key(claim.tenant_id, "files")
    stored = InputFile("in", StoredObject(key, 10, "0" * 64))
    given = replace(REQUEST, run=replace(REQUEST.run, files=(stored,)))
    async with api.tenant(tenant) as tx:
        await ledger.reserve(tx, key, 10)
        assert await ledger.keep(tx, [key])
        await files.put(tx, NewFile("in", 10, "0" * 64, "text/plain", key))
    superuser.execute(
        "INSERT INTO input_files (tenant_id, execution_id, path, object_key, size, sha256) "
        "VALUES (%s, %s, 'in', %s, 10, repeat('0', 64))",
        [tenant, claim.execution_id, key],
    )
    await attempts.start(worker, claim, LEASE, begun(claim))
    released = asyncio.Event()

    async def end() -> None:
        async with worker.tenant(tenant) as tx:
            await attempts.finish(tx, claim, DONE)
            released.set()
            await asyncio.sleep(0.3)
            audit.append(tx, tenant, ENDED)

    async def submit() -> None:
        await released.wait()
        async with api.tenant(tenant) as tx:
            if not records_last:
                await audit.append_now(tx, tenant, SUBMITTED)
            executions.insert_later(tx, new_id(), given)
            audit.append(tx, tenant, SUBMITTED)

    ended = await asyncio.gather(end(), submit(), return_exceptions=True)
    failed = [type(each) for each in ended if each]
    assert failed == ([] if records_last else [StoreUnavailable])
