"""Executions run in an order of shares by weight and time, however a tenant submits."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg import Connection
from pydantic import SecretStr

from runner.base.duties import Duties
from runner.base.signing import Signer
from runner.embedded.services import Services
from runner.node.breaker import Breaker
from runner.node.gate import Gate
from runner.node.reaper import Reaper
from runner.node.runs.claimer import Claimer
from runner.node.runs.interrupted import Interruptions
from runner.node.runs.lease import LeaseKeeper
from runner.node.runs.policy import ExecutionPolicy
from runner.node.runs.settle import Settler
from runner.node.runs.unstarted import Returns
from runner.queue.changes import Changes
from runner.queue.doorbell import Doorbell
from runner.store import attempts, executions, scheduling
from runner.store.db import Database
from runner.store.scheduling import Claimed, Left
from runner.tenants.tenancy import create_key
from runner.words.errors import DockerUnavailable, LeaseLost, RunnerError, SecretsUnreadable
from runner.words.execution import Claim, InputFile, Result, never_ran
from runner.words.ids import PLATFORM_TENANT, new_id
from runner.words.principal import Role, Tier
from runner.words.states import Reason, State
from tests.integration.store.conftest import LEASE, LIMITS, REQUEST, of_a_module

Superuser = Connection[dict[str, Any]]
DONE: Result = never_ran(State.FAILED, Reason.EXIT_NONZERO, "ended")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Services]:
    with of_a_module() as running:
        yield running


@pytest.fixture(autouse=True)
def _nothing_waits(superuser: Superuser) -> None:
    superuser.execute("SET session_replication_role = replica")
    superuser.execute("TRUNCATE executions, events, queues, usage_records, usage_days CASCADE")
    superuser.execute("SET session_replication_role = origin")
    superuser.execute(
        "UPDATE queue_clock SET served = 0, backlog = false, claimed_at = NULL, interval_s = NULL"
    )


@pytest.fixture
async def crowd(postgres: Services) -> AsyncIterator[Database]:
    """Return a pool of the API's role for many at once."""
    async with Database(SecretStr(postgres.api_url), max_size=8) as database:
        yield database


async def tenant(owner: Database, tier: Tier = Tier.FREE, concurrency: int | None = None) -> UUID:
    """Make a tenant."""
    made = await create_key(
        owner,
        tenant=f"t-{new_id()}",
        role=Role.OWNER,
        name="test",
        max_limits=LIMITS,
        tier=tier,
        max_concurrency=concurrency,
    )
    return made.tenant_id


async def submit(api: Database, of: UUID, count: int = 1) -> list[UUID]:
    """Store executions of a tenant."""
    ids = [new_id() for _ in range(count)]
    for id_ in ids:
        async with api.tenant(of) as tx:
            executions.insert_later(tx, id_, REQUEST)
    return ids


async def claim(worker: Database) -> Claim | None:
    """Claim what is next."""
    found = await scheduling.claim(worker, node="n", instance="i", lease=LEASE)
    return found.claim if isinstance(found, Claimed) else None


async def claimed(worker: Database) -> Claim:
    """Claim what is next, which must exist."""
    found = await claim(worker)
    assert found is not None
    return found


async def end(worker: Database, ended: Claim, superuser: Superuser, held_s: float = 0) -> None:
    """End a claimed execution, as if it had held its slot for that long."""
    superuser.execute(
        "UPDATE executions SET claimed_at = claimed_at - make_interval(secs => %s) "
        "WHERE execution_id = %s",
        [held_s, ended.execution_id],
    )
    async with worker.tenant(ended.tenant_id) as tx:
        await attempts.finish(tx, ended, DONE)


def counts(superuser: Superuser) -> tuple[dict[UUID, Any], dict[UUID, Any]]:
    """Return how many of each tenant wait and are active, as counted and in fact."""
    counted = superuser.execute("SELECT tenant_id, waiting, active, load FROM queues").fetchall()
    real = superuser.execute(
        "SELECT tenant_id, count(*) FILTER (WHERE state = 'queued') AS waiting, "
        "count(*) FILTER (WHERE state IN ('starting', 'running')) AS active "
        "FROM executions GROUP BY tenant_id"
    ).fetchall()
    return (
        {row["tenant_id"]: (row["waiting"], row["active"]) for row in counted},
        {row["tenant_id"]: (row["waiting"], row["active"]) for row in real},
    )


