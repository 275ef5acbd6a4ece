"""Snapshots as they are kept: their quota, their idempotency keys, and their end."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest

from runner.audit import events as audit
from runner.audit.events import Filter, Origin
from runner.auth.caller import Caller
from runner.base.settings import Settings
from runner.door.client import Door
from runner.door.grants import MOST_S
from runner.egress.policy import Policy
from runner.fleet.directory import NodeDirectory
from runner.node.retention import Retention
from runner.quotas.sizes import load_sizes
from runner.sandboxes import keeping
from runner.sandboxes.catalogue import Catalogue
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import SandboxPlaces
from runner.sandboxes.snapshots import Snapshots
from runner.sandboxes.use import Using
from runner.secrets.keyring import KeyRing
from runner.secrets.vault import Vault
from runner.store import quotas
from runner.store.db import Database
from runner.store.idempotency import KeyUse, Once
from runner.store.objects import ObjectStore
from runner.store.retention import RetentionTerms
from runner.store.snapshots import StoredSnapshot
from runner.store.transaction import Transaction
from runner.words.errors import Conflict, NodeAway, NotFound, QuotaExceeded, StorageFull
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from runner.words.sandbox import Isolation
from tests.integration.store.conftest import new_tenant
from tests.support.deployment import PATIENCE_S
from tests.support.played_node import played_node

NANO = LivingOrder(size="nano", limits={"pids": 8, "memory_mb": 64, "disk_mb": 8})
KIB = 1024


@dataclass
class Workspace:
    """The files of a sandbox as one archive, which may wait or break."""

    size: int = 100 * KIB
    packed: int = 0
    fails: bool = False
    goes_on: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def pack_folder(self, *_: object) -> AsyncIterator[SimpleNamespace]:
        """Read it."""
        self.packed += 1

        async def chunks() -> AsyncIterator[bytes]:
            self.begun.set()
            if self.goes_on is not None:
                await self.goes_on.wait()
            for _ in range(self.size // KIB):
                yield bytes(KIB)
            if self.fails:
                raise NodeAway("it went away")

        yield SimpleNamespace(chunks=chunks)


@dataclass
class Kept:
    """A sandbox, and what keeps its files."""

    snapshots: Snapshots
    workspace: Workspace
    caller: Caller
    sandbox: UUID
    superuser: Any
    retention: Retention
    folder: Path

    async def take(self, **options: Any) -> StoredSnapshot:
        """Take a snapshot."""
        options = {"name": None, "metadata": {}, **options}
        return await self.snapshots.take(self.caller, self.sandbox, **options)

    def allow(self, **own: int) -> None:
        """Give the tenant quotas of its own."""
        self.superuser.execute(
            "UPDATE tenants SET quotas = %s WHERE tenant_id = %s",
            [json.dumps(own), self.caller.tenant_id],
        )

    async def used(self) -> tuple[int, float]:
        """Return the quota of snapshots' bytes, and how many are used."""
        async with self.snapshots.database.tenant(self.caller.tenant_id) as tx:
            figures = (await quotas.standing(tx)).figures()
        (figure,) = (each for each in figures if each.name == "snapshot_bytes")
        return figure.limit, figure.used

    async def recorded(self) -> list[dict[str, Any]]:
        """Return the records of snapshots that were taken or refused."""
        async with self.snapshots.database.tenant(self.caller.tenant_id) as tx:
            found = await audit.list_after(tx, 0, Filter(action="snapshot:create"), 100)
        return [json.loads(each.body) for each in found]


