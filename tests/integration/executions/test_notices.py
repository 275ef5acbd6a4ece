"""A worker's notice of an end answers the caller who waits, and nobody else's word does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import pytest
from pydantic import SecretStr, TypeAdapter
from redis.asyncio import Redis

from runner.audit.events import Origin, body
from runner.auth.caller import Caller
from runner.base.settings import Settings
from runner.base.signing import Signer
from runner.egress.policy import load_ceiling
from runner.embedded.services import Services
from runner.executions import notices, read, submit
from runner.executions.admission import Admission
from runner.executions.notices import EndNotice, EndNotices
from runner.executions.order import Order
from runner.executions.read import Seen
from runner.executions.submit import Submitting
from runner.node.runs.attempt import Attempt
from runner.node.runs.finish import Finisher
from runner.node.runs.recorder import Recorder
from runner.node.runs.start import Start
from runner.queue.changes import CHANNEL, MOST_NOTICE, Changes, News
from runner.queue.doorbell import Doorbell
from runner.quotas.sizes import load_sizes
from runner.sandboxes.catalogue import Catalogue
from runner.secrets.envelope import new_key
from runner.secrets.keyring import KeyFile, KeyRing
from runner.store import attempts, executions, scheduling
from runner.store.attempts import Times
from runner.store.db import Database
from runner.store.scheduling import Claimed
from runner.tenants.tenancy import create_key
from runner.words.execution import Output, Result, Stream, Usage
from runner.words.ids import new_id
from runner.words.principal import Principal, PrincipalKind, Role
from runner.words.sandbox import Isolation
from runner.words.states import Reason, State
from tests.integration.store.conftest import LEASE, SUBMITTED, of_a_module

WAIT_S = 30.0
DONE = Result(
    state=State.SUCCEEDED,
    reason=Reason.COMPLETED,
    detail="",
    exit_code=0,
    signal=None,
    stdout=Output(5, truncated=False),
    stderr=Output(0, truncated=False),
    usage=Usage(wall_s=0.25, cpu_s=0.125, memory_peak_bytes=1 << 20),
    image_digest="sha256:1",
    profile_hash="sha256:2",
)
FAILED = replace(DONE, state=State.FAILED, reason=Reason.EXIT_NONZERO, exit_code=3)
SAID = "printed by a tenant's program"
ORDER = Order(code=f"print({SAID!r})", language="python", size="nano")
NOTICES = EndNotices(KeyRing({"some": new_key()}))
LONG_AGO = datetime(2001, 2, 3, tzinfo=UTC)
Wrote: TypeAlias = Mapping[Stream, bytes]
SAYS: Wrote = {Stream.STDOUT: SAID.encode()}


@dataclass
class World:
    """An API that waits and a worker that ends executions, with a real PostgreSQL and Redis."""

    api: Database
    worker: Database
    changes: Changes
    submitting: Submitting
    finisher: Finisher
    redis: "Redis"
    caller: Caller
    read: list[UUID] = field(default_factory=list)
    """The executions that the API has read from PostgreSQL while somebody waited."""

    async def answered(
        self,
        result: Result = DONE,
        wrote: Wrote = SAYS,
        *,
        order: Order = ORDER,
        meanwhile: "Callable[[World, Attempt], Awaitable[None]] | None" = None,
    ) -> Seen:
        """Submit, end it as a worker does, and return what the caller who waits is answered."""
        waiting = asyncio.create_task(self.submitting.submit(self.caller, order, wait_s=WAIT_S))
        claimed = await self._claimed(waiting)
        request, claim = claimed.request(), claimed.claim
        recorder = Recorder(
            database=self.worker, changes=self.changes, claim=claim, bounds=request.run.bounds
        )
        start = Start(lambda: body(claim.tenant_id, SUBMITTED))
        await start.begin()
        for stream, chunk in wrote.items():
            await recorder.add(stream, chunk)
        attempt = Attempt(claim, request, recorder, start=start)
        if meanwhile is not None:
            await meanwhile(self, attempt)
        await recorder.close()
        await self.finisher.finish(attempt, result)
        return await waiting

    async def _claimed(self, waiting: "asyncio.Task[Seen]") -> Claimed:
        async with asyncio.timeout(WAIT_S):
            while not waiting.done():
                found = await scheduling.claim(self.worker, node="n", instance="i", lease=LEASE)
                if isinstance(found, Claimed):
                    return found
                await asyncio.sleep(0.01)
        raise AssertionError(f"it was answered before it was claimed: {await waiting}")

    async def stored(self, seen: Seen) -> Seen:
        """Return the same execution as anybody else reads it."""
        return await read.read(self.api, self.caller, seen.execution.id)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Services]:
    """Return services of this module alone: other tests' executions would be claimed."""
    with of_a_module() as running:
        yield running