async def test_a_claim_comes_with_what_it_is_to_do(
    api: Database, owner: Database, worker: Database
) -> None:
    """It belongs to the tenant whose turn it is; later statements see nothing of it."""
    files = (InputFile("b", b"2"), InputFile("a", b"1"))
    mine, other, id_ = await tenant(owner), await tenant(owner), new_id()
    async with api.tenant(mine) as tx:
        wanted = replace(REQUEST, run=replace(REQUEST.run, files=files))
        executions.insert_later(tx, id_, wanted)
    await submit(api, other)
    found = await scheduling.claim(worker, node="n", instance="i", lease=LEASE)
    assert isinstance(found, Claimed)
    assert found.claim == Claim(id_, mine, 1)
    assert found.request() == replace(REQUEST, run=replace(REQUEST.run, files=files[::-1]))
    assert not found.cancel_requested
    async with worker.no_tenant() as tx:
        assert await tx.all("executions.load_claimed") == []
    await claimed(worker)
    assert await claim(worker) is None


async def test_equals_share_the_slots_evenly(
    api: Database, worker: Database, owner: Database
) -> None:
    """One has fifty waiting and the other four: the other gets every second slot."""
    noisy, quiet = await tenant(owner), await tenant(owner)
    await submit(api, noisy, 50)
    await submit(api, quiet, 4)
    served = [(await claimed(worker)).tenant_id for _ in range(8)]
    assert Counter(served[:2]) == Counter(served[2:4]) == {noisy: 1, quiet: 1}
    assert Counter(served) == {noisy: 4, quiet: 4}


async def test_slots_are_shared_by_weight(api: Database, worker: Database, owner: Database) -> None:
    """Enterprise weighs four times as much as free, so it has four of five slots."""
    free, enterprise = await tenant(owner), await tenant(owner, Tier.ENTERPRISE)
    await submit(api, free, 10)
    await submit(api, enterprise, 10)
    served = Counter([(await claimed(worker)).tenant_id for _ in range(10)])
    assert served == {free: 2, enterprise: 8}


