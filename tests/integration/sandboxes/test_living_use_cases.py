"""Sandboxes that live, from the use cases to a node's door and the rows of both."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
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
from runner.door.reaching import unix_address
from runner.egress.policy import Policy
from runner.fleet.directory import NodeDirectory
from runner.quotas.sizes import load_sizes
from runner.sandboxes.catalogue import Catalogue
from runner.sandboxes.copies import Copies, ForkTerms
from runner.sandboxes.egress import EgressOrder
from runner.sandboxes.living import LivingSandboxes
from runner.sandboxes.order import LivingOrder
from runner.sandboxes.place import SandboxPlaces
from runner.sandboxes.snapshots import Snapshots
from runner.sandboxes.use import Using
from runner.store.db import Database
from runner.store.idempotency import Once
from runner.store.sandboxes import FILLING, LifeChange, SandboxListing
from runner.words.errors import (
    Conflict,
    Gone,
    Invalid,
    LaunchFailed,
    NodeAway,
    NotFound,
    NotReady,
    QuotaExceeded,
    SandboxEnded,
    SandboxFault,
    SandboxNotStarted,
)
from runner.words.ids import new_id
from runner.words.lives import EndReason, Life
from runner.words.principal import Principal, PrincipalKind, Role
from runner.words.sandbox import Isolation
from tests.integration.store.conftest import new_tenant
from tests.support.deployment import PATIENCE_S
from tests.support.played_node import PROCESS, PlayedNode, played_node

NANO = LivingOrder(size="nano", limits={"pids": 8, "memory_mb": 64, "disk_mb": 8})

NODE = """
INSERT INTO nodes (node, instance, door, version, isolations, images, slots, sandboxes, cpus,
                   memory_mb, away_at)
VALUES (%s, %s, %s, '1', '{}', '{}', 1, 1, 1, 1, 'infinity')
"""


def caller_of(tenant: UUID) -> Caller:
    """Return a caller of a tenant."""
    principal = Principal(tenant, new_id(), PrincipalKind.KEY, "test", Role.DEVELOPER)
    return Caller(principal, Origin(ip="203.0.113.7"))


@pytest.fixture
async def caller(owner: Database, request: pytest.FixtureRequest) -> Caller:
    """Return a caller of a tenant that only this test uses."""
    name = request.node.name.removeprefix("test_").replace("_", "-")
    return caller_of(await new_tenant(owner, name[:60].rstrip("-")))


@pytest.fixture
async def node(worker: Database, tmp_path: Path) -> AsyncIterator[PlayedNode]:
    """Return a node whose door is open."""
    async with played_node(worker, tmp_path) as opened:
        yield opened


@pytest.fixture
def places(api: Database) -> SandboxPlaces:
    """Return what the API's process remembers."""
    return SandboxPlaces(api, fresh_s=60)


@pytest.fixture
def living(api: Database, places: SandboxPlaces, tmp_path: Path) -> LivingSandboxes:
    """Return the use cases of a deployment with one image."""
    catalogue = Catalogue(
        sizes=load_sizes(Settings().profiles_path),
        images={"python": frozenset({"python"})},
        isolations=(Isolation.CONTAINER,),
        egress_ceiling=Policy(rules=()),
    )
    return LivingSandboxes(
        api, Door(tmp_path, away_s=MOST_S), places, catalogue, NodeDirectory(api, fresh_s=600)
    )


@pytest.fixture
def using(living: LivingSandboxes) -> Using:
    """Return the use cases inside sandboxes."""
    return Using(living.door, living.places, living.may_resume)


async def recorded(api: Database, caller: Caller) -> list[tuple[str, str]]:
    """Return action and outcome of each record of the tenant's log."""
    async with api.tenant(caller.tenant_id) as tx:
        records = await audit.list_after(tx, 0, Filter(), 100)
    return [(told["action"], told["outcome"]) for told in map(_body, records)]


def _body(record: audit.Listed) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(record.body)
    return body