@pytest.fixture
async def kept(
    api: Database,
    owner: Database,
    worker: Database,
    superuser: Any,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Kept]:
    """Return a sandbox of a tenant of this test's own."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    tenant = await new_tenant(owner, f"{name[:40].rstrip('-')}-{str(new_id())[-6:]}")
    principal = Principal(tenant, new_id(), PrincipalKind.KEY, "test", Role.DEVELOPER)
    caller = Caller(principal, Origin(ip="203.0.113.7"))
    catalogue = Catalogue(
        sizes=load_sizes(Settings().profiles_path),
        images={"python": frozenset({"python"})},
        isolations=(Isolation.CONTAINER,),
        egress_ceiling=Policy(rules=()),
    )
    living = LivingSandboxes(
        api, Door(tmp_path, away_s=MOST_S), SandboxPlaces(api), catalogue, NodeDirectory(api)
    )
    ring = KeyRing.parse(base64.b64encode(bytes(32)).decode(), "test")
    workspace, settings = Workspace(), Settings(state_dir=tmp_path)
    store = ObjectStore.open(settings)
    at_once = timedelta(seconds=0)
    terms = RetentionTerms(days=30, grace=at_once, abandoned=timedelta(hours=3))
    async with played_node(worker, tmp_path):
        made = await living.create(caller, NANO)
        yield Kept(
            Snapshots(api, cast("Using", workspace), store, Vault(ring)),
            workspace,
            caller,
            made.id,
            superuser,
            Retention(database=worker, objects=store, terms=terms),
            settings.objects_dir,
        )


async def test_the_bytes_of_snapshots_have_a_quota(
    kept: Kept,
) -> None:
    """A full one refuses by name, value and use, on record; deleting one frees its bytes."""
    kept.allow(snapshot_bytes=150 * KIB, snapshot_days=0)
    first = await kept.take()
    limit, used = await kept.used()
    assert limit == 150 * KIB
    assert 100 * KIB < used < 110 * KIB, "sealed, it takes a little more"
    with pytest.raises(StorageFull, match="snapshot_bytes is 153600"):
        await kept.take()
    assert await kept.used() == (limit, used), "nothing is kept of it"
    kept.allow(snapshot_bytes=100 * KIB)
    with pytest.raises(QuotaExceeded, match="snapshots take as many bytes") as refused:
        await kept.take()
    error = refused.value
    assert (error.quota, error.limit, error.used) == ("snapshot_bytes", 100 * KIB, used)
    assert (error.frees_at, error.retry_after_s) == (None, None), "nothing frees it by itself"
    denied = (await kept.recorded())[-1]
    assert (denied["outcome"], denied["metadata"]["quota"]) == ("denied", "snapshot_bytes")
    await kept.snapshots.delete(kept.caller, first.id)
    assert await kept.used() == (100 * KIB, 0)
    kept.allow(snapshot_bytes=2**30)
    assert (await kept.take()).archive_bytes == 100 * KIB, "the control"


async def test_a_refusal_names_when_the_first_snapshot_expires(kept: Kept) -> None:
    """Then some of the quota is free by itself, so a client may wait for it."""
    kept.allow(snapshot_bytes=110 * KIB)
    first = await kept.take(lasts_s=600)
    kept.allow(snapshot_bytes=100 * KIB)
    with pytest.raises(QuotaExceeded, match="the first expires at") as refused:
        await kept.take()
    assert refused.value.frees_at == first.expires_at
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 600


async def test_snapshots_at_once_do_not_pass_the_quota_together(kept: Kept) -> None:
    """Each reserves what it may take before a byte moves."""
    kept.allow(snapshot_bytes=250 * KIB)
    kept.workspace.goes_on = asyncio.Event()
    taking = [asyncio.create_task(kept.take()) for _ in range(5)]
    async with asyncio.timeout(PATIENCE_S):
        while sum(each.done() for each in taking) < 4:
            assert (await kept.used())[1] <= 250 * KIB
            await asyncio.sleep(0.02)
    kept.workspace.goes_on.set()
    came = await asyncio.gather(*taking, return_exceptions=True)
    assert sum(isinstance(each, StoredSnapshot) for each in came) == 1
    assert sum(isinstance(each, QuotaExceeded | StorageFull) for each in came) == 4
    assert (await kept.used())[1] < 110 * KIB


async def same(stored: bytes) -> bool:
    """Compare fingerprints."""
    return stored == b"a"


async def other(_: bytes) -> bool:
    """Be another request."""
    return False


ONCE = Once("key", b"a", same)


async def test_a_repeated_request_gets_the_same_snapshot(kept: Kept) -> None:
    """It is packed once; another request with the key is refused, and a deleted one made anew."""
    first = await kept.take(once=ONCE)
    assert await kept.take(once=ONCE) == first
    assert kept.workspace.packed == 1
    with pytest.raises(Conflict, match="another request"):
        await kept.take(once=replace(ONCE, same=other))
    assert (await kept.take()).id != first.id, "the control"
    await kept.snapshots.delete(kept.caller, first.id)
    assert (await kept.take(once=ONCE)).id != first.id


async def test_a_request_is_not_repeated_while_its_snapshot_is_taken(kept: Kept) -> None:
    """The client is told to come back, and gets it then."""
    kept.workspace.goes_on = asyncio.Event()
    taking = asyncio.create_task(kept.take(once=ONCE))
    async with asyncio.timeout(PATIENCE_S):
        await kept.workspace.begun.wait()
    with pytest.raises(NodeAway, match="still being taken") as again:
        await kept.take(once=ONCE)
    assert again.value.retry_after_s is not None
    kept.workspace.goes_on.set()
    first = await taking
    assert await kept.take(once=ONCE) == first
    assert kept.workspace.packed == 1


async def test_a_snapshot_that_failed_is_taken_anew(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the process that took it died, this takes the longest time that a snapshot may take."""
    kept.workspace.fails = True
    with pytest.raises(NodeAway, match="it went away"):
        await kept.take(once=ONCE)
    kept.workspace.fails = False
    first = await kept.take(once=ONCE)
    assert await kept.take(once=ONCE) == first
    kept.workspace.goes_on = asyncio.Event()
    second = replace(ONCE, key="second")
    dies = asyncio.create_task(kept.take(once=second))
    kept.workspace.begun.clear()
    async with asyncio.timeout(PATIENCE_S):
        await kept.workspace.begun.wait()
    monkeypatch.setattr(keeping, "LONGEST_S", -1.0)
    kept.workspace.goes_on.set()
    kept.workspace.goes_on = None
    again = await kept.take(once=second)
    await asyncio.gather(dies, return_exceptions=True)
    assert await kept.take(once=second) == again


