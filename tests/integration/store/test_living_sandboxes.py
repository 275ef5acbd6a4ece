"""Rows of sandboxes that live: made by the API, held by one node, ended once."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import SecretStr

from runner.audit import events as audit
from runner.audit.events import Action, Filter
from runner.embedded.services import Services
from runner.node.residents.journal import sandbox_event
from runner.store import projects, quotas, residents, retention, sandboxes, tenants
from runner.store.db import Database
from runner.store.idempotency import Once
from runner.store.residents import HeldSandbox, SandboxHold
from runner.store.retention import RetentionTerms
from runner.store.sandboxes import ImageFilter, LifeChange, SandboxListing
from runner.words.errors import Conflict, LeaseLost, StoreUnavailable
from runner.words.ids import new_id
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import SandboxRequest, StoredSandbox
from runner.words.resources import Resources
from runner.words.sandbox import Isolation, SandboxSpec
from tests.integration.store.conftest import LEASE, new_tenant

SPEC = SandboxSpec("python", Resources(cpu=1, memory_mb=64, pids=8, disk_mb=8))
ASKED = SandboxRequest(
    spec=SPEC,
    size="nano",
    egress=({"host": "a.example", "port": 443},),
    env={"A": "1"},
    secret_env={"TOKEN": "token"},
    metadata={"agent": "seven"},
    timeout_s=300,
    on_timeout=OnTimeout.PAUSE,
    max_life_s=3600,
)
GUEST = {"container": "c1", "secret": "s3cret"}


async def made(api: Database, tenant: UUID, request: SandboxRequest = ASKED) -> UUID:
    """Store a new sandbox."""
    id_ = new_id()
    async with api.tenant(tenant) as tx:
        sandboxes.insert_later(tx, id_, request, created_by="key:test")
    return id_


async def claimed(
    worker: Database, tenant: UUID, id_: UUID, *, node: str = "n1", instance: str = "i1"
) -> SandboxHold:
    """Claim a sandbox for a node."""
    async with worker.tenant(tenant) as tx:
        await residents.claim(tx, id_, node=node, instance=instance, lease=LEASE)
    return SandboxHold(tenant, id_, instance)


async def running(api: Database, worker: Database, tenant: UUID, **where: str) -> SandboxHold:
    """Store a sandbox and let it run on a node."""
    hold = await claimed(worker, tenant, await made(api, tenant), **where)
    async with worker.tenant(tenant) as tx:
        await residents.start(tx, hold, GUEST)
    return hold


async def read(api: Database, tenant: UUID, id_: UUID) -> StoredSandbox:
    """Return an existing sandbox."""
    async with api.tenant(tenant) as tx:
        found = await sandboxes.get(tx, id_)
    assert found is not None
    return found


def let_go(superuser: Any, id_: UUID) -> None:
    """Let a sandbox's lease run out."""
    superuser.execute(
        "UPDATE sandboxes SET lease_until = now() - interval '1 s' WHERE sandbox_id = %s", [id_]
    )


async def test_a_sandbox_is_read_back_as_it_was_asked_for(api: Database, owner: Database) -> None:
    tenant = await new_tenant(owner, "sandbox-read")
    found = await read(api, tenant, await made(api, tenant))
    assert (found.state, found.reason, found.started_at) == (Life.STARTING, None, None)
    assert found.spec == SPEC
    assert (found.size, found.env, found.secret_env) == ("nano", {"A": "1"}, {"TOKEN": "token"})
    assert (found.egress, found.metadata) == (ASKED.egress, {"agent": "seven"})
    assert (found.on_timeout, found.created_by) == (OnTimeout.PAUSE, "key:test")
    assert found.expires_at is not None
    assert found.lives_until is not None
    assert found.expires_at - found.created_at == timedelta(minutes=5)
    assert found.lives_until - found.created_at == timedelta(hours=1)


async def test_without_a_timeout_it_never_expires(api: Database, owner: Database) -> None:
    tenant = await new_tenant(owner, "sandbox-lasting")
    lasting = replace(ASKED, timeout_s=None, max_life_s=None)
    found = await read(api, tenant, await made(api, tenant, lasting))
    assert (found.timeout_s, found.expires_at, found.lives_until) == (None, None, None)


