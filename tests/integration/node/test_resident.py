"""A resident and its row in a real PostgreSQL; a fake is behind its socket."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.base.masking import Masker
from runner.base.signing import Signer
from runner.node.contexts.masked import JsonMasking
from runner.node.gate import Gate
from runner.node.residents import reaping
from runner.node.residents import resident as resident_module
from runner.node.residents.ending import EndRecords
from runner.node.residents.following import follow
from runner.node.residents.furnish import Furnished, Furnisher
from runner.node.residents.journal import Journal
from runner.node.residents.reaping import SandboxReaper
from runner.node.residents.resident import Resident
from runner.node.residents.residents import Residents
from runner.node.runs.egress import WayOut
from runner.node.runs.policy import ExecutionPolicy
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.observe.cgroups import Counters
from runner.store import residents, sandboxes
from runner.store.db import Database
from runner.store.residents import SandboxHold, TakenOver
from runner.store.sandboxes import LifeChange
from runner.words.errors import DockerUnavailable, LaunchFailed, NodeAway, SandboxEnded
from runner.words.execution import EgressUsage
from runner.words.lives import EndReason, Life, OnTimeout
from runner.words.living import StoredSandbox
from tests.integration.node.test_journal import of_sandboxes
from tests.integration.store.conftest import LEASE, new_tenant
from tests.integration.store.test_living_sandboxes import (
    ASKED,
    claimed,
    let_go,
    made,
    read,
    running,
)
from tests.support.deployment import PATIENCE_S

ENDS = EndRecords(Signer("0" * 16, (), Ed25519PrivateKey.generate()))
BRIEF = replace(ASKED, timeout_s=0.2, on_timeout=OnTimeout.PAUSE)


async def fixed(_: StoredSandbox) -> Masker:
    """Leave a way out as it is."""
    return Masker(())


class Guest:
    """A living sandbox whose Docker fails as often as told."""

    def __init__(self, fails: int = 0) -> None:
        self.id = "played"
        self.paused = False
        self.processes = ()
        self.container = SimpleNamespace(counters=Counters, kill=self.kill, isolation=None)
        self.residence = Residence("played", "c" * 64, "0" * 64, "sha256:1", "sha256:2")
        self.lost = asyncio.get_running_loop().create_future()
        self.left = False
        self._fails = fails

    def charge(self, seconds: float) -> None:
        """Charge nothing: it has no share of the loop."""

    async def pause(self) -> None:
        """Freeze it."""
        self._docker()
        self.paused = True

    async def resume(self) -> None:
        """Thaw it."""
        self._docker()
        self.paused = False

    async def kill(self) -> None:
        """Kill it."""

    def forget(self, number: int) -> None:
        """Forget a process."""

    def leave(self) -> None:
        """Hang up."""
        self.left = True

    def _docker(self) -> None:
        if self._fails:
            self._fails -= 1
            raise DockerUnavailable("played")

    def furnished(self, way: WayOut | None = None) -> Furnished:
        """Return it without anything else."""
        guest = cast("LivingSandbox", self)
        return Furnished(
            guest, {}, Masker(()), way or WayOut(), AsyncExitStack(), fixed, JsonMasking()
        )


class Furnishing:
    """Takes a sandbox over as told, and notes what it has to remove."""

    def __init__(self, again: Callable[[UUID], Guest]) -> None:
        self._again = again
        self.removed: list[Guest] = []

    async def again(self, hold: SandboxHold, _taken: TakenOver) -> Furnished:
        """Take it over."""
        return self._again(hold.sandbox_id).furnished()

    async def remove(self, guest: Guest) -> None:
        """Remove it."""
        self.removed.append(guest)


def living_on(worker: Database, node: str, furnishing: Furnishing) -> Residents:
    policy = ExecutionPolicy(node, "later", LEASE, 1, 1, 1)
    furnisher = cast("Furnisher", furnishing)
    return Residents(
        database=worker,
        furnisher=furnisher,
        journal=Journal(worker),
        policy=policy,
        ends=ENDS,
        gate=Gate(),
        most=9,
    )


async def until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await done():  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)


def resident_of(
    worker: Database, hold: SandboxHold, sandbox: StoredSandbox, furnished: Furnished
) -> Resident:
    async def gone(_: Resident) -> None:
        """Remove nothing."""

    journal = Journal(worker)
    return Resident(
        hold,
        sandbox,
        furnished,
        database=worker,
        journal=journal,
        ends=ENDS,
        node="here",
        on_end=gone,
    )


async def test_when_its_time_is_up_and_docker_stumbles_it_is_paused_later(
    api: Database, owner: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not ended meanwhile."""
    monkeypatch.setattr(resident_module, "AGAIN_S", 0.1)
    tenant = await new_tenant(owner, "resident-stumbles")
    hold = await claimed(worker, tenant, await made(api, tenant, BRIEF))
    async with worker.tenant(tenant) as tx:
        await residents.start(tx, hold, {})
    sandbox = await read(api, tenant, hold.sandbox_id)
    guest = Guest(fails=3)
    living = resident_of(worker, hold, sandbox, guest.furnished())

    async def paused() -> bool:
        return (await read(api, tenant, hold.sandbox_id)).state is Life.PAUSED

    await until(paused)
    assert (guest.paused, living.life) == (True, Life.PAUSED)
    await living.leave()


