"""Checkpoints show what a database superuser did to a log."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from runner.audit import chain, checkpoints, export, offline
from runner.audit import events as audit
from runner.audit.checkpoints import Checkpointer
from runner.audit.events import Filter
from runner.audit.memory import Memory
from runner.audit.offline import Kind
from runner.base.signing import PublicKey, Signer, TrustedKeys
from runner.embedded.services import Services
from runner.store.db import Database
from runner.words.ids import new_id


@dataclass
class Kept:
    """A tenant's log that is sealed, and the means to seal, verify and export it."""

    tenant: UUID
    api: Database
    worker: Database
    checkpointer: Checkpointer
    memory: Memory
    keys: tuple[PublicKey, ...]
    disarmed: Callable[[str], None]

    async def grow(self, records: int = 5) -> None:
        """Append records and seal the log."""
        for number in range(records):
            event = audit.AuditEvent(
                actor="key:a",
                action=audit.Action.EXECUTION_SUBMIT,
                outcome=audit.Outcome.SUCCESS,
                metadata={"number": number},
            )
            async with self.worker.tenant(self.tenant) as tx:
                audit.append(tx, self.tenant, event)
        await self.checkpointer.sweep()

    async def fault(self) -> str | None:
        """Return the fault that the API would report."""
        verdict = (await checkpoints.verify_log(self.api, self.tenant, self.keys)).verdict
        return verdict.fault.what if verdict.fault else None

    async def fault_by_chain_alone(self) -> str | None:
        """Return the fault that is found without checkpoints."""
        fault = (await chain.verify(self.api, self.tenant)).fault
        return fault.what if fault else None

    async def export(self) -> list[str]:
        """Return the lines of an export as of the newest checkpoint."""
        async with self.api.tenant(self.tenant) as tx:
            newest = await checkpoints.newest(tx, self.tenant, self.keys)
        assert newest is not None
        pieces = export.lines(self.api, self.tenant, Filter(), newest, self.keys)
        return b"".join([piece async for piece in pieces]).decode().splitlines()

    async def sealed(self) -> int:
        """Return how far the log is sealed."""
        async with self.api.tenant(self.tenant) as tx:
            newest = await checkpoints.newest(tx, self.tenant, self.keys)
        return newest.seq if newest else 0


@pytest.fixture
async def kept(api: Database, worker: Database, postgres: Services, tmp_path: Path) -> Kept:
    """Return a log of five records, sealed."""
    signer = Signer.open(tmp_path)
    tenant = new_id()

    def disarmed(statement: str) -> None:
        """Act as a superuser who first disables the triggers."""
        with psycopg.connect(
            postgres.postgres.url("postgres", "runner"), autocommit=True
        ) as connection:
            connection.execute("SET session_replication_role = replica")
            assert connection.execute(statement.encode(), {"t": tenant}).rowcount > 0

    memory = Memory(tmp_path)
    checkpointer = Checkpointer(
        database=worker,
        signer=signer,
        trusted=TrustedKeys(tmp_path),
        memory=memory,
        age=timedelta(0),
    )
    made = Kept(tenant, api, worker, checkpointer, memory, signer.public_keys, disarmed)
    await made.grow()
    return made


CUT_LOG = "DELETE FROM audit_events WHERE tenant_id = %(t)s AND seq > 3"
CUT_HEAD = (
    "UPDATE audit_heads SET (seq, hash) = (SELECT seq, hash FROM audit_events "
    "WHERE tenant_id = %(t)s AND seq = 3) WHERE tenant_id = %(t)s"
)
CUT_CHECKPOINTS = "DELETE FROM audit_checkpoints WHERE tenant_id = %(t)s AND seq > 3"


async def test_a_sealed_log_holds(kept: Kept) -> None:
    """It is sealed again only when it has grown."""
    assert await kept.fault() is None
    assert await kept.sealed() == 5
    await kept.checkpointer.sweep()
    await kept.grow(2)
    assert (await kept.sealed(), await kept.fault()) == (7, None)


async def test_a_tail_that_was_cut_with_its_head_is_found(kept: Kept) -> None:
    """The checkpoint shows it. The control: the chain alone finds no fault."""
    kept.disarmed(CUT_LOG)
    kept.disarmed(CUT_HEAD)
    assert "the log ends at record 3" in (await kept.fault() or "")
    assert await kept.fault_by_chain_alone() is None


