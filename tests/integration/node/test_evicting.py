"""A host that is short of memory: which paused sandboxes go, in which order, and what stays."""

import asyncio
import base64
import io
import json
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from runner.audit import events as audit
from runner.audit.events import Filter
from runner.base.settings import Settings
from runner.node.gate import Gate
from runner.node.residents import evicting
from runner.node.residents.evicting import Evictor
from runner.node.residents.resident import Resident
from runner.sandboxes.keeping import SnapshotKeeper
from runner.secrets.envelope import snapshot_of
from runner.secrets.keyring import KeyRing
from runner.secrets.streams import opened
from runner.secrets.vault import Vault
from runner.store import receipts, residents, sandboxes, snapshots
from runner.store.db import Database
from runner.store.objects import ObjectStore
from runner.store.sandboxes import LifeChange
from runner.words.errors import Conflict, NodeAway
from runner.words.lives import EndReason, Life, OnShortage
from runner.words.living import StoredSandbox
from runner.words.nodes import NodeState
from tests.integration.node.test_resident import Guest, resident_of
from tests.integration.store.conftest import new_tenant
from tests.integration.store.test_living_sandboxes import ASKED, claimed, made, read

MIB = 2**20


class Housed(Guest):
    """A sandbox with one file, which takes 100 MiB of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.container.in_use = lambda: SimpleNamespace(memory_bytes=100 * MIB)
        self.archives = SimpleNamespace(pack=self.pack)
        self.packs: Callable[[], Awaitable[None]] | None = None

    @asynccontextmanager
    async def pack(self, _path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read its workspace."""
        assert not self.paused, "nothing in a frozen sandbox can answer"

        async def chunks() -> AsyncIterator[bytes]:
            if self.packs is not None:
                await self.packs()
            with io.BytesIO() as whole, tarfile.open(fileobj=whole, mode="w") as archive:
                entry = tarfile.TarInfo("kept.txt")
                entry.size = 5
                archive.addfile(entry, io.BytesIO(b"files"))
                archive.close()
                yield whole.getvalue()

        yield chunks()


@dataclass
class Host:
    """A node that holds sandboxes, and how much of its host's memory is free."""

    api: Database
    worker: Database
    superuser: Any
    tenant: UUID
    keeper: SnapshotKeeper
    living: list[Resident] = field(default_factory=list)
    free: int = 0

    async def paused(self, choice: OnShortage = OnShortage.SNAPSHOT) -> tuple[Resident, Housed]:
        """Return a sandbox that has just been paused."""
        request = replace(ASKED, on_shortage=choice, egress=(), secret_env={})
        id_ = await made(self.api, self.tenant, request)
        hold = await claimed(self.worker, self.tenant, id_)
        async with self.worker.tenant(self.tenant) as tx:
            await residents.start(tx, hold, {})
        guest = Housed()
        stored = await read(self.api, self.tenant, id_)
        resident = resident_of(self.worker, hold, stored, guest.furnished())
        await resident.pause()
        self.living.append(resident)
        return resident, guest

    async def sweep(self, *, reserve_mb: int) -> None:
        """Make room until so much is free."""
        evictor = Evictor(
            self.living, self.keeper, reserve_mb=reserve_mb, gate=Gate(), free=lambda: self.free
        )
        await evictor.sweep()

    async def row(self, resident: Resident) -> StoredSandbox:
        """Return its row."""
        return await read(self.api, self.tenant, resident.hold.sandbox_id)

    async def evicted(self) -> list[bool]:
        """Return of each sandbox, in order, whether it was evicted."""
        rows = [await self.row(each) for each in self.living]
        assert all(each.state in {Life.PAUSED, Life.ENDED} for each in rows)
        return [each.reason is EndReason.EVICTED for each in rows]

    async def recorded(self, action: str) -> list[dict[str, Any]]:
        """Return what the tenant's audit log holds of an action."""
        async with self.api.tenant(self.tenant) as tx:
            found = await audit.list_after(tx, 0, Filter(action=action), 100)
        return [json.loads(each.body) for each in found]


