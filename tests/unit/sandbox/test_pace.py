"""A sandbox gets its share of the event loop and no more, whatever its pieces are."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from runner.protocol.events import EVENTS, Counted
from runner.protocol.frames import PIECE, SANDBOX, Data, frame
from runner.protocol.living_commands import ReadFile
from runner.sandbox.engine.docker import Engine
from runner.sandbox.guest import pace as pace_module
from runner.sandbox.guest.channel import Channel, Connection
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.pace import SHARE, TENANT_SHARE, WAKING_S, Pace, TenantPaces
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.stream import Stream
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.guards import Guards
from runner.sandbox.observe.keeper import Keeper
from runner.sandbox.observe.watchdog import Watchdog

FOR_S = 1.5
SUMS, SUMS_S = 10**6, 0.16
"""So many steps of a loop, and the seconds that they take the core which `pace` assumes."""


FLOODS = {
    "one output": frame(b"O", SANDBOX, b"x") * 1000,
    "two outputs": (frame(b"O", SANDBOX, b"x") + frame(b"E", SANDBOX, b"y")) * 500,
    "events": frame(b"C", SANDBOX, EVENTS.encode(Counted(stdout=1, stderr=1))) * 200,
}


@asynccontextmanager
async def flooded(flood: bytes) -> AsyncIterator[Channel]:
    """Return a channel whose other end writes as fast as it can, from a thread."""
    ours, theirs = socket.socketpair()

    def write() -> None:
        try:
            while True:
                theirs.sendall(flood)
        except OSError:
            pass

    channel = Channel(*await asyncio.open_connection(sock=ours))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield channel
    finally:
        theirs.shutdown(socket.SHUT_RDWR)
        channel.close()
        await asyncio.to_thread(writer.join)
        theirs.close()


async def share_of(flood: bytes) -> float:
    """Read the flood for a while; return how much of the loop's time that took."""
    async with flooded(flood) as channel:

        async def read() -> None:
            while True:
                await channel.read()

        return await share_while(read())


async def share_while(reading: Coroutine[object, object, None]) -> float:
    """Read for a while; return how much of the loop's time that took."""
    task = asyncio.create_task(reading)
    began, used = time.monotonic(), time.thread_time()
    await asyncio.sleep(FOR_S)
    share = (time.thread_time() - used) / (time.monotonic() - began)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return share


def bound() -> float:
    """Return the share that a flood may take; more on a core that is slower than is assumed.

    Raises AssertionError where a flood without a pace would not take more than that either.
    """
    began = time.thread_time()
    sum(number * number for number in range(SUMS))
    share = 2 * SHARE * max(1.0, (time.thread_time() - began) / SUMS_S)
    assert share < 1, "this core is too slow to say anything"
    return share


@pytest.mark.alone
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_small_frames_takes_a_share_of_the_loop(kind: str) -> None:
    assert await share_of(FLOODS[kind]) < bound()