async def test_its_time_is_read_anew_and_is_up_then(
    api: Database, owner: Database, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what was told first has passed by then."""
    told = datetime.now(UTC)
    now = told
    monkeypatch.setattr(resident_module, "datetime", SimpleNamespace(now=lambda _: now))
    tenant = await new_tenant(owner, "resident-anew")
    hold = await running(api, worker, tenant)
    sandbox = await read(api, tenant, hold.sandbox_id)
    assert sandbox.expires_at is not None
    brief = replace(sandbox, expires_at=told + timedelta(seconds=60))
    living = resident_of(worker, hold, brief, Guest().furnished())
    await living.refresh()
    now = told + timedelta(seconds=61)
    await living.refresh()
    await asyncio.sleep(0.1)
    assert (living.life, living.over) == (Life.RUNNING, False)
    now = sandbox.expires_at + timedelta(seconds=1)
    await living.refresh()

    async def paused() -> bool:
        return (await read(api, tenant, hold.sandbox_id)).state is Life.PAUSED

    await until(paused)
    await living.leave()


async def test_a_change_that_the_node_was_not_told_of_is_in_force_after_a_sweep(
    api: Database, owner: Database, worker: Database
) -> None:
    """Its rules at once while it runs, and later if it is paused; its end in either case."""
    tenant = await new_tenant(owner, "resident-follows")
    hold = await running(api, worker, tenant)
    rewired: list[StoredSandbox] = []

    async def rewire(changed: StoredSandbox) -> Masker:
        rewired.append(changed)
        return Masker(())

    sandbox = await read(api, tenant, hold.sandbox_id)
    furnished = replace(Guest().furnished(), rewire=rewire)
    living = resident_of(worker, hold, sandbox, furnished)

    async def changed(change: LifeChange) -> None:
        async with api.tenant(tenant) as tx:
            assert await sandboxes.update(tx, hold.sandbox_id, change)
        await follow([living])

    await follow([living])
    assert rewired == []
    await changed(LifeChange(egress=()))
    assert [each.egress for each in rewired] == [()]
    await living.pause()
    await changed(LifeChange(egress=ASKED.egress))
    assert len(rewired) == 1
    await living.resume()
    await follow([living])
    assert [each.egress for each in rewired[1:]] == [ASKED.egress]
    await changed(LifeChange(sets_timeout=True, timeout_s=0.01))

    async def paused() -> bool:
        return (await read(api, tenant, hold.sandbox_id)).state is Life.PAUSED

    await until(paused)
    await living.leave()


async def test_one_that_was_never_given_all_its_files_ends_and_is_not_paused(
    api: Database, owner: Database, worker: Database
) -> None:
    """Nobody was told of it. The control: without that, it would be paused."""
    tenant = await new_tenant(owner, "resident-filling")
    hold = await running(api, worker, tenant)
    sandbox = await read(api, tenant, hold.sandbox_id)
    assert sandbox.on_timeout is OnTimeout.PAUSE
    over = replace(sandbox, filling=True, expires_at=datetime.now(UTC))
    living = resident_of(worker, hold, over, Guest().furnished())

    async def ended() -> bool:
        return (await read(api, tenant, hold.sandbox_id)).state is Life.ENDED

    await until(ended)
    assert (await read(api, tenant, hold.sandbox_id)).reason is EndReason.EXPIRED
    await living.leave()


async def test_its_end_tells_what_went_through_its_way_out(
    api: Database, owner: Database, worker: Database
) -> None:
    tenant = await new_tenant(owner, "resident-egress")
    hold = await running(api, worker, tenant)
    sandbox = await read(api, tenant, hold.sandbox_id)
    way = WayOut(
        usage=EgressUsage(allowed=300, denied=7, connections=300, bytes_up=5, bytes_down=9)
    )
    living = resident_of(worker, hold, sandbox, Guest().furnished(way))
    await living.end(EndReason.KILLED, "killed")
    (ended,) = await of_sandboxes(api, tenant)
    assert ended["metadata"]["egress"] == {
        "allowed": 300,
        "denied": 7,
        "connections": 300,
        "bytes_up": 5,
        "bytes_down": 9,
    }


async def test_one_that_must_wait_keeps_no_other_waiting(
    api: Database, owner: Database, worker: Database
) -> None:
    """Nobody is told that it has ended, and it continues once Docker answers again."""
    tenant = await new_tenant(owner, "resident-waits")
    holds = [await running(api, worker, tenant, node="waits") for _ in range(2)]
    waits, lives = (each.sandbox_id for each in holds)
    away = {waits}

    def again(sandbox_id: UUID) -> Guest:
        if sandbox_id in away:
            raise DockerUnavailable("played")
        return Guest()

    found = living_on(worker, "waits", Furnishing(again))
    with pytest.raises(NodeAway):
        found.get(tenant, lives)
    with pytest.raises(DockerUnavailable):
        await found.adopt()
    assert found.get(tenant, lives).life is Life.RUNNING
    with pytest.raises(NodeAway):
        found.get(tenant, waits)
    with pytest.raises(SandboxEnded):
        found.get(tenant, UUID(int=0))
    assert not found.taken_over.is_set()
    away.clear()
    await found.adopt()
    assert found.get(tenant, waits).life is Life.RUNNING
    assert found.taken_over.is_set()
    await found.leave(ends=False)


@pytest.mark.parametrize(
    ("error", "ends"), [(DockerUnavailable("played"), False), (LaunchFailed("played"), True)]
)
async def test_of_one_that_does_not_go_on_nothing_stays(
    api: Database, owner: Database, worker: Database, error: Exception, ends: bool
) -> None:
    """If it may continue later, it lives, and belongs to nobody yet."""
    node = f"stays-{ends}".lower()
    tenant = await new_tenant(owner, f"resident-{node}")
    hold = await running(api, worker, tenant, node=node)
    async with worker.tenant(tenant) as tx:
        await residents.change(tx, hold, Life.PAUSING)
    guest = Guest()

    async def refuse() -> None:
        raise error

    cast("Any", guest).resume = refuse
    furnishing = Furnishing(lambda _: guest)
    found = living_on(worker, node, furnishing)
    if ends:
        await found.adopt()
    else:
        with pytest.raises(type(error)):
            await found.adopt()
    assert len(found) == 0
    assert guest.left
    assert furnishing.removed == ([guest] if ends else [])
    row = await read(api, tenant, hold.sandbox_id)
    assert row.state is (Life.ENDED if ends else Life.PAUSING)


async def test_other_nodes_get_a_lease_to_come_back_after_postgresql_was_away(
    api: Database,
    owner: Database,
    worker: Database,
    superuser: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: this node's own sandbox that nothing holds ends at once."""
    tenant = await new_tenant(owner, "resident-reaper")
    others = (await running(api, worker, tenant, node="elsewhere")).sandbox_id
    own = (await running(api, worker, tenant, node="here")).sandbox_id
    for each in (others, own):
        let_go(superuser, each)
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(reaping, "time", clock)
    reaper = SandboxReaper(worker, ENDS, node="here", lease=timedelta(seconds=30))

    async def states() -> tuple[Life, Life]:
        await reaper.reap(())
        found = [(await read(api, tenant, each)).state for each in (others, own)]
        return found[0], found[1]

    assert await states() == (Life.RUNNING, Life.ENDED)
    for answers in (True, False, True):
        reaper.heard(answers=answers)
        now += 20
        assert await states() == (Life.RUNNING, Life.ENDED)
    now += 20
    assert await states() == (Life.ENDED, Life.ENDED)