async def test_a_snapshot_expires(kept: Kept) -> None:
    """Row and object go with the next sweep, and that is on record; others stay."""
    stays = await kept.take()
    assert stays.expires_at is not None, "the tier's days"
    kept.allow(snapshot_days=0)
    ever = await kept.take()
    assert ever.expires_at is None
    goes = await kept.take(lasts_s=600)
    assert goes.expires_at is not None
    assert goes.expires_at - goes.created_at == timedelta(seconds=600)
    kept.allow(snapshot_days=1)
    bounded = await kept.take(lasts_s=7 * 86_400)
    assert bounded.expires_at == bounded.created_at + timedelta(days=1)
    await kept.retention.sweep()
    assert len(list(kept.folder.rglob("snapshots/*"))) == 4, "the control: none is due"
    kept.superuser.execute(
        "UPDATE snapshots SET expires_at = now() WHERE snapshot_id = %s", [goes.id]
    )
    await kept.retention.sweep()
    await kept.retention.sweep()
    with pytest.raises(NotFound):
        await kept.snapshots.read(kept.caller, goes.id)
    left = await kept.snapshots.list_newest(kept.caller, before=None, limit=10)
    assert {each.id for each in left} == {stays.id, ever.id, bounded.id}
    assert len(list(kept.folder.rglob("snapshots/*"))) == 3
    async with kept.snapshots.database.tenant(kept.caller.tenant_id) as tx:
        told = await audit.list_after(tx, 0, Filter(action="retention:remove"), 100)
    assert sum(json.loads(each.body)["metadata"]["snapshots"] for each in told) == 1


async def test_an_expired_snapshot_is_gone_before_it_is_removed(kept: Kept) -> None:
    """It is neither read nor listed nor given for its key, although its row is there yet."""
    stays, goes = await kept.take(), await kept.take(once=ONCE)
    assert await kept.snapshots.read(kept.caller, goes.id) == goes, "the control"
    kept.superuser.execute(
        "UPDATE snapshots SET expires_at = now() WHERE snapshot_id = %s", [goes.id]
    )
    with pytest.raises(NotFound):
        await kept.snapshots.read(kept.caller, goes.id)
    left = await kept.snapshots.list_newest(kept.caller, before=None, limit=10)
    assert [each.id for each in left] == [stays.id]
    assert (await kept.take(once=ONCE)).id != goes.id
    await kept.snapshots.delete(kept.caller, goes.id)


async def test_of_two_repeated_requests_one_takes_what_was_lost(kept: Kept) -> None:
    """Both find that nothing came of the first; the slower one does not take a second snapshot."""
    lost = await kept.take(once=ONCE)
    anew = await kept.take()
    await kept.snapshots.delete(kept.caller, lost.id)
    overtaken = list[str | None]()

    class Slower(Once):
        async def require_same(self, used: KeyUse, id_: Any) -> Any:
            """Be overtaken, once, by a request that frees the key and binds it anew."""
            if not overtaken:
                overtaken.append(used.object_key)
                kept.superuser.execute(
                    "UPDATE idempotency_keys SET object_key = %s WHERE tenant_id = %s",
                    [anew.object_key, kept.caller.tenant_id],
                )
            return await super().require_same(used, id_)

    assert await kept.take(once=Slower("key", b"a", same)) == anew
    assert overtaken == [lost.object_key]
    assert kept.workspace.packed == 2, "the lost one, and the one anew"


async def test_a_key_that_is_freed_meanwhile_is_reserved(kept: Kept) -> None:
    """Whoever is told that nobody used it holds it: the next request finds that."""
    database, tenant = kept.snapshots.database, kept.caller.tenant_id
    freed = list[bool]()

    class Overtaken(Once):
        async def find(self, tx: Transaction) -> KeyUse | None:
            """Have the holder free the key before it is read, once."""
            if not freed:
                kept.superuser.execute(
                    "DELETE FROM idempotency_keys WHERE tenant_id = %s", [tenant]
                )
                freed.append(True)
            return await super().find(tx)

    async with database.tenant(tenant) as tx:
        assert await ONCE.reserve(tx, sandbox_id=kept.sandbox) is None
    async with database.tenant(tenant) as tx:
        again = Overtaken("key", b"a", same)
        assert await again.reserve(tx, sandbox_id=kept.sandbox) is None
    assert freed
    async with database.tenant(tenant) as tx:
        used = await ONCE.find(tx)
    assert used is not None
    assert used.sandbox_id == kept.sandbox
