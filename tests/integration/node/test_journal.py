"""Audit records of what is done in living sandboxes: gathered, and written once in batches."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.audit.events import Filter
from runner.base.masking import Masker
from runner.door.grants import DoorGrant
from runner.node.residents import journal as journals
from runner.node.residents.journal import Journal
from runner.node.runs.actor import SandboxUser
from runner.store.db import Database
from runner.store.transaction import Transaction
from runner.words.errors import StoreUnavailable
from runner.words.ids import new_id
from runner.words.living import ProcessEnd
from tests.integration.store.conftest import new_tenant

ENDED = ProcessEnd(0, None, timed_out=False, output_bytes=3)


def grant_of(tenant: UUID, sandbox: UUID, actor: str = "key:a") -> DoorGrant:
    return DoorGrant(tenant, sandbox, "start", 0.0, actor, "203.0.113.7", None, "r")


async def recorded(api: Database, tenant: UUID) -> list[dict[str, Any]]:
    async with api.tenant(tenant) as tx:
        return [json.loads(each.body) for each in await audit.list_after(tx, 0, Filter(), 100)]


async def of_sandboxes(api: Database, tenant: UUID) -> list[dict[str, Any]]:
    return [each for each in await recorded(api, tenant) if each["resource_type"] == "sandbox"]


async def test_each_callers_deeds_in_a_sandbox_are_one_record(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant, sandbox = await new_tenant(owner, "journal-deeds"), new_id()
    journal = Journal(worker)
    for number in (1, 2):
        journal.started(grant_of(tenant, sandbox), number, "python3", 2)
    journal.files(grant_of(tenant, sandbox), "read", 10)
    journal.files(grant_of(tenant, sandbox), "read", 5)
    journal.files(grant_of(tenant, sandbox, "key:b"), "removed")
    journal.connected(grant_of(tenant, sandbox), 8000)
    journal.connected(grant_of(tenant, sandbox), 8000)
    journal.carried(grant_of(tenant, sandbox), 8000, bytes_in=3, bytes_out=5)
    journal.carried(grant_of(tenant, sandbox), 8000, bytes_in=1, bytes_out=0)
    journal.connected(grant_of(tenant, sandbox), 22)
    journal.ended(tenant, sandbox, 1, ENDED)
    await journal.write()
    assert (journal._count, dict(journal._kept)) == (0, {})
    found = {(each["actor"], each["action"]): each for each in await recorded(api, tenant)}
    assert found["key:a", "sandbox:processes"]["metadata"]["started"] == [
        {"number": number, "program": "python3", "arguments": 2} for number in (1, 2)
    ]
    assert found["key:a", "sandbox:files"]["metadata"] == {"read": 2, "bytes_read": 15}
    assert found["key:a", "sandbox:files"]["ip"] == "203.0.113.7"
    assert found["key:b", "sandbox:files"]["metadata"] == {"removed": 1}
    assert found["key:a", "sandbox:connections"]["metadata"]["ports"] == [
        {"port": 22, "connections": 1, "bytes_in": 0, "bytes_out": 0},
        {"port": 8000, "connections": 2, "bytes_in": 4, "bytes_out": 5},
    ]
    (ended,) = found["system:worker", "sandbox:processes"]["metadata"]["ended"]
    assert (ended["number"], ended["exit_code"], ended["output_bytes"]) == (1, 0, 3)
    await journal.write()
    assert len(await recorded(api, tenant)) == len(found)


async def test_what_could_not_be_written_is_written_later(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant, sandbox = await new_tenant(owner, "journal-later"), new_id()
    journal = Journal(Database(SecretStr("postgresql://127.0.0.1:9/none")))
    journal.started(grant_of(tenant, sandbox), 1, "a", 0)
    async with journal._database:
        with pytest.raises(StoreUnavailable):
            await journal.write()
    journal._database = worker
    journal.started(grant_of(tenant, sandbox), 2, "b", 0)
    await journal.write()
    numbers = [
        each["number"]
        for record in await recorded(api, tenant)
        for each in record["metadata"].get("started", [])
    ]
    assert sorted(numbers) == [1, 2]


async def test_what_is_too_much_is_counted_and_told(
    owner: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted once, for the sandbox whose records they were."""
    monkeypatch.setattr(journals, "MOST_GATHERED", 3)
    tenant, (one, two) = await new_tenant(owner, "journal-much"), (new_id(), new_id())
    journal = Journal(worker)
    for number in range(5):
        journal.started(grant_of(tenant, one), number, "a", 0)
    journal.files(grant_of(tenant, two), "read", 1)
    assert (journal.lost(one), journal.lost(two)) == (2, 1)
    journal.forget(one)
    assert journal.lost(one) == 0
    await journal.write()
    journal.files(grant_of(tenant, two), "read", 1)
    assert journal.lost(two) == 1


