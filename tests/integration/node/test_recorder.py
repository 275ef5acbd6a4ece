"""The events of a program's run are stored once, wherever their writer is cancelled."""

from typing import Any, TypeAlias

import psycopg
import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.embedded.services import Services
from runner.node.runs.recorder import FLUSH_AT_BYTES, Recorder
from runner.queue.changes import Changes
from runner.store import attempts
from runner.store.db import Database
from runner.words.execution import Claim, Stream, never_ran
from runner.words.resources import RunBounds
from runner.words.states import Reason, State
from tests.integration.store.conftest import Claimed
from tests.support.interruption import AGAIN, cancelled_everywhere

SECRET = "a-secret-of-some-length"  # noqa: S105 - made up
DONE = never_ran(State.SUCCEEDED, Reason.COMPLETED, "")
DECIDED = audit.AuditEvent("worker", audit.Action.EGRESS_CONNECT, audit.Outcome.DENIED)
Superuser: TypeAlias = "psycopg.Connection[dict[str, Any]]"


class Running:
    """An execution whose program runs, with what it has written so far."""

    def __init__(self, database: Database, changes: Changes, claim: Claim) -> None:
        self.claim = claim
        self._database = database
        self._said = bytearray()
        self._decided = 0
        self._recorder = Recorder(
            database=database, changes=changes, claim=claim, bounds=RunBounds(5, 256)
        )

    async def begin(self) -> None:
        """Let output come; the execution's first event is its place in the queue."""
        await self._recorder.hide([SECRET])
        self._recorder.begin(1)

    async def say(self, text: str) -> None:
        """Write to stdout."""
        self._said += text.encode()
        await self._recorder.add(Stream.STDOUT, text.encode())

    def ask(self) -> None:
        """Ask the egress proxy for what it refuses."""
        self._decided += 1
        self._recorder.decide({"host": "example.org"}, DECIDED)

    async def close(self) -> None:
        """Gather the rest."""
        await self._recorder.close()

    async def finish(self, superuser: Superuser) -> None:
        """Write the result after the rest, and check that everything is stored once."""
        await self._recorder.close()
        async with self._database.tenant(self.claim.tenant_id) as tx:
            finishing = await attempts.finish_with(tx, self.claim, DONE, rest=self._recorder.rest)
            for record in self._recorder.rest_audited:
                audit.append(tx, self.claim.tenant_id, record)
            await tx.flush()
            await finishing.times()
        told = superuser.execute(
            "SELECT kind, chunk FROM events WHERE execution_id = %s ORDER BY seq",
            [self.claim.execution_id],
        ).fetchall()
        stdout = b"".join(row["chunk"] for row in told if row["kind"] == "stdout")
        shown = self._said.replace(SECRET.encode(), b"*" * len(SECRET))
        assert stdout == shown.replace(SECRET[:9].encode(), b"*" * 9)
        assert [row["kind"] for row in told].count("egress") == self._decided
        records = superuser.execute(
            "SELECT count(*) AS n FROM audit_events WHERE tenant_id = %s AND action = %s",
            [self.claim.tenant_id, DECIDED.action.value],
        ).fetchone()
        assert records == {"n": self._decided}


@pytest.mark.parametrize("again", ["once", "again 2 later"])
@pytest.mark.parametrize("what", ["a batch", "the rest"])
async def test_nothing_is_lost_or_doubled_wherever_the_writer_is_cancelled(
    postgres: Services,
    worker: Database,
    claimed: Claimed,
    superuser: Superuser,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    again: str,
) -> None:
    """The result is accepted. Masking in a thread, writing and committing are interrupted."""
    # As in a busy loop, in which psycopg also awaits before it sends.
    monkeypatch.setattr(psycopg.waiting, "MAX_BUSY_TIME", 0)
    made: list[Running] = []

    async with Changes(SecretStr(postgres.redis_url)) as changes:

        async def anew() -> None:
            claim = await claimed(f"cut-{what}-{again}-{len(made)}".replace(" ", "-"))
            superuser.execute(
                "UPDATE executions SET state = 'running', started_at = now() "
                "WHERE execution_id = %s",
                [claim.execution_id],
            )
            made.append(Running(worker, changes, claim))
            await made[-1].begin()

        async def a_batch() -> None:
            running = made[-1]
            for _ in range(2):
                running.ask()
                await running.say("." * (FLUSH_AT_BYTES // 2) + SECRET)

        async def the_rest() -> None:
            running = made[-1]
            running.ask()
            await running.say("." * 2000 + SECRET + SECRET[:9])
            await running.close()

        async def whole() -> None:
            await made[-1].finish(superuser)
            await anew()

        await anew()
        work = {"a batch": a_batch, "the rest": the_rest}[what]
        assert await cancelled_everywhere(work, whole, AGAIN[again]) > 0
        await whole()