@pytest.fixture
async def host(
    api: Database,
    owner: Database,
    worker: Database,
    superuser: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Host]:
    name = request.node.name.removeprefix("test_").replace("_", "-")
    tenant = await new_tenant(owner, name[:60].rstrip("-"))
    ring = KeyRing.parse(base64.b64encode(bytes(32)).decode(), "test")
    store = ObjectStore.open(Settings(state_dir=tmp_path))
    keeper = SnapshotKeeper(worker, store, Vault(ring))
    opened = Host(api, worker, superuser, tenant, keeper)
    yield opened
    for each in opened.living:
        await each.leave()


async def test_the_one_that_ran_least_lately_goes_first_and_only_as_many_as_must(
    host: Host,
) -> None:
    """Each frees 100 MiB: two of the three that may go give the host what it lacks."""
    first, _ = await host.paused()
    await host.paused()
    await host.paused()
    await first.resume()
    await first.pause()
    await host.sweep(reserve_mb=0)
    assert await host.evicted() == [False, False, False]
    await host.sweep(reserve_mb=150)
    assert await host.evicted() == [False, True, True]


async def test_who_did_not_choose_it_stays_however_short_the_host_is(host: Host) -> None:
    """The choice may be made and taken back while the sandbox lives."""
    await host.paused(OnShortage.KEEP)
    kept, _ = await host.paused(OnShortage.SNAPSHOT)
    let, _ = await host.paused(OnShortage.KEEP)
    for resident, choice in ((kept, OnShortage.KEEP), (let, OnShortage.SNAPSHOT)):
        async with host.api.tenant(host.tenant) as tx:
            change = LifeChange(on_shortage=choice)
            assert await sandboxes.update(tx, resident.hold.sandbox_id, change)
        await resident.refresh()
    await host.sweep(reserve_mb=10_000)
    assert await host.evicted() == [False, False, True]


async def test_one_that_runs_is_never_evicted(host: Host) -> None:
    resident, _ = await host.paused()
    await resident.resume()
    await host.sweep(reserve_mb=10_000)
    assert (await host.row(resident)).state is Life.RUNNING


async def test_a_node_that_drains_keeps_all_that_may_go_whatever_memory_is_free(
    host: Host,
) -> None:
    """One that runs nothing is paused first; one whose owner did not choose it stays."""
    host.free = 2**40
    await host.paused(OnShortage.KEEP)
    await host.paused()
    quiet, _ = await host.paused()
    await quiet.resume()
    gate = Gate()
    evictor = Evictor(host.living, host.keeper, reserve_mb=0, gate=gate, quiet_s=0)
    await evictor.sweep()
    assert (await host.row(quiet)).state is Life.RUNNING
    gate.follow(NodeState.DRAINING)
    await evictor.sweep()
    assert await host.evicted() == [False, True, True]
    assert "its node was drained" in ((await host.row(quiet)).detail or "")


async def test_one_that_ran_something_lately_is_not_paused_by_draining(host: Host) -> None:
    """Its quiet time begins anew with each process."""
    resident, _ = await host.paused()
    await resident.resume()
    gate = Gate()
    gate.follow(NodeState.DRAINING)
    evictor = Evictor(host.living, host.keeper, reserve_mb=0, gate=gate, quiet_s=3600)
    await evictor.sweep()
    resident.processes.started += 1
    await evictor.sweep()
    assert (await host.row(resident)).state is Life.RUNNING