async def test_another_tenants_sandbox_is_as_unknown_as_any(
    api: Database, owner: Database, worker: Database
) -> None:
    """It cannot be read, listed, changed, ended or claimed. The control: its own tenant can."""
    ours, theirs = await new_tenant(owner, "sandbox-ours"), await new_tenant(owner, "sandbox-them")
    id_ = await made(api, theirs)
    change = LifeChange(metadata={"mine": "now"})
    async with api.tenant(ours) as tx:
        assert await sandboxes.get(tx, id_) is None
        assert await sandboxes.where(tx, id_) is None
        assert await listed(tx) == []
        assert await sandboxes.update(tx, id_, change) is None
        assert not await sandboxes.end_unclaimed(tx, id_, EndReason.KILLED, "no")
    with pytest.raises(LeaseLost):
        await claimed(worker, ours, id_)
    async with api.tenant(theirs) as tx:
        assert await listed(tx) == [id_]
        assert await sandboxes.update(tx, id_, change) is not None
    await claimed(worker, theirs, id_)


async def listed(tx: Any, **wanted: Any) -> list[UUID]:
    """Return the ids of a listing."""
    listing = SandboxListing(**{"limit": 10, **wanted})
    return [each.id for each in await sandboxes.list_some(tx, listing)]


async def test_a_listing_is_by_state_metadata_project_and_image_in_either_order(
    api: Database, owner: Database
) -> None:
    tenant = await new_tenant(owner, "sandbox-list")
    async with api.tenant(tenant) as tx:
        await projects.insert(tx, "p", description="", egress_policy=None, created_by="test")
    first = await made(api, tenant)
    second = await made(api, tenant, replace(ASKED, project="p", metadata={"agent": "eight"}))
    async with api.tenant(tenant) as tx:
        await sandboxes.end_unclaimed(tx, first, EndReason.START_FAILED, "no node")
        assert await listed(tx) == [second, first]
        assert await listed(tx, beyond=second) == [first]
        assert await listed(tx, oldest_first=True) == [first, second]
        assert await listed(tx, oldest_first=True, beyond=first) == [second]
        assert await listed(tx, limit=1) == [second]
        assert await listed(tx, states=[Life.ENDED]) == [first]
        assert await listed(tx, metadata={"agent": "eight"}) == [second]
        assert await listed(tx, project="p") == [second]
        image = ASKED.spec.image
        assert await listed(tx, image=ImageFilter(image)) == [second, first]
        assert await listed(tx, image=ImageFilter(begins=image[:2])) == [second, first]
        assert await listed(tx, image=ImageFilter(ends=image[-2:])) == [second, first]
        # Not even where a pattern would: `_` stands for any character there.
        for other in (ImageFilter(f"{image}x"), ImageFilter(begins="_"), ImageFilter(ends="%")):
            assert await listed(tx, image=other) == []


async def test_one_node_gets_a_new_sandbox(
    api: Database, owner: Database, worker: Database
) -> None:
    """If two nodes claim it at once, one is refused."""
    tenant = await new_tenant(owner, "sandbox-claim")
    id_ = await made(api, tenant)
    came = await asyncio.gather(
        *(claimed(worker, tenant, id_, instance=name) for name in ("i1", "i2")),
        return_exceptions=True,
    )
    assert sorted(type(each).__name__ for each in came) == ["LeaseLost", "SandboxHold"]


async def test_a_life_goes_by_the_table_and_ends_once(
    api: Database, owner: Database, worker: Database
) -> None:
    """Changes that the table forbids are refused, and so is everything after the end."""
    tenant = await new_tenant(owner, "sandbox-life")
    hold = await running(api, worker, tenant)
    async with worker.tenant(tenant) as tx:
        for target in (Life.PAUSING, Life.PAUSED, Life.RESUMING, Life.RUNNING):
            await residents.change(tx, hold, target)
        with pytest.raises(LeaseLost, match="no state that resuming may follow"):
            await residents.change(tx, hold, Life.RESUMING)
        times = await residents.end(tx, hold, EndReason.EXPIRED, "its time was up")
        assert times.started_at is not None
        assert times.created_at <= times.started_at <= times.ended_at
        for again in (
            residents.end(tx, hold, EndReason.KILLED, "again"),
            residents.change(tx, hold, Life.PAUSING),
            residents.start(tx, hold, GUEST),
        ):
            with pytest.raises(LeaseLost):
                await again
    found = await read(api, tenant, hold.sandbox_id)
    assert (found.state, found.reason, found.detail) == (
        Life.ENDED,
        EndReason.EXPIRED,
        "its time was up",
    )


PLAIN = replace(ASKED, egress=(), secret_env={})