async def test_a_sandbox_is_made_and_killed(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """It takes commands once its maker has the answer; a second kill changes nothing."""
    made = await living.create(caller, NANO)
    assert (made.state, made.image, made.created_by) == (Life.RUNNING, "python", "key:test")
    assert [each.id for each in await living.list_some(caller, SandboxListing(limit=10))] == [
        made.id
    ]
    killed = await living.kill(caller, made.id)
    assert (killed.state, killed.reason) == (Life.ENDED, EndReason.KILLED)
    assert await living.kill(caller, made.id) == killed
    assert node.asked == [("key:test", "create"), ("key:test", "end")]
    assert ("sandbox:create", "success") in await recorded(api, caller)
    assert (await recorded(api, caller)).count(("sandbox:kill", "success")) == 1


async def test_nobody_knocks_at_a_node_that_was_removed(
    caller: Caller,
    node: PlayedNode,
    living: LivingSandboxes,
    using: Using,
    superuser: Any,
    tmp_path: Path,
) -> None:
    """Although its door is open, and it may show the certificate of a node.

    The control: it is asked before, and again when the operator takes it back.
    """
    made = await living.create(caller, NANO)
    superuser.execute(NODE, (node.name, node.instance, unix_address(tmp_path)))
    try:
        for state, asked in (("ready", 1), ("removed", 0), ("ready", 1)):
            superuser.execute("UPDATE nodes SET state = %s", (state,))
            living.places.forget(caller.tenant_id, made.id)
            before = len(node.asked)
            if asked:
                assert await using.processes(caller, made.id) == (PROCESS,)
            else:
                for attempt in (using.processes(caller, made.id), living.pause(caller, made.id)):
                    with pytest.raises(NodeAway, match="was removed"):
                        await attempt
            assert len(node.asked) == before + asked
    finally:
        superuser.execute("DELETE FROM nodes")


async def test_of_another_tenants_sandbox_nothing_is_told(
    caller: Caller, owner: Database, node: PlayedNode, living: LivingSandboxes, using: Using
) -> None:
    """Each call is answered as for an unknown one, also while its own tenant uses it."""
    made = await living.create(caller, NANO)
    assert await using.processes(caller, made.id) == (PROCESS,)
    stranger = caller_of(await new_tenant(owner, "sandbox-stranger"))
    asked_before = len(node.asked)
    for attempt in (
        living.read(stranger, made.id),
        living.update(stranger, made.id, LifeChange(metadata={})),
        living.kill(stranger, made.id),
        living.pause(stranger, made.id),
        living.resume(stranger, made.id),
        using.processes(stranger, made.id),
        using.signal(stranger, made.id, 1, 9),
        using.stat_file(stranger, made.id, "a"),
    ):
        with pytest.raises(NotFound, match="no such sandbox"):
            await attempt
    assert await living.list_some(stranger, SandboxListing(limit=10)) == []
    assert len(node.asked) == asked_before, "nothing of it may reach the door"


async def test_what_cannot_be_is_refused_before_anything_is_stored(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    for order, field in (
        (replace(NANO, image="rust"), "image"),
        (replace(NANO, project="none-such"), "project"),
        (replace(NANO, egress=("a.example",)), "egress.0"),
    ):
        with pytest.raises(Invalid) as refused:
            await living.create(caller, order)
        assert refused.value.field == field
    assert await living.list_some(caller, SandboxListing(limit=10)) == []
    assert node.asked == []


async def test_a_full_quota_refuses_and_says_which(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes, superuser: Any
) -> None:
    """There are quotas of number and memory; a place is free once a sandbox has ended."""
    superuser.execute(
        'UPDATE tenants SET quotas = \'{"sandboxes": 2, "sandbox_memory_mb": 120}\' '
        "WHERE tenant_id = %s",
        [caller.tenant_id],
    )
    small = replace(NANO, limits={**NANO.limits, "memory_mb": 32})
    first = await living.create(caller, NANO)
    with pytest.raises(QuotaExceeded, match="64 of 120 used, and this takes 64") as refused:
        await living.create(caller, NANO)
    assert (refused.value.quota, refused.value.limit) == ("sandbox_memory_mb", 120)
    assert refused.value.frees_at == first.expires_at
    await living.create(caller, small)
    with pytest.raises(QuotaExceeded) as refused:
        await living.create(caller, small)
    assert (refused.value.quota, refused.value.used) == ("sandboxes", 2)
    assert ("sandbox:create", "denied") in await recorded(api, caller)
    await living.kill(caller, first.id)
    assert (await living.create(caller, small)).state is Life.RUNNING


async def test_of_many_that_come_at_once_as_many_are_made_as_may_live(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, superuser: Any
) -> None:
    """The last place is given away once."""
    superuser.execute(
        "UPDATE tenants SET quotas = '{\"sandboxes\": 3}' WHERE tenant_id = %s", [caller.tenant_id]
    )
    came = await asyncio.gather(
        *(living.create(caller, NANO) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(each, QuotaExceeded) for each in came) == 5
    assert len(await living.list_some(caller, SandboxListing(states=[Life.RUNNING], limit=10))) == 3


async def test_a_repeated_request_gets_the_same_sandbox(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The key is the same; another request with it is refused."""

    async def same(stored: bytes) -> bool:
        return stored == b"a"

    once = Once("key", b"a", same)
    made = await living.create(caller, NANO, once=once)
    again = await living.create(caller, NANO, once=once)
    assert again.id == made.id
    other = replace(once, same=lambda _: _false())
    with pytest.raises(Conflict):
        await living.create(caller, NANO, once=other)
    assert [call for _, call in node.asked] == ["create"]


async def test_a_repeated_request_makes_anew_what_did_not_start(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The record of a sandbox that never took commands is not taken for a sandbox."""

    async def same(_: bytes) -> bool:
        return True

    once, node.fails = Once("key", b"a", same), LaunchFailed("no")
    with pytest.raises(NotReady):
        await living.create(caller, NANO, once=once)
    node.fails = None
    made = await living.create(caller, NANO, once=once)
    assert made.state is Life.RUNNING
    assert (await living.create(caller, NANO, once=once)).id == made.id
    states = [each.state for each in await living.list_some(caller, SandboxListing(limit=10))]
    assert states == [Life.RUNNING, Life.ENDED]


async def test_a_repeated_request_makes_anew_what_was_cancelled(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The same holds if the process that was making it died and its node ended it later."""

    async def same(_: bytes) -> bool:
        return True

    begun = asyncio.Event()

    async def fill(_: UUID) -> None:
        begun.set()
        await asyncio.Event().wait()

    once = Once("key", b"a", same)
    creating = asyncio.create_task(living.create(caller, NANO, once=once, fill=fill))
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    (over,) = await living.list_some(caller, SandboxListing(limit=10))
    async with api.tenant(caller.tenant_id) as tx:
        # As a process leaves it that dies.
        assert await once.reserve(tx, sandbox_id=over.id) is None
    made = await living.create(caller, NANO, once=once)
    assert made.id != over.id
    assert (await living.create(caller, NANO, once=once)).id == made.id


async def test_a_fork_is_repeated_by_its_key(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The same copies again; anew after a failure; refused while they are being made."""

    async def same(stored: bytes) -> bool:
        return stored == b"a"

    once = Once("key", b"a", same)
    source = await living.create(caller, NANO)
    packed = Packed(living.places)
    copies = Copies(api, living, cast("Snapshots", SimpleNamespace(using=packed)))

    async def fork(key: Once = once) -> list[UUID]:
        made = await copies.fork(caller, source.id, ForkTerms(60), count=2, once=key)
        return [each.id for each in made]

    first = asyncio.create_task(fork())
    async with asyncio.timeout(PATIENCE_S):
        while packed.unpacked < 2:  # noqa: ASYNC110 - the copies tell nobody
            await asyncio.sleep(0.02)
    with pytest.raises(NodeAway, match="still being"):
        await fork()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    packed.waits = False
    made = await fork()
    assert await fork() == made
    with pytest.raises(Conflict):
        await fork(replace(once, fingerprint=b"b", same=lambda _: _false()))
    running = await living.list_some(caller, SandboxListing(states=[Life.RUNNING], limit=10))
    assert {each.id for each in running} == {source.id, *made}
    await living.kill(caller, source.id)
    assert await fork() == made, "its source is not asked again"


async def _false() -> bool:
    return False


async def test_without_a_node_nothing_is_left_living(
    api: Database, caller: Caller, living: LivingSandboxes
) -> None:
    """The caller is told to try again, and the row says why there is no sandbox."""
    with pytest.raises(NodeAway) as away:
        await living.create(caller, NANO)
    assert away.value.retry_after_s is not None
    (row,) = await living.list_some(caller, SandboxListing(limit=10))
    assert (row.state, row.reason) == (Life.ENDED, EndReason.START_FAILED)
    assert ("sandbox:end", "failure") in await recorded(api, caller)


async def test_what_a_node_claimed_and_did_not_give_is_asked_to_stop(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """Only the node knows it, and ends it when it renews its leases."""
    node.fails_later = NodeAway("the node went away during a call")
    with pytest.raises(NodeAway):
        await living.create(caller, NANO)
    (row,) = await living.list_some(caller, SandboxListing(limit=10))
    assert row.state is Life.STOPPING


async def test_a_kill_while_the_node_is_away_is_remembered(
    api: Database, caller: Caller, worker: Database, living: LivingSandboxes, tmp_path: Path
) -> None:
    """The caller is told that the node is away, and the sandbox refuses all further calls."""
    async with played_node(worker, tmp_path):
        made = await living.create(caller, NANO)
    with pytest.raises(NodeAway):
        await living.kill(caller, made.id)
    assert (await living.read(caller, made.id)).state is Life.STOPPING
    with pytest.raises(Conflict):
        await Using(living.door, living.places, living.may_resume).processes(caller, made.id)
    with pytest.raises(NodeAway):
        await living.kill(caller, made.id)
    assert (await recorded(api, caller)).count(("sandbox:kill", "success")) == 1


async def test_a_change_is_stored_also_while_the_node_is_away(
    caller: Caller, worker: Database, living: LivingSandboxes, tmp_path: Path
) -> None:
    async with played_node(worker, tmp_path) as node:
        made = await living.create(caller, NANO)
        longer = await living.update(caller, made.id, LifeChange(sets_timeout=True, timeout_s=3600))
        assert [call for _, call in node.asked] == ["create", "refresh"]
    assert longer.timeout_s == 3600
    labelled = await living.update(caller, made.id, LifeChange(metadata={"step": "2"}))
    assert (labelled.metadata, labelled.expires_at) == ({"step": "2"}, longer.expires_at)


async def test_egress_rules_that_the_node_did_not_get_are_not_said_to_be_in_force(
    api: Database, caller: Caller, worker: Database, living: LivingSandboxes, tmp_path: Path
) -> None:
    """They are stored, and a repeated request succeeds once the node is back."""
    async with played_node(worker, tmp_path) as node:
        made = await living.create(caller, NANO)
    nothing = EgressOrder()
    with pytest.raises(NodeAway, match=r"stored but may not be in force yet.*repeat"):
        await living.update(caller, made.id, LifeChange(metadata={"a": "b"}), nothing)
    assert (await living.read(caller, made.id)).metadata == {"a": "b"}
    told = [each for each in await recorded(api, caller) if each[0] == "sandbox:update"]
    assert told == [("sandbox:update", "success"), ("sandbox:update", "failure")]
    (tmp_path / "door.sock").unlink(missing_ok=True)
    server = await asyncio.start_unix_server(node.attend, tmp_path / "door.sock")
    async with server:
        assert (await living.update(caller, made.id, LifeChange(), nothing)).egress == ()


async def test_nothing_lives_on_of_a_sandbox_whose_caller_was_cancelled(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The sandbox is ended even if the node has made it by then."""
    node.holds = asyncio.Event()
    creating = asyncio.create_task(living.create(caller, NANO))
    async with asyncio.timeout(PATIENCE_S):
        await node.made.wait()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    node.holds.set()
    (row,) = await living.list_some(caller, SandboxListing(limit=10))
    assert (row.state, row.reason) == (Life.ENDED, EndReason.KILLED)


async def test_a_plain_sandbox_is_made_ready_before_its_row_is_stored(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """One with a secret is not: its node must read the row first."""
    made = await living.create(caller, NANO)
    assert node.ahead == [made.spec]
    await living.create(caller, replace(NANO, secret_env={"TOKEN": "token"}))
    assert node.ahead == [made.spec]


async def test_what_was_made_ahead_is_given_up_if_its_row_is_not_stored(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, superuser: Any
) -> None:
    """The node learns it by the end of the call. The control: others are made and stay."""
    # From then on, the nodes are known: there is only one connection to read them with.
    first = await living.create(caller, NANO)
    node.ahead.clear()
    node.made.clear()
    with superuser.transaction():
        superuser.execute("LOCK TABLE sandboxes IN SHARE MODE")
        creating = asyncio.create_task(living.create(caller, NANO))
        async with asyncio.timeout(PATIENCE_S):
            while not node.ahead:  # noqa: ASYNC110 - it has nothing to wait for
                await asyncio.sleep(0.02)
        assert not node.hung_up.is_set()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
    async with asyncio.timeout(PATIENCE_S):
        await node.hung_up.wait()
    assert not node.made.is_set()
    running = partial(living.list_some, caller, SandboxListing(states=[Life.RUNNING], limit=10))
    assert [each.id for each in await running()] == [first.id]
    made = await living.create(caller, NANO)
    assert [each.id for each in await running()] == [made.id, first.id]
    assert node.made.is_set()


class Packed:
    """Files of sandboxes: one copy gets its files, and the others wait for theirs."""

    def __init__(self, places: SandboxPlaces) -> None:
        self.places = places
        self.unpacked = 0
        self.waits = True

    @asynccontextmanager
    async def pack_folder(self, *_: object) -> AsyncIterator[SimpleNamespace]:
        """Read nothing."""
        yield SimpleNamespace(chunks=list)

    async def unpack_folder(self, *_: object, **__: object) -> None:
        """Write nothing, the first time; wait, all others."""
        self.unpacked += 1
        if self.unpacked > 1 and self.waits:
            await asyncio.Event().wait()


async def test_no_copy_stays_of_a_fork_that_was_cancelled(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """Neither one that was ready, nor one that was being filled."""
    source = await living.create(caller, NANO)
    packed = Packed(living.places)
    copies = Copies(api, living, cast("Snapshots", SimpleNamespace(using=packed)))
    forking = asyncio.create_task(copies.fork(caller, source.id, ForkTerms(60), count=2))

    async def copies_now() -> list[bool]:
        """Return of each copy that runs whether it is still being filled."""
        found = await living.list_some(caller, SandboxListing(states=[Life.RUNNING], limit=10))
        return sorted(each.filling for each in found if each.id != source.id)

    async with asyncio.timeout(PATIENCE_S):
        while await copies_now() != [False, True]:  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0.02)
    forking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forking
    lives = [*(set(Life) - {Life.ENDED})]
    left = await living.list_some(caller, SandboxListing(states=lives, limit=10))
    assert [each.id for each in left] == [source.id]


async def test_a_copy_lives_no_longer_than_its_source_may(
    api: Database, caller: Caller, node: PlayedNode, living: LivingSandboxes, superuser: Any
) -> None:
    """It gets what is left of the longest life; once nothing is left, there is no copy."""
    packed = Packed(living.places)
    packed.waits = False
    copies = Copies(api, living, cast("Snapshots", SimpleNamespace(using=packed)))
    for max_life_s in (None, 3600.0):
        source = await living.create(caller, replace(NANO, max_life_s=max_life_s))
        (first,) = await copies.fork(caller, source.id, ForkTerms(60), count=1)
        (second,) = await copies.fork(caller, first.id, ForkTerms(60), count=1)
        for copy in (first, second):
            if source.lives_until is None:
                assert copy.lives_until is None, "the control"
            else:
                assert copy.lives_until is not None
                assert abs(copy.lives_until - source.lives_until) < timedelta(seconds=60)
    superuser.execute("UPDATE sandboxes SET lives_until = now() WHERE sandbox_id = %s", [source.id])
    with pytest.raises(Gone, match="max_life"):
        await copies.fork(caller, source.id, ForkTerms(60), count=1)


async def test_a_sandbox_counts_as_made_once_it_has_its_files(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """Until then, its key gives it to nobody, and if the API ends now, its node soon ends it."""

    async def same(_: bytes) -> bool:
        return True

    begun, files = asyncio.Event(), asyncio.Event()

    async def fill(_: UUID) -> None:
        begun.set()
        await files.wait()

    once, order = Once("key", b"a", same), replace(NANO, timeout_s=None)
    creating = asyncio.create_task(living.create(caller, order, once=once, fill=fill))
    async with asyncio.timeout(PATIENCE_S):
        await begun.wait()
    with pytest.raises(NodeAway, match="files: try again") as again:
        await living.create(caller, order, once=once, fill=fill)
    assert again.value.retry_after_s is not None
    (row,) = await living.list_some(caller, SandboxListing(limit=10))
    assert row.expires_at == row.created_at + FILLING
    files.set()
    made = await creating
    assert (made.filling, made.expires_at) == (False, None)
    assert (await living.create(caller, order, once=once, fill=fill)).id == made.id
    assert [call for _, call in node.asked] == ["create", "refresh"]


async def test_a_paused_sandbox_takes_no_commands_until_it_is_resumed(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, using: Using
) -> None:
    """Pausing a paused one and resuming a running one change nothing."""
    made = await living.create(caller, NANO)
    assert (await living.resume(caller, made.id)).state is Life.RUNNING
    for _ in range(2):
        assert (await living.pause(caller, made.id)).state is Life.PAUSED
    with pytest.raises(Conflict, match="paused"):
        await using.processes(caller, made.id)
    assert (await living.resume(caller, made.id)).state is Life.RUNNING
    assert await using.processes(caller, made.id) == (PROCESS,)


async def test_a_pause_that_fails_may_be_tried_again(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    made = await living.create(caller, NANO)
    node.fails_to_pause = SandboxFault("Docker did not freeze it in time")
    with pytest.raises(NotReady, match="try again"):
        await living.pause(caller, made.id)
    node.fails_to_pause = None
    assert (await living.pause(caller, made.id)).state is Life.PAUSED


async def test_after_its_end_each_call_says_why_it_ended(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, using: Using
) -> None:
    """This includes the first call, for which this process still assumes a running sandbox."""
    made = await living.create(caller, NANO)
    await node.end(caller.tenant_id, made.id, EndReason.EXPIRED, "its time was up")
    for attempt in (
        using.processes(caller, made.id),
        using.stat_file(caller, made.id, "a"),
        living.update(caller, made.id, LifeChange(metadata={})),
        living.pause(caller, made.id),
    ):
        with pytest.raises(Gone, match="its time was up") as gone:
            await attempt
        assert gone.value.reason == "expired"


async def test_the_end_of_one_that_was_killed_is_not_said_twice(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, using: Using
) -> None:
    made = await living.create(caller, NANO)
    await node.end(caller.tenant_id, made.id, EndReason.KILLED, "killed")
    with pytest.raises(Gone, match=r"^this sandbox has ended \(killed\)$"):
        await using.processes(caller, made.id)


async def test_a_command_asks_the_database_nothing_while_a_sandbox_is_known_to_run(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, using: Using, api: Database
) -> None:
    """The API's only connection is taken, and commands continue; later the row is read."""
    made = await living.create(caller, NANO)
    async with api.no_tenant() as tx:
        await tx.flush()
        assert await using.processes(caller, made.id) == (PROCESS,)
        living.places.forget(caller.tenant_id, made.id)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await using.processes(caller, made.id)


async def test_what_the_door_says_of_a_process_is_no_end_of_the_sandbox(
    caller: Caller, node: PlayedNode, living: LivingSandboxes, using: Using
) -> None:
    made = await living.create(caller, NANO)
    with pytest.raises(NotFound, match="no such process"):
        await using.signal(caller, made.id, 7, 9)
    assert await using.processes(caller, made.id) == (PROCESS,)


async def test_a_node_that_knows_no_sandbox_whose_row_runs_is_told_as_it_says(
    caller: Caller, worker: Database, living: LivingSandboxes, using: Using, tmp_path: Path
) -> None:
    """This happens for a moment after it ended there, before its row says so."""
    async with played_node(worker, tmp_path):
        made = await living.create(caller, NANO)
    (tmp_path / "door.sock").unlink(missing_ok=True)
    async with played_node(worker, tmp_path):
        with pytest.raises(SandboxEnded):
            await using.processes(caller, made.id)


async def test_a_sandbox_that_did_not_start_is_no_fault_of_the_callers(
    caller: Caller, node: PlayedNode, living: LivingSandboxes
) -> None:
    """The row says what went wrong on the node, for the operator and its owner."""
    node.fails = LaunchFailed("the container did not start")
    with pytest.raises(SandboxNotStarted, match="the container did not start") as caught:
        await living.create(caller, NANO)
    assert caught.value.reason == "start_failed"
    (row,) = await living.list_some(caller, SandboxListing(limit=10))
    assert (row.reason, row.detail) == (EndReason.START_FAILED, "the container did not start")