async def test_a_tail_cut_with_the_checkpoints_is_found_by_what_is_held_outside(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    """An earlier export or a line of our log shows it; the database no longer can."""
    await kept.grow(1)
    before = await kept.export()
    # The worker's log, as an operator keeps it: the checkpoint is in it.
    logged = json.dumps({"event": "audit_checkpoint", "checkpoint": before[-1]})
    assert "audit_checkpoint" in "".join(capsys.readouterr())
    for statement in (CUT_LOG, CUT_HEAD, CUT_CHECKPOINTS):
        kept.disarmed(statement)
    assert kept.memory.forget(kept.tenant), "as a worker that is new knows nothing"
    await kept.grow(1)
    assert await kept.fault() is None, "the control: nothing inside shows it"
    after = await kept.export()
    assert offline.verify(after, kept.keys).findings == ()
    for outside in (before, [logged]):
        known = offline.points(outside, kept.keys, str(kept.tenant))
        (finding,) = offline.verify(after, kept.keys, known).findings
        assert (finding.kind, finding.seq) == (Kind.TRUNCATED, 5)
    checked = await checkpoints.verify_log(
        kept.api, kept.tenant, kept.keys, [each.pin for each in known]
    )
    assert checked.verdict.fault is not None


async def test_a_log_that_was_cut_and_grew_again_is_not_sealed_over(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead, it is reported."""
    kept.disarmed(CUT_LOG)
    kept.disarmed(CUT_HEAD)
    await kept.grow(4)
    assert await kept.sealed() == 5, "seven records, but not those that were sealed"
    assert reported(capsys, kept.tenant)
    assert "record 5 is not the one of the checkpoint" in (await kept.fault() or "")
    assert await kept.fault_by_chain_alone() is None, "the control"


async def test_a_record_changed_since_the_last_checkpoint_is_not_sealed(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker verifies what it seals, and does not seal a broken chain."""
    event = audit.AuditEvent("key:a", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
    for _ in range(2):
        async with kept.worker.tenant(kept.tenant) as tx:
            audit.append(tx, kept.tenant, event)
    kept.disarmed(
        "UPDATE audit_events SET body = replace(body, 'key:a', 'key:b') "
        "WHERE tenant_id = %(t)s AND seq = 7"
    )
    await kept.checkpointer.sweep()
    assert await kept.sealed() == 5
    assert reported(capsys, kept.tenant)


async def test_a_chain_that_cannot_be_sealed_holds_up_no_other(
    kept: Kept, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is reported and put off; the sweep continues, and a later one seals it if it can."""
    file = kept.memory._path(kept.tenant)
    sealed = file.read_text()
    file.unlink()
    file.mkdir()
    event = audit.AuditEvent("key:a", audit.Action.EXECUTION_END, audit.Outcome.SUCCESS)
    behind = replace(kept, tenant=new_id())
    for log in (kept, behind):
        async with kept.worker.tenant(log.tenant) as tx:
            audit.append(tx, log.tenant, event)
    with pytest.raises(IsADirectoryError):
        await kept.checkpointer.sweep()
    assert (await kept.sealed(), await behind.sealed()) == (5, 1)
    told = "".join(capsys.readouterr()).splitlines()
    assert any("audit_chain_not_sealed" in line and str(kept.tenant) in line for line in told)
    await kept.checkpointer.sweep()
    assert await kept.sealed() == 5, "put off, without a word"
    file.rmdir()
    file.write_text(sealed)
    kept.checkpointer._silent_until.clear()
    await kept.checkpointer.sweep()
    assert (await kept.sealed(), await kept.fault()) == (6, None)


def reported(capsys: pytest.CaptureFixture[str], tenant: UUID) -> bool:
    """Return whether our log reports a tenant's chain as broken."""
    lines = "".join(capsys.readouterr()).splitlines()
    return any("audit_chain_broken" in line and str(tenant) in line for line in lines)


async def test_a_forged_checkpoint_is_refused(kept: Kept, tmp_path: Path) -> None:
    """Another key signed it, or it belongs to another tenant."""
    head = chain.Head(9, b"x" * 32)
    forger = Signer.open(tmp_path / "forger")
    now = datetime.now(UTC)
    for text in (
        checkpoints.sign(forger, kept.tenant, head, now),
        checkpoints.sign(kept.checkpointer._signer, new_id(), head, now),
        "{}",
    ):
        async with kept.worker.tenant(kept.tenant) as tx:
            await tx.run("audit.add_checkpoint", seq=9, document=text)
        assert "the newest checkpoint is not ours" in (await kept.fault() or "")
        kept.disarmed("DELETE FROM audit_checkpoints WHERE tenant_id = %(t)s AND seq = 9")
    assert await kept.fault() is None


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit_checkpoints SET document = ''", "DELETE FROM audit_checkpoints",
     "TRUNCATE audit_checkpoints"],
)  # fmt: skip
async def test_checkpoints_are_append_only(statement: str, kept: Kept, postgres: Services) -> None:
    """Like the log, they are so for everybody."""
    for url in (postgres.api_url, postgres.worker_url, postgres.owner_url,
                postgres.postgres.url("postgres", "runner")):  # fmt: skip
        with (
            psycopg.connect(url, autocommit=True) as connection,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            connection.execute(statement.encode())


async def test_the_api_can_neither_seal_nor_move_the_operators_cursors(
    kept: Kept, postgres: Services
) -> None:
    """Its login is that of the process which listens for clients."""
    kept.disarmed(
        "INSERT INTO audit_cursors (tenant_id, sink) VALUES (%(t)s, 'syslog'), (%(t)s, 'tenant')"
    )

    def tried(statement: str) -> list[Any]:
        with psycopg.connect(postgres.api_url, autocommit=True) as connection:
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(kept.tenant)])
            return connection.execute(statement.encode()).fetchall()

    refused = (
        "INSERT INTO audit_checkpoints (tenant_id, seq, document) "
        "VALUES (app_tenant(), 99, '{}') RETURNING 1",
        "INSERT INTO audit_cursors (tenant_id, sink) VALUES (app_tenant(), 'webhook') RETURNING 1",
        "UPDATE audit_cursors SET seq = 99 RETURNING 1",
        "SELECT sealed FROM audit_webhooks",
        "SELECT * FROM claim_audit_delivery('tenant', '1 s')",
        "SELECT * FROM audit_chains_due('0 s', '{}', 1)",
    )
    for statement in refused:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tried(statement)
    assert tried("SELECT sink FROM audit_cursors") == [("tenant",)]
    # The control: without its one policy, the API's login sees the operator's cursor.
    with psycopg.connect(postgres.postgres.url("postgres", "runner")) as connection:
        connection.execute("DROP POLICY own_webhook ON audit_cursors")
        connection.execute("SET LOCAL ROLE runner_api")
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", [str(kept.tenant)])
        seen = connection.execute("SELECT sink FROM audit_cursors ORDER BY sink").fetchall()
        connection.rollback()
    assert seen == [("syslog",), ("tenant",)]
    assert tried("DELETE FROM audit_cursors RETURNING sink") == [("tenant",)]