async def test_its_files_are_kept_and_everything_says_where(host: Host) -> None:
    """The row, the audit log and the receipt name the snapshot, which holds the files."""
    resident, _ = await host.paused()
    await host.sweep(reserve_mb=10)
    row = await host.row(resident)
    assert (row.state, row.reason) == (Life.ENDED, EndReason.EVICTED)
    assert row.kept_as is not None
    assert str(row.kept_as) in (row.detail or "")
    async with host.api.tenant(host.tenant) as tx:
        kept = await snapshots.get(tx, row.kept_as)
        receipt = await receipts.get_of_sandbox(tx, row.id)
        assert kept is not None
        bound_to = snapshot_of(host.tenant, kept.id)
        key = await host.keeper.vault.unseal(tx, host.tenant, kept.sealed_key, bound_to=bound_to)
    assert (kept.sandbox_id, kept.created_by) == (row.id, "system:worker")
    assert kept.metadata == row.metadata
    stored = host.keeper.objects.read(kept.object_key)
    content = [each async for each in opened(stored, bytes.fromhex(key), bound_to=bound_to)]
    with tarfile.open(fileobj=io.BytesIO(b"".join(content))) as archive:
        assert archive.getnames() == ["kept.txt"]
    (end,) = await host.recorded("sandbox:end")
    assert end["metadata"]["reason"] == "evicted"
    assert end["metadata"]["kept_as"] == str(kept.id)
    (taken,) = await host.recorded("snapshot:create")
    assert (taken["actor"], taken["resource_id"]) == ("system:worker", str(kept.id))
    assert receipt is not None
    assert json.loads(receipt)["body"]["kept_as"] == str(kept.id)


async def test_one_whose_files_cannot_be_kept_stays_paused_and_the_next_one_goes(
    host: Host,
) -> None:
    """It is left alone for a while then: a later sweep does not try it again."""
    broken, guest = await host.paused()
    tries = 0

    async def fail() -> None:
        nonlocal tries
        tries += 1
        raise NodeAway("played")

    guest.packs = fail
    await host.paused()
    evictor = Evictor(host.living, host.keeper, reserve_mb=10, gate=Gate(), free=lambda: 0)
    await evictor.sweep()
    await evictor.sweep()
    assert await host.evicted() == [False, True]
    assert (tries, guest.paused, broken.over) == (1, True, False)
    async with host.api.tenant(host.tenant) as tx:
        assert len(await snapshots.list_newest(tx, before=None, limit=9)) == 1
    await broken.resume()
    assert (await host.row(broken)).state is Life.RUNNING


async def test_a_tenant_whose_sandbox_is_slow_keeps_nobody_else_waiting(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that never ends its archive takes one turn, however many of its kind there are."""
    monkeypatch.setattr(evicting, "LONGEST_S", 0.3)
    monkeypatch.setattr(evicting, "SLOW_S", 0.1)
    tried = 0

    async def never() -> None:
        nonlocal tried
        tried += 1
        await asyncio.Event().wait()

    for _ in range(3):
        _, guest = await host.paused()
        guest.packs = never
    await host.sweep(reserve_mb=150)
    assert tried == 1
    assert await host.evicted() == [False] * 3


async def test_a_full_storage_keeps_it(host: Host) -> None:
    """The refusal is on record, as for a client."""
    host.superuser.execute(
        "UPDATE tenants SET quotas = %s WHERE tenant_id = %s",
        [json.dumps({"snapshot_bytes": 0}), host.tenant],
    )
    await host.paused()
    await host.sweep(reserve_mb=10)
    assert await host.evicted() == [False]
    (denied,) = await host.recorded("snapshot:create")
    assert denied["outcome"] == "denied"


async def test_whoever_uses_it_meanwhile_comes_first(host: Host) -> None:
    """Nothing is kept of it then, and it goes on."""
    resident, guest = await host.paused()
    begun = asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    guest.packs = wait
    sweeping = asyncio.create_task(host.sweep(reserve_mb=10))
    await begun.wait()
    async with asyncio.timeout(60):
        await resident.resume()
        await sweeping
    assert (await host.row(resident)).state is Life.RUNNING
    assert not guest.paused
    async with host.api.tenant(host.tenant) as tx:
        assert await snapshots.list_newest(tx, before=None, limit=9) == []
    with pytest.raises(Conflict, match="no longer paused"):
        await resident.evict(asyncio.Event().wait, "why")  # type: ignore[arg-type]
