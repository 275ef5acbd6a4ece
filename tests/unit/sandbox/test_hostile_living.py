"""The supervisor of a living sandbox, taken over by what runs there: only its sandbox is lost.

Each event, each field and each bound is read from the file of the generation. What is said goes to
the reader that the worker uses, over a pair of sockets; `test_mux.py` tries what has no place on a
stream.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest

from runner.protocol.commands import Ping
from runner.protocol.events import Alive, SupervisorEvent
from runner.protocol.frames import HEADER, PIECE, SANDBOX, frame
from runner.protocol.living import OVERHEAD, WINDOW
from runner.protocol.living_commands import (
    Attach,
    Cancel,
    Dial,
    ForgetProcess,
    ListFiles,
    ListProcesses,
    PackFolder,
    ReadFile,
    StartProcess,
    UnpackFolder,
    WatchFiles,
)
from runner.protocol.living_events import (
    LIVING_EVENTS,
    Archived,
    Connected,
    Done,
    FileFound,
    FilesChanged,
    FilesListed,
    Finished,
    OutputDrained,
    OutputLost,
    ProcessExited,
    ProcessNotStarted,
    ProcessStarted,
    Watching,
)
from runner.sandbox.guest import filing, patience
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.guest.pace import Pace
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.processes import GuestProcess
from runner.words.errors import Conflict, ProtocolViolation
from runner.words.execution import Program
from tests.support.living_protocol import ENTRY, EVENTS, EXAMPLES, EXITED, KNOWN, spoilt
from tests.support.peers import Peer, played
from tests.support.protocol import DOCUMENT, Spoilt

DONE = Done(more=False)
TRUE = Program(("true",), {})


@asynccontextmanager
async def held() -> AsyncIterator[tuple[LivingSandbox, Peer]]:
    """Return a living sandbox as its node holds it, and who plays the supervisor."""
    async with played() as (mux, peer):
        residence = Residence("sandbox", "container", "0" * 64, "image", "profile")
        # There is no container: none of this gets as far as that.
        yield LivingSandbox(residence, cast("Container", None), mux, Patience(20)), peer


async def started(living: LivingSandbox, peer: Peer) -> GuestProcess:
    """Return a process that the supervisor says it has started."""
    starting = asyncio.create_task(living.start(TRUE))
    number = await peer.hears(StartProcess)
    await peer.frame()
    peer.says(number, ProcessStarted())
    return await starting


# Every event and every field.


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_as_it_should_be_is_taken(name: str) -> None:
    """The control of what follows."""
    assert LIVING_EVENTS.decode(LIVING_EVENTS.encode(EXAMPLES[name])) == EXAMPLES[name]


def test_an_event_with_one_wrong_field_is_not_taken() -> None:
    """The error names the event and the field."""
    tried = set()
    for wrong in spoilt():
        with pytest.raises(ProtocolViolation) as caught:
            LIVING_EVENTS.decode(wrong.payload)
        assert wrong.told in caught.value.detail, wrong
        tried.add((wrong.event, wrong.field))
    assert {
        (name, field) for name, schema in EVENTS.items() for field in schema["properties"]
    } <= tried


@pytest.mark.parametrize("stream", [SANDBOX, 1])
@pytest.mark.parametrize(
    "wrong", [each for each in spoilt() if each.how in {"missing", "a field more"}], ids=str
)
async def test_a_spoilt_event_gives_the_sandbox_up(wrong: Spoilt, stream: int) -> None:
    """Wherever it is said."""
    async with played() as (mux, peer):
        mux.open(ReadFile("a", 0, -1))
        peer.sends(frame(b"C", stream, wrong.payload))
        assert wrong.told in (await mux.lost).detail


@pytest.mark.parametrize("kind", DOCUMENT["frame"]["kinds"])
@pytest.mark.parametrize("length", [0, 2**18 + 1, 2**32 - 1])
async def test_a_frame_of_a_wrong_length_is_refused_by_its_header(kind: str, length: int) -> None:
    """No memory is set aside for it, and nothing more of it is awaited."""
    async with played() as (mux, peer):
        peer.sends(HEADER.pack(kind.encode(), 1, length))
        assert f"{kind}' with wrong length" in (await mux.lost).detail


# Turns that are not its own.

Lie = Callable[[Peer, int], object]


@pytest.mark.parametrize(
    "lie",
    [
        lambda peer, number: peer.says(number, ProcessStarted()),
        lambda peer, number: peer.says(number, ProcessNotStarted("ENOENT")),
        lambda peer, number: peer.says(number, EXITED, EXITED),
        lambda peer, number: peer.says(number, DONE),
        lambda peer, number: peer.pieces(number, b"O", b"x"),
        lambda peer, number: peer.pieces(number, b"D", b"x"),
    ],
)
async def test_nonsense_about_a_process_gives_the_sandbox_up(lie: Lie) -> None:
    async with held() as (living, peer):
        process = await started(living, peer)
        lie(peer, process.number)
        assert type(await living.lost) is ProtocolViolation
        with pytest.raises(ProtocolViolation):
            await living.start(TRUE)


async def test_whoever_waits_for_a_process_hears_that_the_sandbox_is_lost() -> None:
    async with held() as (living, peer):
        process = await started(living, peer)
        peer.says(process.number, ProcessStarted())
        with pytest.raises(ProtocolViolation, match="out of turn"):
            await process.exited


async def test_a_process_as_it_should_be_is_believed() -> None:
    """The control."""
    async with held() as (living, peer):
        process = await started(living, peer)
        peer.says(process.number, EXITED)
        assert await process.exited == EXITED
        living.forget(process.number)
        assert await peer.hears(ForgetProcess) == process.number
        peer.says(process.number, DONE)
        pinging = asyncio.create_task(living.ping())
        await peer.hears(Ping)
        peer.says(SANDBOX, Alive())
        await pinging


async def test_nothing_comes_after_a_forgotten_process() -> None:
    async with held() as (living, peer):
        process = await started(living, peer)
        living.forget(process.number)
        peer.says(process.number, EXITED, DONE, EXITED)
        assert "no place on stream" in (await living.lost).detail


@pytest.mark.parametrize(
    "said",
    [
        (b"O", b"x", OutputDrained(2)),
        (b"O", b"x", OutputDrained(0)),
        (b"O", b"x", OutputLost(5), OutputDrained(1)),
        (b"O", b"x", DONE),
    ],
)
async def test_output_that_does_not_add_up_is_not_believed(
    said: tuple[bytes, bytes, *tuple[SupervisorEvent, ...]],
) -> None:
    kind, content, *events = said
    async with held() as (living, peer):
        process = await started(living, peer)
        async with process.attach() as attached:
            number = await peer.hears(Attach)
            peer.pieces(number, kind, content)
            peer.says(number, *events)
            with pytest.raises(ProtocolViolation):
                [each async for each in attached]
        assert living.lost.done()


async def test_one_process_cannot_be_given_the_output_of_another() -> None:
    """Messages on a stream reach the client that opened it, and nobody else."""
    async with held() as (living, peer):
        one, other = await started(living, peer), await started(living, peer)
        async with one.attach() as first, other.attach() as second:
            numbers = [await peer.hears(Attach), await peer.hears(Attach)]
            peer.pieces(numbers[1], b"O", b"of the other")
            peer.says(numbers[1], OutputDrained(12))
            peer.says(numbers[0], OutputDrained(0))
            assert [each async for each in first] == []
            assert len([each async for each in second]) == 1


@pytest.mark.parametrize(
    "events",
    [
        (FilesListed((ENTRY,)),),
        (Connected(),),
        (Finished(),),
        (FileFound(ENTRY), FileFound(ENTRY)),
        (Watching(),),
        (OutputLost(1),),
        (ProcessExited(0, None, 0),),
        (Alive(),),
        (KNOWN,),
    ],
)
async def test_an_answer_to_something_else_gives_the_sandbox_up(
    events: tuple[SupervisorEvent, ...],
) -> None:
    async with held() as (living, peer):

        async def read() -> None:
            async with living.files.read("a") as file:
                [chunk async for chunk in file]

        reading = asyncio.create_task(read())
        peer.says(await peer.hears(ReadFile), *events)
        with pytest.raises(ProtocolViolation):
            await reading
        assert living.lost.done()


async def test_more_of_a_file_than_was_asked_for_is_not_taken() -> None:
    async with held() as (living, peer):

        async def read() -> None:
            async with living.files.read("a", length=5) as file:
                [chunk async for chunk in file]

        reading = asyncio.create_task(read())
        number = await peer.hears(ReadFile)
        peer.says(number, FileFound(ENTRY))
        peer.pieces(number, b"D", b"123456")
        with pytest.raises(ProtocolViolation):
            await reading


async def test_more_entries_than_were_asked_for_are_not_taken() -> None:
    async with held() as (living, peer):
        listing = asyncio.create_task(living.files.list("a", most=300))
        number = await peer.hears(ListFiles)
        peer.says(number, FilesListed((ENTRY,) * 256), FilesListed((ENTRY,) * 45))
        with pytest.raises(ProtocolViolation):
            await listing


# Programs of the same user can stop tar.


@pytest.mark.parametrize("what", ["nothing comes", "nothing is taken", "it does not end"])
async def test_an_archive_that_does_not_move_is_given_up(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that move before that are passed on. The sandbox itself is not lost."""
    monkeypatch.setattr(patience, "ARCHIVE_S", 0.01)
    async with held() as (living, peer), asyncio.timeout(60):
        passed = list[bytes]()

        async def pack() -> None:
            async with living.archives.pack("a") as opened:
                async for chunk in opened:
                    passed.append(chunk)

        async def unpack() -> None:
            pieces = [b"x" * PIECE] * (8 if what == "nothing is taken" else 1)
            await living.archives.unpack("a", of(pieces))

        work = asyncio.create_task(pack() if what == "nothing comes" else unpack())
        if what == "nothing comes":
            number = await peer.hears(PackFolder)
            peer.says(number, FileFound(ENTRY))
            peer.pieces(number, b"D", b"some")
        else:
            peer.says(await peer.hears(UnpackFolder), FileFound(ENTRY))
        with pytest.raises(Conflict, match="has moved no byte"):
            await work
        assert b"".join(passed) == (b"some" if what == "nothing comes" else b"")
        assert not living.lost.done()