@pytest.fixture
async def world(
    postgres: Services, owner: Database, api: Database, worker: Database, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:  # fmt: skip
    """Return the two, and a new tenant's caller."""
    url, settings = SecretStr(postgres.redis_url), Settings()
    sizes, name = load_sizes(settings.profiles_path), f"notices-{new_id()}"
    made = await create_key(
        owner, tenant=name, role=Role.OWNER, name="test", max_limits=sizes["large"]
    )
    principal = Principal(made.tenant_id, new_id(), PrincipalKind.KEY, "test", Role.DEVELOPER)
    async with (
        Changes(url) as changes,
        Doorbell(url) as doorbell,
        Redis.from_url(postgres.redis_url) as redis,
    ):
        catalogue = Catalogue(
            sizes=sizes,
            images={"python": frozenset({"python"})},
            isolations=(Isolation.CONTAINER,),
            egress_ceiling=load_ceiling(settings.profiles_path),
        )
        world = World(
            api,
            worker,
            changes,
            Submitting(api, doorbell, changes, Admission(api, most=100), catalogue, NOTICES),
            Finisher(
                database=worker,
                changes=changes,
                notices=NOTICES,
                signer=Signer.open(tmp_path),
                node="n",
            ),
            redis,
            Caller(principal, Origin(ip="203.0.113.7")),
        )

        async def counted(database: Database, caller: Caller, id_: UUID) -> Seen:
            world.read.append(id_)
            return await read.read(database, caller, id_)

        monkeypatch.setattr(submit, "read", counted)
        await subscribed(changes)
        yield world


async def subscribed(changes: Changes) -> None:
    """Wait until announcements arrive: when the subscription begins, everybody looks once."""
    id_ = new_id()
    async with asyncio.timeout(WAIT_S):
        with changes.watch(id_) as watch:
            while not await watch.wait(0.1):
                changes.announce(id_, News.ENDED)


@asynccontextmanager
async def overheard(world: World) -> AsyncIterator[list[bytes]]:
    """Return what is said on the channel inside the context; complete after it."""
    heard: list[bytes] = []
    async with world.redis.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.subscribe(CHANNEL)
        await subscription.get_message(timeout=5)
        yield heard
        while (message := await subscription.get_message(timeout=1)) is not None:
            heard.append(message["data"])


# ---- What is told is what is stored ------------------------------------------------------------

ENDS: dict[str, tuple[Result, Wrote]] = {
    "a text": (DONE, SAYS),
    "nothing": (DONE, {}),
    "bytes that are no text": (DONE, {Stream.STDOUT: b"\0\xff\xfe", Stream.STDERR: b"\x80"}),
    "a failure": (FAILED, {Stream.STDERR: "schlug fehl: \u5931\u6557".encode()}),
    "what was refused": (replace(DONE, artifacts_refused=("a: too many",)), {}),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_caller_who_waits_is_answered_as_if_it_had_been_read(
    world: World, end: str
) -> None:
    """Nothing is read for that."""
    seen = await world.answered(*ENDS[end])
    assert world.read == []
    assert seen.has_ended
    assert seen == await world.stored(seen)


async def test_every_part_of_a_request_is_in_the_answer(world: World) -> None:
    order = replace(
        ORDER,
        limits={"timeout_s": 3, "output_kb": 7},
        metadata={"run": "seven"},
        env={"A": "b"},
        loaded=False,
        output_keep="head_and_tail",
    )
    seen = await world.answered(order=order)
    assert world.read == []
    assert seen == await world.stored(seen)
    assert seen.execution.metadata == {"run": "seven"}


async def test_a_cancellation_that_came_too_late_is_in_the_answer(world: World) -> None:
    async def cancelled(world: World, attempt: Attempt) -> None:
        async with world.api.tenant(world.caller.tenant_id) as tx:
            await executions.cancel(tx, attempt.claim.execution_id)

    seen = await world.answered(meanwhile=cancelled)
    assert world.read == []
    assert seen.execution.cancel_requested_at is not None
    assert seen == await world.stored(seen)


async def test_output_that_was_stored_before_the_end_is_read(world: World) -> None:
    """Its worker does not have all of it any more."""

    async def written(world: World, attempt: Attempt) -> None:
        claim, recorder, start = attempt.claim, attempt.recorder, attempt.start
        assert start is not None
        recorder.begin(await attempts.start(world.worker, claim, LEASE, start.begun()))
        start.found()
        await recorder.add(Stream.STDOUT, b", early")
        assert recorder._timer is not None
        await asyncio.wait_for(recorder._timer, WAIT_S)
        await recorder.add(Stream.STDOUT, b", late")

    seen = await world.answered(meanwhile=written)
    assert world.read == [seen.execution.id]
    assert seen == await world.stored(seen)
    assert seen.output is not None
    assert seen.output[Stream.STDOUT].raw == SAYS[Stream.STDOUT] + b", early, late"


async def test_long_output_is_read(world: World) -> None:
    """Each process that listens receives each notice, so notices are short."""
    wrote = {Stream.STDOUT: b"x" * MOST_NOTICE}
    async with overheard(world) as heard:
        seen = await world.answered(wrote=wrote)
    assert world.read == [seen.execution.id]
    assert seen == await world.stored(seen)
    assert max(map(len, heard)) < 100


async def test_redis_learns_nothing_from_a_notice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with overheard(world) as heard:
        await world.answered()
    assert not [each for each in heard if b"completed" in each]
    # The control: without the seal, it is there to read.
    monkeypatch.setattr(notices, "seal", lambda _, plain, **__: plain)
    async with overheard(world) as heard:
        await world.answered()
    assert [each for each in heard if b"completed" in each]


async def test_redis_does_not_learn_how_much_was_written(world: World) -> None:
    """A notice has whole KiB, and most have one. The control has two."""
    lengths = []
    for wrote in (0, 1, 200, 1000):
        async with overheard(world) as heard:
            await world.answered(wrote={Stream.STDOUT: b"x" * wrote} if wrote else {})
        lengths.append(max(map(len, heard)))
    assert lengths[0] == lengths[1] == lengths[2] == lengths[3] - 1024


# ---- What others say changes no answer ----------------------------------------------------------

FALSE = EndNotice(1, Times(LONG_AGO, LONG_AGO, LONG_AGO), replace(FAILED, exit_code=99), {}, ())
Forge: TypeAlias = Callable[[UUID, UUID], bytes]


def sealed(tenant: UUID, id_: UUID, by: EndNotices = NOTICES) -> bytes:
    """Return the false end, sealed for this execution."""
    notice = by.sealed(tenant, id_, FALSE)
    assert notice is not None
    return notice


def unsealed(_: UUID, __: UUID) -> bytes:
    """Return the false end as anybody can write it."""
    return TypeAdapter(EndNotice).dump_json(FALSE)


def of_another_key(tenant: UUID, id_: UUID) -> bytes:
    """Return what somebody seals who does not have the deployment's key."""
    return sealed(tenant, id_, EndNotices(KeyRing({"other": new_key()})))


def of_another_execution(tenant: UUID, _: UUID) -> bytes:
    """Return what was sealed for another execution of the tenant."""
    return sealed(tenant, new_id())


def of_another_tenant(_: UUID, id_: UUID) -> bytes:
    """Return what was sealed for another tenant's execution."""
    return sealed(new_id(), id_)


def with_another_bit(tenant: UUID, id_: UUID) -> bytes:
    """Return what the deployment sealed, with its last bit turned."""
    genuine = sealed(tenant, id_)
    return genuine[:-1] + bytes([genuine[-1] ^ 1])


def nothing(_: UUID, __: UUID) -> bytes:
    """Return no bytes at all."""
    return b""


def too_long(_: UUID, __: UUID) -> bytes:
    """Return more bytes than a notice has."""
    return bytes(MOST_NOTICE + 1)


FORGERIES: tuple[Forge, ...] = (
    unsealed, of_another_key, of_another_execution, of_another_tenant, with_another_bit, nothing,
    too_long,
)  # fmt: skip


class Forger(EndNotices):
    """Says this in place of a worker's notice, as anybody can who reaches Redis."""

    def __init__(self, forge: Forge) -> None:
        super().__init__(KeyRing({}))
        self._forge = forge

    def sealed(self, tenant_id: UUID, execution_id: UUID, _: EndNotice) -> bytes | None:
        """Return the forgery."""
        return self._forge(tenant_id, execution_id)


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda each: each.__name__)
async def test_a_forged_notice_changes_no_answer(world: World, forge: Forge) -> None:
    """It costs the look into PostgreSQL that the notice would have saved."""
    world.finisher._notices = Forger(forge)
    seen = await world.answered()
    assert world.read == [seen.execution.id]
    assert seen == await world.stored(seen)


async def test_if_seals_were_not_checked_a_forged_notice_would_be_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(notices, "unseal", lambda _, text, **__: text)
    world.finisher._notices = Forger(unsealed)
    seen = await world.answered()
    assert seen.execution.result is not None
    assert seen.execution.result.exit_code == 99


async def test_without_a_key_nothing_is_told_and_everything_is_read(world: World) -> None:
    world.finisher._notices = EndNotices(KeyFile(Path("/nonexistent")))
    seen = await world.answered()
    assert world.read == [seen.execution.id]


async def test_a_notice_opens_while_the_key_that_sealed_it_is_in_the_ring(world: World) -> None:
    """A worker that has not read a rotated ring yet seals with the key before."""
    tenant, id_, older, newer = new_id(), new_id(), new_key(), new_key()
    notice = sealed(tenant, id_, EndNotices(KeyRing({"older": older})))
    rotated = EndNotices(KeyRing({"newer": newer, "older": older}))
    assert rotated.opened(tenant, id_, notice) == FALSE
    assert EndNotices(KeyRing({"newer": newer})).opened(tenant, id_, notice) is None