async def begin(worker: Database, tenant: UUID, id_: UUID, spec: SandboxSpec = SPEC) -> Life:
    """Claim and start a sandbox at once, with a record; return its state."""
    record = audit.body(tenant, sandbox_event(Action.SANDBOX_START, id_, {}))
    hold = SandboxHold(tenant, id_, "i1")
    async with worker.single(tenant) as tx:
        sandbox, started_at = await residents.begin(
            tx, hold, spec, GUEST, node="n1", lease=LEASE, cpu_s=1.5, record=record
        )
    assert sandbox.started_at == started_at
    return sandbox.state


async def starts_on_record(api: Database, tenant: UUID) -> int:
    async with api.tenant(tenant) as tx:
        return len(await audit.list_after(tx, 0, Filter(action="sandbox:start"), 9))


async def test_a_plain_sandbox_is_claimed_and_started_at_once(
    api: Database, owner: Database, worker: Database
) -> None:
    """Once: its start is on record once, and who comes later gets nothing."""
    tenant = await new_tenant(owner, "sandbox-at-once")
    id_ = await made(api, tenant, PLAIN)
    assert await begin(worker, tenant, id_) is Life.RUNNING
    assert (await read(api, tenant, id_)).started_at is not None
    with pytest.raises(LeaseLost):
        await begin(worker, tenant, id_)
    with pytest.raises(LeaseLost):
        await claimed(worker, tenant, id_)
    assert await starts_on_record(api, tenant) == 1
    async with worker.tenant(tenant) as tx:
        await residents.change(tx, SandboxHold(tenant, id_, "i1"), Life.PAUSING)


@pytest.mark.parametrize(
    "otherwise",
    [
        replace(PLAIN, egress=ASKED.egress),
        replace(PLAIN, secret_env=ASKED.secret_env),
        replace(PLAIN, spec=replace(SPEC, image="data")),
        replace(PLAIN, spec=replace(SPEC, builds=True)),
        replace(PLAIN, spec=replace(SPEC, isolation=Isolation.GVISOR)),
        replace(PLAIN, spec=replace(SPEC, resources=replace(SPEC.resources, memory_mb=128))),
    ],
    ids=["egress", "secrets", "image", "builds", "isolation", "memory"],
)
async def test_what_was_made_ahead_is_only_for_a_row_that_asks_for_it(
    api: Database, owner: Database, worker: Database, otherwise: SandboxRequest
) -> None:
    """Nothing is changed or put on record. The control: an ordinary claim of the row succeeds."""
    tenant = await new_tenant(owner, f"sandbox-otherwise-{new_id()}")
    id_ = await made(api, tenant, otherwise)
    with pytest.raises(LeaseLost):
        await begin(worker, tenant, id_)
    assert await starts_on_record(api, tenant) == 0
    await claimed(worker, tenant, id_)