async def test_an_archive_of_a_frozen_sandbox_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "ARCHIVE_S", 0.005)
    async with held() as (living, peer), asyncio.timeout(60):
        living._mux.frozen = True

        async def pack() -> bytes:
            async with living.archives.pack("a") as opened:
                return b"".join([chunk async for chunk in opened])

        packing = asyncio.create_task(pack())
        number = await peer.hears(PackFolder)
        peer.says(number, FileFound(ENTRY))
        done, _ = await asyncio.wait({packing}, timeout=0.5)
        assert not done
        peer.pieces(number, b"D", b"all")
        peer.says(number, Archived(exit_code=0, signal=None, said=""))
        assert await packing == b"all"


async def of(pieces: list[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces."""
    for piece in pieces:
        yield piece


# More than there is room for.


async def test_a_listing_without_end_is_cut_and_nothing_of_it_is_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each message is passed on before the next one comes; the supervisor is told to stop."""
    monkeypatch.setattr(filing, "MOST_TEXT", 10 * 4096)
    entries = (replace(ENTRY, kind="file", path="x" * 4096),) * 3
    async with held() as (living, peer):
        opening = living.files.listed("a", depth=64)
        listing = await opening.__aenter__()
        number, passed_on = await peer.hears(ListFiles), 0
        peer.says(number, FilesListed(entries))
        async for some in listing:
            passed_on += len(some)
            peer.says(number, FilesListed(entries))
        assert (passed_on, listing.more) == (10, True)
        await opening.__aexit__(None, None, None)
        assert await peer.hears(Cancel) == number


async def test_a_path_that_cannot_be_asked_for_is_not_told() -> None:
    async with held() as (living, peer):
        listing = asyncio.create_task(living.files.list("a"))
        number = await peer.hears(ListFiles)
        long, link = replace(ENTRY, path="x" * 4097), replace(ENTRY, kind="link", target="x" * 4097)
        peer.says(number, FilesListed((long, link, ENTRY)), DONE)
        found = await listing
        assert ([each.path for each in found.entries], found.more) == ([ENTRY.path], True)


async def test_what_nobody_reads_is_bounded_by_the_window() -> None:
    """Changes that are told without end, as small as they can be."""
    async with held() as (living, peer):
        watch = living.files.watch("a")
        watching = asyncio.create_task(watch.__aenter__())
        number = await peer.hears(WatchFiles)
        peer.says(number, Watching())
        await watching
        change = frame(b"C", number, LIVING_EVENTS.encode(FilesChanged((), lost=True)))
        fits = -(-WINDOW // (len(change) - HEADER.size + OVERHEAD))
        peer.sends(change * fits)
        pinging = asyncio.create_task(living.ping())
        await peer.hears(Ping)
        peer.says(SANDBOX, Alive())
        await pinging
        peer.sends(change)
        assert "more than it was granted" in (await living.lost).detail


async def test_processes_that_are_told_of_without_end_give_the_sandbox_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Pace, "charge", lambda *_: None)
    async with held() as (living, peer):
        listing = asyncio.create_task(living.list_processes())
        await peer.hears(ListProcesses)
        told = json.loads(LIVING_EVENTS.encode(KNOWN))
        for number in range(1, 16_400):
            payload = json.dumps({**told, "process": number}).encode()
            peer.sends(frame(b"C", SANDBOX, payload))
        with pytest.raises(ProtocolViolation, match="too many"):
            await listing


@pytest.mark.alone
async def test_endless_grants_cost_no_more_than_its_share() -> None:
    """Frames that carry nothing, as fast as they can be sent."""
    async with held() as (living, peer):
        process = await started(living, peer)
        flood = frame(b"W", process.number, b"\0\0\0\1") * 1000
        flooding = asyncio.create_task(_flood(peer, flood))
        began = time.process_time()
        await asyncio.sleep(0.5)
        used = time.process_time() - began
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        assert not living.lost.done()
        assert used < 0.4


async def _flood(peer: Peer, frames: bytes) -> None:
    while True:
        peer.sends(frames)
        await peer.drain()


async def test_nothing_is_read_of_a_port_that_has_finished() -> None:
    async with held() as (living, peer):
        dialled = living.dial(80)
        dialling = asyncio.create_task(dialled.__aenter__())
        number = await peer.hears(Dial)
        peer.says(number, Connected())
        port = await dialling
        peer.pieces(number, b"D", bytes(PIECE))
        peer.says(number, Finished())
        peer.pieces(number, b"D", b"more")
        assert await port.read() == bytes(PIECE)
        assert await port.read() == b""