async def test_a_single_slot_is_shared_by_time_not_by_number(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """With executions of ten seconds and of one, ten short ones run for each long one."""
    long, short = await tenant(owner), await tenant(owner)
    await submit(api, long, 10)
    await submit(api, short, 60)
    held = {long: 10.0, short: 1.0}
    total: Counter[UUID] = Counter()
    for _ in range(44):
        found = await claimed(worker)
        await end(worker, found, superuser, held[found.tenant_id])
        total[found.tenant_id] += int(held[found.tenant_id])
    assert abs(total[long] - total[short]) <= 12


async def test_few_huge_do_not_take_the_slots_that_small_ones_leave(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """Huge executions, which never end, have two of four slots, however often small ones end."""
    huge, small = await tenant(owner), await tenant(owner)
    await submit(api, huge, 10)
    await submit(api, small, 60)
    running = [await claimed(worker) for _ in range(4)]
    for _ in range(30):
        ended = next(each for each in running if each.tenant_id == small)
        running.remove(ended)
        await end(worker, ended, superuser, 0.1)
        running.append(await claimed(worker))
        assert Counter(each.tenant_id for each in running) == {huge: 2, small: 2}


@pytest.mark.parametrize("saving", [False, True])
async def test_who_was_idle_has_saved_up_nothing(
    api: Database, worker: Database, owner: Database, superuser: Superuser, *, saving: bool
) -> None:
    """One tenant works for a minute while the other is idle; then they take claimer.

    The control: were the idle one's virtual time left where it was, it would go on alone.
    """
    busy, idle = await tenant(owner), await tenant(owner)
    await submit(api, busy, 40)
    for _ in range(30):
        await end(worker, await claimed(worker), superuser, 2.0)
    await submit(api, idle, 10)
    if saving:
        superuser.execute("UPDATE queues SET served = 0 WHERE tenant_id = %s", [idle])
    served: Counter[UUID] = Counter()
    for _ in range(10):
        found = await claimed(worker)
        served[found.tenant_id] += 1
        await end(worker, found, superuser, 2.0)
    # Begun at the moment's virtual time, it may be one turn ahead, not thirty.
    assert served[idle] == 10 if saving else served[idle] in {5, 6}


async def test_leaving_the_queue_and_coming_back_forgives_nothing(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """A tenant that has used a minute cancels all that waits and submits again: still last."""
    greedy, patient = await tenant(owner), await tenant(owner)
    queued = await submit(api, greedy, 4)
    await submit(api, patient, 10)
    for held in (60.0, 1.0):
        await end(worker, await claimed(worker), superuser, held)
    for id_ in queued:
        async with api.tenant(greedy) as tx:
            await executions.cancel(tx, id_)
    await submit(api, greedy, 4)
    for _ in range(9):
        found = await claimed(worker)
        assert found.tenant_id == patient
        await end(worker, found, superuser, 1.0)


async def test_a_tenant_at_its_cap_waits_and_others_do_not(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """No claim goes above the cap, which is the tier's if the tenant has none of its own."""
    capped, by_tier = await tenant(owner, concurrency=1), await tenant(owner)
    await submit(api, capped, 5)
    first = await claimed(worker)
    assert await claim(worker) is None
    await submit(api, by_tier, 6)
    assert [(await claimed(worker)).tenant_id for _ in range(4)] == [by_tier] * 4
    assert await claim(worker) is None
    async with worker.no_tenant() as tx:
        assert not await scheduling.claimable(tx)
    await end(worker, first, superuser)
    assert (await claimed(worker)).tenant_id == capped


async def test_a_claim_does_not_wait_for_another_tenants_bookkeeping(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """While one tenant's row is locked, for any reason, the others continue."""
    stuck, other = await tenant(owner), await tenant(owner)
    await submit(api, stuck)
    await submit(api, other)
    with superuser.transaction():
        superuser.execute("SELECT FROM queues WHERE tenant_id = %s FOR UPDATE", [stuck])
        async with asyncio.timeout(2):
            assert (await claimed(worker)).tenant_id == other
    assert (await claimed(worker)).tenant_id == stuck


async def test_what_is_being_cancelled_is_passed_over(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """A cancellation in progress delays neither its tenant's next execution nor the claim."""
    one = await tenant(owner)
    first, second = await submit(api, one, 2)
    with superuser.transaction():
        superuser.execute("SELECT FROM executions WHERE execution_id = %s FOR UPDATE", [first])
        async with asyncio.timeout(2):
            assert (await claimed(worker)).execution_id == second
            assert await claim(worker) is None


async def test_the_counts_are_right_after_everything_at_once(
    crowd: Database, worker: Database, owner: Database, superuser: Superuser, tmp_path: Path
) -> None:
    """Eight at a time submit, cancel, claim, end and return executions: all counts are right."""
    tenants = [await tenant(owner, Tier.ENTERPRISE) for _ in range(3)]
    settler = Settler(database=worker, signer=Signer.open(tmp_path), max_attempts=9)
    chance = random.Random(7)  # noqa: S311 - which of them comes when, no secret

    async def client(of: UUID) -> None:
        for _ in range(40):
            (id_,) = await submit(crowd, of)
            if chance.random() < 0.5:
                async with crowd.tenant(of) as tx:
                    await executions.cancel(tx, id_)

    async def consumer() -> None:
        for _ in range(40):
            if (found := await claim(worker)) is None:
                await asyncio.sleep(0.005)
                continue
            fate = chance.random()
            if 0.4 <= fate < 0.6:
                await settler.settle(found, Reason.WORKER_DRAINED, only_expired=False)
                continue
            async with worker.tenant(found.tenant_id) as tx:
                if fate < 0.4:
                    await attempts.finish(tx, found, DONE)
                elif fate < 0.7:
                    with pytest.raises(LeaseLost):
                        await attempts.requeue(tx, Claim(new_id(), found.tenant_id, 1), "wrong")

    async with asyncio.timeout(60):
        await asyncio.gather(*map(client, tenants * 2), *(consumer() for _ in range(3)))
    counted, real = counts(superuser)
    assert counted == real
    assert any(waiting for waiting, _ in real.values()) and any(
        active for _, active in real.values()
    )
    sums = superuser.execute("SELECT sum(attempts) AS days FROM usage_days").fetchone()
    rows = superuser.execute("SELECT count(*) AS ledger FROM usage_records").fetchone()
    assert sums is not None and rows is not None and sums["days"] == rows["ledger"]


async def test_an_estimate_comes_from_how_fast_others_were_claimed(
    api: Database, worker: Database, owner: Database, superuser: Superuser
) -> None:
    """It is unknown at first; with a claim every two seconds, it is two seconds per place."""
    one = await tenant(owner)
    ids = await submit(api, one, 6)
    async with api.tenant(one) as tx:
        place = await executions.queue_place(tx, ids[-1])
    assert place is not None and (place.position, place.starts_in_s) == (5, None)
    for _ in range(3):
        superuser.execute("UPDATE queue_clock SET claimed_at = claimed_at - interval '2 s'")
        await end(worker, await claimed(worker), superuser)
    async with api.tenant(one) as tx:
        place = await executions.queue_place(tx, ids[-1])
    assert place is not None and place.position == 2
    assert place.starts_in_s == pytest.approx(6.0, abs=0.5)


async def test_an_end_tells_what_waits_once_it_is_stored(
    api: Database, worker: Database, owner: Database
) -> None:
    """An execution can be claimed once its tenant is below its cap; its ring is long gone by then.

    The control: asked before that, nothing is to be claimed.
    """
    of = await tenant(owner, concurrency=1)
    await submit(api, of, 2)
    for more in (True, False):
        found = await claimed(worker)
        assert await claim(worker) is None
        async with worker.tenant(found.tenant_id) as tx:
            await attempts.finish(tx, found, DONE)
            assert not await scheduling.claimable(tx)
            told = scheduling.claimable_afterwards(tx)
        assert await told() is more


async def test_what_is_asked_with_an_end_that_fails_is_not_told(
    api: Database, worker: Database, owner: Database
) -> None:
    """Nothing was sent to PostgreSQL."""
    of = await tenant(owner)
    await submit(api, of, 1)
    found = await claimed(worker)
    wrong = Claim(found.execution_id, of, found.attempt + 1)

    told: list[Callable[[], Awaitable[bool]]] = []

    async def end_another() -> None:
        async with worker.tenant(of) as tx:
            told.append(scheduling.claimable_afterwards(tx))
            await attempts.finish(tx, wrong, DONE)

    with pytest.raises(LeaseLost):
        await end_another()
    with pytest.raises(RuntimeError, match="has not been sent"):
        await told[0]()


@asynccontextmanager
async def changes_of(running: Services) -> AsyncIterator[Changes]:
    """Open the announcements of changes."""
    async with Changes(SecretStr(running.redis_url), Duties()) as made:
        yield made


POLICY = ExecutionPolicy(
    node="n1",
    instance="i1",
    lease=LEASE,
    max_attempts=3,
    flood_bytes=1,
    max_artifacts=1,
)


async def test_what_is_claimed_while_draining_is_given_back(
    api: Database,
    worker: Database,
    owner: Database,
    superuser: Superuser,
    postgres: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The claim had begun before the drain, which does not wait for it: it is not started."""
    (id_,) = await submit(api, await tenant(owner))
    really = scheduling.claim
    nowhere: Any = None

    async def slow(*args: Any, **named: Any) -> Claimed | Left | None:
        found = await really(*args, **named)
        await claimer.drain(0)
        return found

    async def probe() -> None:
        raise AssertionError("nothing is started")

    async with changes_of(postgres) as changes:
        signer = Signer.open(tmp_path)
        claimer = Claimer(
            database=worker,
            breaker=Breaker(probe),
            gate=Gate(),
            executor=nowhere,
            interruptions=Interruptions(
                database=worker,
                changes=changes,
                finisher=nowhere,
                settler=Settler(database=worker, signer=signer, max_attempts=3),
                policy=POLICY,
            ),
            policy=POLICY,
            doorbell=nowhere,
        )
        monkeypatch.setattr(scheduling, "claim", slow)
        assert not await claimer.run_next()
    row = superuser.execute(
        "SELECT state, attempt, given_back FROM executions WHERE execution_id = %s", [id_]
    ).fetchone()
    assert row == {"state": "queued", "attempt": 1, "given_back": 1}


async def test_a_node_that_leaves_executions_gives_back_each_ring_that_it_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each wakes a slot of the other node. While this one drains, nobody else rings."""
    left = Left(new_id(), new_id())
    rung: list[tuple[UUID, UUID]] = []
    nowhere: Any = None

    class Bell:
        """Notes who is rung for."""

        async def ring(self, tenant_id: UUID, execution_id: UUID) -> None:
            rung.append((tenant_id, execution_id))

    async def leaves(*_: Any, **__: Any) -> Left:
        return left

    async def probe() -> None:
        raise AssertionError("nothing is started")

    bell: Any = Bell()
    claimer = Claimer(
        database=nowhere, breaker=Breaker(probe), gate=Gate(), executor=nowhere,
        interruptions=nowhere, policy=POLICY, doorbell=bell,
    )  # fmt: skip
    monkeypatch.setattr(scheduling, "claim", leaves)
    looks = asyncio.gather(*(claimer.run_next() for _ in range(3)))
    await asyncio.sleep(0)
    await claimer.drain(0)
    assert await looks == [False] * 3
    assert rung == [(left.tenant_id, left.execution_id)] * 3


async def test_without_redis_every_dead_attempt_of_a_pass_is_settled(
    api: Database,
    worker: Database,
    owner: Database,
    superuser: Superuser,
    postgres: Services,
    tmp_path: Path,
) -> None:
    """Nobody can ring now: the reconciler does it once Redis is back."""
    one = await tenant(owner, Tier.ENTERPRISE)
    await submit(api, one, 3)
    for _ in range(3):
        await claimed(worker)
    superuser.execute("UPDATE executions SET lease_until = now() - interval '1 second'")
    async with changes_of(postgres) as changes, Doorbell(SecretStr("redis://127.0.0.1:1")) as mute:
        settler = Settler(database=worker, signer=Signer.open(tmp_path), max_attempts=3)
        reaper = Reaper(
            database=worker,
            doorbell=mute,
            changes=changes,
            settler=settler,
            policy=POLICY,
            slots=1,
        )
        await reaper.reap()
    rows = superuser.execute("SELECT state FROM executions").fetchall()
    assert [row["state"] for row in rows] == ["queued"] * 3


@pytest.mark.parametrize("kind", [SecretsUnreadable, DockerUnavailable])
async def test_a_tenant_hears_nothing_of_the_host_and_pays_nothing_for_it(
    api: Database,
    worker: Database,
    owner: Database,
    superuser: Superuser,
    postgres: Services,
    kind: type[RunnerError],
) -> None:
    """The path is only in the deployment's own audit log, and in no event or record of theirs."""
    path = f"/etc/runner/{new_id()}"
    one = await tenant(owner)
    await submit(api, one)
    found = await claimed(worker)

    async def probe() -> None:
        """Report a healthy node."""

    async with changes_of(postgres) as changes:
        returns = Returns(database=worker, changes=changes, breaker=Breaker(probe), max_attempts=1)
        keeper = LeaseKeeper(
            database=worker, changes=changes, claim=found, lease=LEASE, asked_at=time.monotonic()
        )
        assert await returns.give_back(found, keeper, kind(path)) is None
    (row,) = superuser.execute("SELECT state, given_back FROM executions").fetchall()
    assert row == {"state": "queued", "given_back": 1}
    (event,) = superuser.execute(
        "SELECT string_agg(data::text, ' ') AS said FROM events WHERE tenant_id = %s", [one]
    ).fetchall()
    assert "queued" in event["said"]
    assert path not in event["said"]
    records = superuser.execute(
        "SELECT tenant_id FROM audit_events WHERE body LIKE %s",
        [f"%{path}%"],
    ).fetchall()
    assert [record["tenant_id"] for record in records] == [PLATFORM_TENANT]