async def test_one_that_was_killed_or_is_another_tenants_is_not_begun(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant, stranger = (
        await new_tenant(owner, "sandbox-begin-killed"),
        await new_tenant(owner, "sandbox-begin-stranger"),
    )
    id_ = await made(api, tenant, PLAIN)
    with pytest.raises(LeaseLost):
        await begin(worker, stranger, id_)
    async with api.tenant(tenant) as tx:
        assert await sandboxes.end_unclaimed(tx, id_, EndReason.KILLED, "killed")
    with pytest.raises(LeaseLost):
        await begin(worker, tenant, id_)
    assert await starts_on_record(api, tenant) == await starts_on_record(api, stranger) == 0


async def test_a_change_that_is_refused_leaves_no_record(
    api: Database, owner: Database, worker: Database
) -> None:
    """The control: one that is made leaves its record."""
    tenant = await new_tenant(owner, "sandbox-unrecorded")
    hold = await running(api, worker, tenant)
    record = audit.body(tenant, sandbox_event(Action.SANDBOX_PAUSE, hold.sandbox_id, {}))
    paused = Filter(action="sandbox:pause")
    for instance, recorded in (("i2", 0), ("i1", 1)):
        try:
            async with worker.single(tenant) as tx:
                held = replace(hold, instance=instance)
                await residents.change(tx, held, Life.PAUSING, record=record)
        except LeaseLost:
            assert instance == "i2"
        async with api.tenant(tenant) as tx:
            assert len(await audit.list_after(tx, 0, paused, 9)) == recorded


async def test_only_who_holds_it_may_change_it(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant = await new_tenant(owner, "sandbox-fence")
    hold = await running(api, worker, tenant)
    other = replace(hold, instance="i2")
    async with worker.tenant(tenant) as tx:
        for attempt in (
            residents.change(tx, other, Life.PAUSING),
            residents.end(tx, other, EndReason.LOST, "not mine"),
        ):
            with pytest.raises(LeaseLost):
                await attempt
    assert (await read(api, tenant, hold.sandbox_id)).state is Life.RUNNING


async def test_a_worker_takes_over_what_an_earlier_process_of_its_node_held(
    api: Database, owner: Database, worker: Database
) -> None:
    """It gets what finds the sandbox again; the earlier process may no longer write."""
    tenant = await new_tenant(owner, "sandbox-adopt")
    hold = await running(api, worker, tenant, node="adopting", instance="old")
    async with worker.no_tenant() as tx:
        (held,) = await residents.of_node(tx, "adopting")
        assert await residents.of_node(tx, "another") == []
    assert held == HeldSandbox(tenant, hold.sandbox_id, Life.RUNNING, "old", "adopting")
    async with worker.tenant(tenant) as tx:
        taken = await residents.take_over(tx, held, node="adopting", instance="new", lease=LEASE)
        assert taken is not None
        assert taken.guest == GUEST
        assert taken.sandbox.id == hold.sandbox_id
        with pytest.raises(LeaseLost):
            await residents.change(tx, hold, Life.PAUSING)
        twice = await residents.take_over(tx, held, node="adopting", instance="x", lease=LEASE)
        assert twice is None


async def test_leases_are_renewed_together_and_tell_who_is_to_stop(
    api: Database, owner: Database, worker: Database, superuser: Any
) -> None:
    """One statement for all tenants; what has ended is not held any more.

    A lease that ran out before anybody ended the sandbox for it is renewed: PostgreSQL was away.
    """
    one, two = (
        await new_tenant(owner, "sandbox-renew-a"),
        await new_tenant(owner, "sandbox-renew-b"),
    )
    where = {"node": "renewing", "instance": "r1"}
    stays, stops, ends, expires = [
        await running(api, worker, tenant, **where) for tenant in (one, two, one, two)
    ]
    async with api.tenant(two) as tx:
        assert await sandboxes.ask_to_stop(tx, stops.sandbox_id)
        assert not await sandboxes.ask_to_stop(tx, stops.sandbox_id)
    async with worker.tenant(one) as tx:
        await residents.end(tx, ends, EndReason.EXPIRED, "")
    let_go(superuser, expires.sandbox_id)
    assert await residents.renew(worker, lease=LEASE, **where) == {
        stays.sandbox_id: Life.RUNNING,
        stops.sandbox_id: Life.STOPPING,
        expires.sandbox_id: Life.RUNNING,
    }
    async with worker.tenant(two) as tx:
        await residents.end(tx, stops, EndReason.KILLED, "asked to")


async def test_a_lease_that_ran_out_ends_a_sandbox_once(
    api: Database, owner: Database, worker: Database, superuser: Any
) -> None:
    """Any node may do it. A sandbox that no node claimed in time is found as well."""
    tenant = await new_tenant(owner, "sandbox-lost")
    hold = await running(api, worker, tenant)
    unclaimed = await made(api, tenant)
    async with worker.tenant(tenant) as tx:
        assert await residents.end_expired(tx, hold.sandbox_id, EndReason.LOST, "") is None
    let_go(superuser, hold.sandbox_id)
    let_go(superuser, unclaimed)
    async with worker.no_tenant() as tx:
        found = {each.sandbox_id: each for each in await residents.expired(tx, 1000)}
    assert found[hold.sandbox_id].node == "n1"
    assert found[unclaimed].node is None
    async with worker.tenant(tenant) as tx:
        for id_ in (hold.sandbox_id, unclaimed):
            assert await residents.end_expired(tx, id_, EndReason.LOST, "gone") is not None
            assert await residents.end_expired(tx, id_, EndReason.LOST, "gone") is None
    assert (await read(api, tenant, unclaimed)).reason is EndReason.LOST


async def test_one_whose_time_to_be_claimed_is_over_is_not_claimed(
    api: Database, owner: Database, worker: Database, superuser: Any
) -> None:
    """Its caller has gone, and the reaper may be about to end it."""
    tenant = await new_tenant(owner, "sandbox-late")
    id_ = await made(api, tenant)
    let_go(superuser, id_)
    with pytest.raises(LeaseLost):
        await claimed(worker, tenant, id_)


async def test_the_api_ends_only_what_no_node_has(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant = await new_tenant(owner, "sandbox-unclaimed")
    hold = await claimed(worker, tenant, await made(api, tenant))
    waiting = await made(api, tenant)
    async with api.tenant(tenant) as tx:
        assert not await sandboxes.end_unclaimed(tx, hold.sandbox_id, EndReason.KILLED, "")
        assert not await sandboxes.ask_to_stop(tx, waiting)
        assert await sandboxes.end_unclaimed(tx, waiting, EndReason.KILLED, "")
        assert await sandboxes.ask_to_stop(tx, hold.sandbox_id)
    with pytest.raises(LeaseLost):
        async with worker.tenant(tenant) as tx:
            await residents.start(tx, hold, GUEST)


async def test_what_a_node_finds_its_sandbox_by_is_the_workers_alone(
    api: Database, owner: Database, worker: Database, postgres: Services
) -> None:
    """No other login reads the secret, and nothing of it remains at the end."""
    tenant = await new_tenant(owner, "sandbox-guest")
    hold = await running(api, worker, tenant)
    sql = "SELECT guest FROM sandboxes"
    for url, readable in ((postgres.api_url, False), (postgres.worker_url, True)):
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
            if readable:
                assert connection.execute(sql.encode()).fetchall() == [(GUEST,)]
                continue
            for statement in (sql, "SELECT * FROM sandboxes", "UPDATE sandboxes SET node = 'x'"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())
    async with worker.tenant(tenant) as tx:
        await residents.end(tx, hold, EndReason.KILLED, "")
    with psycopg.connect(postgres.worker_url, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", [str(tenant)])
        assert connection.execute(sql.encode()).fetchall() == [(None,)]


async def test_each_login_does_its_own_part_only(postgres: Services) -> None:
    """The API cannot hold a sandbox, the worker cannot make one."""
    refused = {
        postgres.api_url: [
            "SELECT * FROM renew_sandbox_leases('n', 'i', '1 s')",
            "SELECT * FROM sandboxes_of_node('n')",
            "UPDATE sandboxes SET started_at = now()",
            "UPDATE sandboxes SET auto_resume = true",
            "SELECT masks FROM sandboxes",
            "INSERT INTO sandbox_receipts (tenant_id) VALUES (gen_random_uuid())",
            "DELETE FROM sandboxes",
        ],
        postgres.worker_url: [
            "INSERT INTO sandboxes (tenant_id) VALUES (gen_random_uuid())",
            "UPDATE sandboxes SET env = '{}'",
            "UPDATE sandbox_receipts SET document = ''",
            "DELETE FROM sandboxes",
        ],
    }
    for url, statements in refused.items():
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


async def test_time_counts_anew_from_a_change_on(
    api: Database, owner: Database, worker: Database
) -> None:
    """Nothing else extends it; an ended sandbox is not changed."""
    tenant = await new_tenant(owner, "sandbox-update")
    hold = await running(api, worker, tenant)
    before = await read(api, tenant, hold.sandbox_id)
    async with api.tenant(tenant) as tx:
        labelled = await sandboxes.update(tx, hold.sandbox_id, LifeChange(metadata={"a": "b"}))
        longer = await sandboxes.update(
            tx, hold.sandbox_id, LifeChange(sets_timeout=True, timeout_s=7200)
        )
        without = await sandboxes.update(tx, hold.sandbox_id, LifeChange(sets_timeout=True))
    assert labelled is not None
    assert (labelled.metadata, labelled.expires_at) == ({"a": "b"}, before.expires_at)
    assert longer is not None
    assert longer.expires_at is not None
    assert before.expires_at is not None
    assert longer.expires_at - before.expires_at > timedelta(hours=1.5)
    assert longer.metadata == {"a": "b"}
    assert without is not None
    assert (without.timeout_s, without.expires_at) == (None, None)
    async with worker.tenant(tenant) as tx:
        await residents.end(tx, hold, EndReason.KILLED, "")
    async with api.tenant(tenant) as tx:
        assert await sandboxes.update(tx, hold.sandbox_id, LifeChange(metadata={})) is None


async def test_what_lives_counts_for_the_quotas_until_it_ends(
    api: Database, owner: Database, worker: Database
) -> None:
    """Paused ones count, too. The first one to end by the clock says when a place is free."""
    tenant = await new_tenant(owner, "sandbox-quota")
    hold = await running(api, worker, tenant)
    other = await made(api, tenant, replace(ASKED, on_timeout=OnTimeout.KILL, timeout_s=60))
    async with worker.tenant(tenant) as tx:
        await residents.change(tx, hold, Life.PAUSING)
    async with api.tenant(tenant) as tx:
        _, standing = await quotas.alone(tx)
    assert (standing.sandboxes, standing.sandbox_memory_mb) == (2, 128)
    assert standing.sandboxes_end_at == (await read(api, tenant, other)).expires_at
    async with worker.tenant(tenant) as tx:
        await residents.end(tx, hold, EndReason.KILLED, "")
    async with api.tenant(tenant) as tx:
        assert (await quotas.standing(tx)).sandboxes == 1


async def test_a_key_is_for_one_thing(api: Database, owner: Database) -> None:
    """The first use counts; a request of the other kind is always another request."""
    tenant = await new_tenant(owner, "sandbox-key")

    async def same(stored: bytes) -> bool:
        return stored == b"print"

    once = Once("k1", b"print", same)
    first = new_id()
    async with api.tenant(tenant) as tx:
        assert await once.reserve(tx, sandbox_id=first) is None
        sandboxes.insert_later(tx, first, ASKED, created_by="test")
    async with api.tenant(tenant) as tx:
        used = await once.reserve(tx, sandbox_id=new_id())
    assert used is not None
    assert await once.require_same(used, used.sandbox_id) == first
    with pytest.raises(Conflict):
        await once.require_same(used, used.execution_id)
    with pytest.raises(Conflict):
        await replace(once, same=lambda _: _false()).require_same(used, used.sandbox_id)


async def _false() -> bool:
    return False


async def test_what_suspended_tenants_have_living_is_found_on_its_node(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant = await new_tenant(owner, "sandbox-suspended")
    hold = await running(api, worker, tenant, node="suspending")
    async with worker.no_tenant() as tx:
        assert await residents.of_suspended(tx, "suspending", 10) == []
    await suspend(owner, tenant)
    async with worker.no_tenant() as tx:
        assert await residents.of_suspended(tx, "suspending", 10) == [(tenant, hold.sandbox_id)]
        assert await residents.of_suspended(tx, "another", 10) == []


async def suspend(owner: Database, tenant: UUID) -> None:
    """Suspend a tenant."""
    async with owner.tenant(tenant) as tx:
        assert await tenants.suspend(tx, "test")


async def test_a_tenant_is_erased_once_nothing_of_it_lives(
    api: Database, owner: Database, worker: Database, postgres: Services
) -> None:
    """Its sandboxes' rows go with it, and the keys that made them."""
    tenant = await new_tenant(owner, "sandbox-erased")
    hold = await running(api, worker, tenant)
    await suspend(owner, tenant)
    async with Database(SecretStr(postgres.operator_url), max_size=1) as operator:
        with pytest.raises(StoreUnavailable, match="ObjectNotInPrerequisiteState"):
            async with operator.tenant(tenant) as tx:
                await tenants.erase(tx)
        async with operator.tenant(tenant) as tx:
            assert await tenants.active(tx) == 1
        async with worker.tenant(tenant) as tx:
            await residents.end(tx, hold, EndReason.TENANT_SUSPENDED, "")
        async with operator.tenant(tenant) as tx:
            assert (await tenants.erase(tx))["sandboxes"] == 1


async def test_a_sandbox_is_kept_as_long_as_executions_are(
    api: Database, owner: Database, worker: Database, superuser: Any
) -> None:
    """A living one is never removed, however old it is."""
    tenant = await new_tenant(owner, "sandbox-retention")
    ended, lives = await running(api, worker, tenant), await running(api, worker, tenant)
    async with worker.tenant(tenant) as tx:
        await residents.end(tx, ended, EndReason.KILLED, "")
    terms = RetentionTerms(30, timedelta(minutes=5), timedelta(hours=3))
    async with worker.no_tenant() as tx:
        assert tenant not in await retention.tenants_with_expired(tx, terms)
    superuser.execute(
        "UPDATE sandboxes SET created_at = now() - interval '40 days', "
        "ended_at = CASE state WHEN 'ended' THEN now() - interval '31 days' END "
        "WHERE tenant_id = %s",
        [tenant],
    )
    async with worker.no_tenant() as tx:
        assert tenant in await retention.tenants_with_expired(tx, terms)
    async with worker.tenant(tenant) as tx:
        assert await retention.remove_sandboxes(tx, terms, 10) == 1
        assert await retention.remove_sandboxes(tx, terms, 10) == 0
    async with api.tenant(tenant) as tx:
        assert await listed(tx) == [lives.sandbox_id]