async def test_one_sandbox_leaves_the_others_room(
    owner: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MOST_OF_SANDBOX", 3)
    tenant, (one, two) = await new_tenant(owner, "journal-shares"), (new_id(), new_id())
    journal = Journal(worker)
    for number in range(5):
        journal.started(grant_of(tenant, one), number, "a", 0)
    journal.files(grant_of(tenant, two), "read", 1)
    assert (journal.lost(one), journal.lost(two)) == (2, 0)
    await journal.write()
    journal.started(grant_of(tenant, one), 5, "a", 0)
    assert journal.lost(one) == 2


async def test_a_decisions_secrets_are_starred_and_it_is_shortened(
    api: Database, owner: Database, worker: Database
) -> None:
    """It is masked before it is shortened, because half a secret would pass."""
    tenant, sandbox = await new_tenant(owner, "journal-secrets"), new_id()
    secret = "sk-4f9c2a7e81d3b650"  # noqa: S105 - a test's
    journal = Journal(worker)
    user = SandboxUser(tenant, "sandbox", sandbox)
    facts = {
        "host": f"{secret}.example.org",
        "address": secret,
        "detail": "a " * 495 + secret + " b" * 500,
    }
    event = user.did(audit.Action.EGRESS_CONNECT, facts, outcome=audit.Outcome.DENIED)
    journal.tell(tenant, sandbox, event, Masker([secret]))
    await journal.write()
    (found,) = await of_sandboxes(api, tenant)
    told = found["metadata"]
    assert told["host"] == f"{'*' * len(secret)}.example.org"
    assert told["address"] == "*" * len(secret)
    assert len(told["detail"]) == 1000 and told["detail"].endswith("a **********")


async def test_what_is_being_written_survives_a_cancellation(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant, sandbox = await new_tenant(owner, "journal-cancelled"), new_id()
    journal = Journal(Stuck())
    journal.started(grant_of(tenant, sandbox), 1, "a", 0)
    writing = asyncio.create_task(journal.write())
    await asyncio.sleep(0.05)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    journal._database = worker
    await journal.write()
    (found,) = await of_sandboxes(api, tenant)
    assert [each["number"] for each in found["metadata"]["started"]] == [1]


async def test_a_record_that_the_database_refuses_keeps_back_no_other(
    api: Database, owner: Database, worker: Database
) -> None:
    """It is counted. PostgreSQL's text cannot hold a NUL."""
    (tenant, other), sandbox = (
        [await new_tenant(owner, f"journal-refused-{each}") for each in "ab"],
        new_id(),
    )
    journal = Journal(worker)
    for number, program in enumerate(("good", "bad")):
        journal.started(grant_of(tenant, sandbox, f"key:{program}"), number, program, 0)
    bad = SandboxUser(tenant, "sandbox", sandbox).did(audit.Action.EGRESS_CONNECT, {})
    journal.tell(tenant, sandbox, replace(bad, actor="key:\0"), Masker(()))
    journal.started(grant_of(other, sandbox), 1, "a", 0)
    await journal.write()
    assert [each["actor"] for each in await of_sandboxes(api, tenant)] == ["key:good", "key:bad"]
    assert len(await of_sandboxes(api, other)) == 1
    assert journal.lost(sandbox) == 1


class Stuck(Database):
    """A database that does not answer."""

    def __init__(self) -> None:
        super().__init__(SecretStr("postgresql://127.0.0.1:9/none"))

    @asynccontextmanager
    async def tenant(
        self, tenant_id: UUID, *, snapshot: bool = False
    ) -> AsyncIterator[Transaction]:
        """Wait for ever."""
        await asyncio.Event().wait()
        async with super().tenant(tenant_id, snapshot=snapshot) as tx:
            yield tx