@asynccontextmanager
async def read_as_a_file(size: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stream]:
    """Return a stream on which pieces of this size come as fast as a thread can write them."""
    monkeypatch.setattr(Stream, "_cost", lambda *_: 0)  # no window holds them up
    ours, theirs = socket.socketpair()
    flood = frame(b"D", 1, b"x" * size) * (2**18 // size)

    def write() -> None:
        try:
            while True:
                theirs.sendall(flood)
        except OSError:
            pass

    reader, streams_writer = await asyncio.open_unix_connection(sock=ours)
    mux = Mux(Connection(reader, streams_writer, b"", 1), Patience(1))
    stream = mux.open(ReadFile("a", 0, -1))
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield stream
    finally:
        theirs.shutdown(socket.SHUT_RDWR)
        mux.close()
        await asyncio.to_thread(writer.join)
        theirs.close()


@pytest.mark.alone
@pytest.mark.parametrize("size", [16, 4096, PIECE])
async def test_a_file_however_it_is_cut_takes_a_share_of_the_loop(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a pace, each of them takes all there is."""
    async with read_as_a_file(size, monkeypatch) as stream:

        async def read() -> None:
            async for _ in stream:
                pass

        assert await share_while(read()) < bound()


@pytest.mark.alone
async def test_without_a_pace_it_takes_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control. The flooding thread also needs some of the processor time."""
    paced = await share_of(FLOODS["events"])
    monkeypatch.setattr(Pace, "charge", lambda *_: None)
    assert await share_of(FLOODS["events"]) > 2 * paced


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([(b"O", 1)] * 5, [(b"O", 5)]),
        ([(b"O", 2), (b"O", 3), (b"E", 4), (b"O", 5)], [(b"O", 5), (b"E", 4), (b"O", 5)]),
        ([(b"O", PIECE), (b"O", 1)], [(b"O", PIECE), (b"O", 1)]),
    ],
    ids=["one kind", "two kinds", "no more than a piece"],
)
async def test_pieces_that_have_come_together_are_one(
    sent: list[tuple[bytes, int]], expected: list[tuple[bytes, int]]
) -> None:
    """They are of one kind, in order, and never larger than a piece may be."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours))
    frames = b"".join(frame(kind, SANDBOX, kind * size) for kind, size in sent)
    writing = asyncio.create_task(asyncio.to_thread(theirs.sendall, frames))
    try:
        heard: list[Data] = []
        while sum(len(each.payload) for each in heard) < sum(size for _, size in sent):
            message = await channel.read()
            assert isinstance(message, Data)
            heard.append(message)
        await writing
        got = [(each.kind, len(each.payload)) for each in heard]
        if len(frames) < PIECE:
            assert got == expected
        assert max(size for _, size in got) <= PIECE
        joined: Callable[[bytes], bytes] = lambda kind: b"".join(  # noqa: E731 - said once
            each.payload for each in heard if each.kind == kind
        )
        for kind in (b"O", b"E"):
            assert joined(kind) == kind * sum(size for each, size in sent if each == kind)
    finally:
        channel.close()
        theirs.close()


# ---- A tenant's sandboxes ---------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is moved on."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now


def taken(paces: list[Pace], clock: Clock) -> float:
    """Return which share of the loop is taken by sandboxes that never stop to write."""
    used, seconds = 0.0, 10.0
    rests_until = [0.0] * len(paces)
    end = clock.now + seconds
    while clock.now < end:
        clock.now += WAKING_S
        for number, pace in enumerate(paces):
            if clock.now < rests_until[number]:
                continue
            pace.charge(WAKING_S)
            used += WAKING_S
            clock.now += WAKING_S
            if pace.overdrawn:
                rests_until[number] = clock.now + pace.rest_s
    return used / seconds


@pytest.mark.parametrize("many", [1, 5, 50])
def test_a_tenants_sandboxes_take_its_share_of_the_loop_together(
    many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    paces = [Pace() for _ in range(many)]
    alone = taken(paces, clock)
    tenant = TenantPaces().of("some")
    for each in paces:
        each.within = tenant
    together = taken(paces, clock)
    if many == 1:
        assert together == pytest.approx(SHARE, rel=0.2)
    else:
        assert together == pytest.approx(TENANT_SHARE, rel=0.2)
        # The control.
        assert alone > 2 * TENANT_SHARE


def test_who_waited_for_its_tenants_other_sandboxes_waits_no_longer_than_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    paces = TenantPaces()
    busy, quiet = Pace(), Pace()
    busy.within = quiet.within = paces.of("some")
    busy.charge(1)
    assert quiet.overdrawn
    assert quiet.rest_s > 1
    clock.now += 60
    assert quiet.rest_s == 0
    assert not quiet.overdrawn


def test_containers_of_a_tenant_share_its_pace(tmp_path: Path) -> None:
    cgroups = Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path)
    watchdog = Watchdog(cgroups.read, cgroups.kill, cgroups.processes)
    guards = Guards(cgroups, watchdog, Keeper(cgroups, watchdog))
    paces = TenantPaces()

    def container(name: str, tenant: str) -> Container:
        made = Container(
            name,
            tmp_path,
            # Docker is not asked for anything.
            engine=cast("Engine", None),
            guards=guards,
            paces=paces,
            facts=None,
            on_removed=lambda: None,
        )
        made.assign(tenant)
        return made

    one, two, other = container("a", "some"), container("b", "some"), container("c", "other")
    assert one.pace is not two.pace
    assert one.pace.within is two.pace.within
    assert one.pace.within is not other.pace.within


async def test_a_connection_that_lives_on_keeps_its_pace() -> None:
    """Bytes that come then are charged to the tenant, too."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours))
    charged = asyncio.Event()

    class Tenant(Pace):
        def take(self, seconds: float, now: float) -> None:
            super().take(seconds, now)
            charged.set()

    channel.pace.within = Tenant()
    mux = Mux(channel.release(), Patience(1))
    try:
        theirs.sendall(b"x")
        async with asyncio.timeout(60):
            await charged.wait()
    finally:
        mux.close()
        theirs.close()
