"""Many streams on one connection: none waits for another, and what has no place ends them all."""

import asyncio
from collections.abc import Callable

import pytest

from runner.protocol.commands import Ping
from runner.protocol.events import Alive
from runner.protocol.frames import PIECE, SANDBOX, Data, frame
from runner.protocol.living import OVERHEAD, WINDOW
from runner.protocol.living_commands import (
    Attach,
    Cancel,
    Dial,
    EndOfBytes,
    ListFiles,
    ListProcesses,
    ReadFile,
    StatFile,
    WatchFiles,
    WriteFile,
)
from runner.protocol.living_events import (
    Connected,
    Done,
    Entry,
    Failed,
    FileFound,
    FilesListed,
    Finished,
    OutputDrained,
    OutputLost,
    ProcessesListed,
    ProcessExited,
    ProcessKnown,
    Watching,
)
from runner.sandbox.guest import mux as mux_module
from runner.sandbox.guest.channel import Closed
from runner.sandbox.guest.mux import Mux
from runner.words.errors import ProtocolViolation
from tests.support.peers import Peer, played

READ = ReadFile("a", 0, -1)
WRITE = WriteFile("a", 0o644, parents=True)
ATTACH = Attach(process=1, offset=0, follow=True)
ENTRY = Entry("/workspace/a", "file", 1, 0o644, 0, "")
FOUND = FileFound(ENTRY)
DONE = Done(more=False)


def known(number: int) -> ProcessKnown:
    """Return what is told of a process that runs."""
    return ProcessKnown(
        number,
        label="",
        terminal=False,
        stdin=False,
        output=0,
        ended=False,
        exit_code=None,
        signal=None,
    )


async def all_is_heard(mux: Mux, peer: Peer) -> None:
    """Wait until the node has taken all that its peer has said so far."""
    pinging = asyncio.create_task(mux.ping())
    await peer.hears(Ping)
    peer.says(SANDBOX, Alive())
    await pinging


async def test_each_command_has_the_next_stream_and_hears_what_is_said_there() -> None:
    async with played() as (mux, peer):
        first, second = mux.open(READ), mux.open(StatFile("b"))
        assert [await peer.hears(ReadFile), await peer.hears(StatFile)] == [1, 2]
        peer.says(2, FOUND, DONE)
        peer.says(1, FOUND)
        assert [message async for message in second] == [FOUND, DONE]
        assert await first.read() == FOUND


async def test_pings_are_answered_in_their_order_also_if_one_is_not_waited_for() -> None:
    async with played() as (mux, peer):
        given_up = asyncio.create_task(mux.ping())
        await peer.hears(Ping)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        second = asyncio.create_task(mux.ping())
        await peer.hears(Ping)
        peer.says(SANDBOX, Alive())
        await asyncio.sleep(0.05)
        assert not second.done()
        peer.says(SANDBOX, Alive())
        await second


async def test_a_reader_who_does_not_read_stops_nobody_else() -> None:
    """Its window is used up, and the other stream's is not."""
    async with played() as (mux, peer):
        slow, quick = mux.open(READ), mux.open(READ)
        peer.says(1, FOUND)
        peer.pieces(1, b"D", bytes(WINDOW - PIECE))
        peer.says(2, FOUND)
        peer.pieces(2, b"D", b"quick")
        assert await quick.event(FileFound) == FOUND
        assert await quick.read() == Data(b"D", b"quick")
        assert not slow.ended


async def test_what_is_taken_is_granted_anew_in_large_steps() -> None:
    async with played() as (mux, peer):
        stream = mux.open(READ)
        await peer.hears(ReadFile)
        sent = 0
        for _ in range(3 * WINDOW // PIECE):
            peer.pieces(1, b"D", bytes(PIECE))
            sent += PIECE + OVERHEAD
            assert isinstance(await stream.read(), Data)
        granted = 0
        while sent - granted >= WINDOW // 2:
            stream_granted, more = await peer.granted()
            assert stream_granted == 1
            assert more >= WINDOW // 2
            granted += more
        assert await peer.silent()


async def test_pieces_of_one_kind_are_given_as_one() -> None:
    """But not beyond a frame's length, and never across an event."""
    async with played() as (mux, peer):
        stream = mux.open(ATTACH)
        await peer.hears(Attach)
        peer.pieces(1, b"O", b"a")
        peer.pieces(1, b"O", b"b")
        peer.pieces(1, b"E", b"c")
        peer.says(1, OutputLost(5))
        peer.pieces(1, b"E", b"d")
        peer.says(1, OutputDrained(9))
        await all_is_heard(mux, peer)
        assert [message async for message in stream] == [
            Data(b"O", b"ab"),
            Data(b"E", b"c"),
            OutputLost(5),
            Data(b"E", b"d"),
            OutputDrained(9),
        ]


async def test_no_more_is_sent_than_the_supervisor_grants() -> None:
    async with played() as (mux, peer):
        stream = mux.open(WRITE)
        await peer.hears(WriteFile)
        sending = asyncio.create_task(stream.send(bytes(3 * WINDOW)))
        got = 0
        while got < WINDOW:
            _, _, payload = await peer.frame()
            got += len(payload) + OVERHEAD
        assert await peer.silent()
        assert not sending.done()
        for _ in range(3):
            peer.grants(1, WINDOW)
            while not sending.done() and not await peer.silent(0.05):
                await peer._reader.read(WINDOW)
        assert await sending
        stream.finish()


async def test_a_stream_that_ended_takes_no_more_bytes() -> None:
    """This happens when the disk is full: the sender learns of it, and then reads why."""
    async with played() as (mux, peer):
        stream = mux.open(WRITE)
        await peer.hears(WriteFile)
        sending = asyncio.create_task(stream.send(bytes(2 * WINDOW)))
        peer.says(1, Failed("ENOSPC"))
        assert not await sending
        assert await stream.read() == Failed("ENOSPC")


async def test_leaving_a_stream_cancels_it_and_drops_what_still_comes() -> None:
    """Without a reader, it is granted so that its end can come."""
    async with played() as (mux, peer):
        async with mux.open(READ) as stream:
            await peer.hears(ReadFile)
            peer.says(1, FOUND)
            peer.pieces(1, b"D", bytes(WINDOW - 2 * PIECE))
            await stream.event(FileFound)
            await all_is_heard(mux, peer)
        assert await peer.hears(Cancel) == 1
        assert (await peer.granted())[1] == WINDOW - 2 * PIECE + OVERHEAD * 2
        peer.pieces(1, b"D", bytes(PIECE))
        peer.says(1, DONE)
        await stream.cancel()
        assert stream.ended
        assert not mux.lost.done()


async def test_a_stream_that_has_ended_is_not_cancelled() -> None:
    async with played() as (mux, peer):
        async with mux.open(StatFile("a")) as stream:
            await peer.hears(StatFile)
            peer.says(1, FOUND, DONE)
            assert [message async for message in stream] == [FOUND, DONE]
        assert await peer.silent()


async def test_a_supervisor_that_does_not_end_a_cancelled_stream_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mux_module, "CANCEL_S", 0.2)
    async with played() as (mux, peer):
        async with mux.open(READ):
            await peer.hears(ReadFile)
        assert "did not end a stream in time" in (await mux.lost).detail


async def test_an_end_may_be_late_while_other_things_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But not for ever."""
    monkeypatch.setattr(mux_module, "CANCEL_S", 0.5)
    monkeypatch.setattr(mux_module, "MOST_LATE", 2)
    async with played() as (mux, peer):
        mux.open(WRITE)
        async with mux.open(READ) as stream:
            await asyncio.sleep(0)
        for _ in range(60):
            peer.grants(1, 1)
            await asyncio.sleep(0.01)
        assert not mux.lost.done()
        peer.says(stream.number, DONE)
        async with mux.open(READ):
            await asyncio.sleep(0)
        while not mux.lost.done():
            peer.grants(1, 1)
            await asyncio.sleep(0.01)
        assert "did not end a stream in time" in (await mux.lost).detail


async def test_a_sandbox_that_is_paused_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mux_module, "CANCEL_S", 0.1)
    async with played() as (mux, peer):
        mux.frozen = True
        async with mux.open(READ):
            await peer.hears(ReadFile)
        await asyncio.sleep(0.5)
        assert not mux.lost.done()
        mux.frozen = False
        assert "did not end a stream in time" in (await mux.lost).detail


async def test_the_end_of_the_connection_is_told_to_everybody_who_waits() -> None:
    """Bytes that came before are still read."""
    async with played() as (mux, peer):
        reading, writing = mux.open(READ), mux.open(WRITE)
        peer.says(1, FOUND)
        sending = asyncio.create_task(writing.send(bytes(2 * WINDOW)))
        pinging = asyncio.create_task(mux.ping())
        listing = asyncio.create_task(mux.processes())
        await asyncio.sleep(0.1)
        peer.hang_up()
        assert isinstance(await mux.lost, Closed)
        assert await reading.read() == FOUND
        for work in (reading.read(), sending, pinging, listing, mux.ping()):
            with pytest.raises(Closed):
                await work
        with pytest.raises(Closed):
            mux.open(READ)


async def test_a_list_of_processes_moves_the_next_stream_beyond_all_of_them() -> None:
    async with played() as (mux, peer):
        listing = asyncio.create_task(mux.processes())
        await peer.hears(ListProcesses)
        peer.says(SANDBOX, known(3), known(7), ProcessesListed(next_stream=12))
        assert [each.process for each in await listing] == [3, 7]
        assert mux.open(READ).number == 12


async def test_a_process_may_end_before_a_returning_supervisor_has_listed_it() -> None:
    """And afterwards on its stream alone."""
    async with played(returning=True) as (mux, peer):
        peer.says(3, ProcessExited(0, None, 0))
        listing = asyncio.create_task(mux.processes())
        await peer.hears(ListProcesses)
        peer.says(SANDBOX, ProcessesListed(next_stream=4))
        assert await listing == []
        peer.says(3, ProcessExited(0, None, 0))
        assert "no place on stream 3" in (await mux.lost).detail


# What has no place.

Wrong = Callable[[Peer], None]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda peer: peer.says(9, DONE),
        lambda peer: peer.pieces(9, b"D", b"x"),
        lambda peer: peer.grants(9, 1),
        lambda peer: peer.says(1, DONE, DONE),
        lambda peer: (peer.says(1, DONE), peer.pieces(1, b"D", b"x")),
        lambda peer: peer.says(1, Connected()),
        lambda peer: peer.says(1, OutputDrained(0)),
        lambda peer: peer.pieces(1, b"O", b"x"),
        lambda peer: peer.grants(1, 1),
        lambda peer: peer.grants(2, 0),
        lambda peer: peer.sends(frame(b"W", 2, b"\0")),
        lambda peer: peer.says(1, FOUND, FOUND),
        lambda peer: peer.says(5, Watching(), Watching()),
        lambda peer: peer.says(6, Connected(), Connected()),
        lambda peer: peer.says(6, Finished(), Finished()),
        lambda peer: peer.says(SANDBOX, Alive()),
        lambda peer: peer.says(SANDBOX, known(1)),
        lambda peer: peer.says(SANDBOX, ProcessesListed(next_stream=1)),
        lambda peer: peer.says(SANDBOX, DONE),
        lambda peer: peer.pieces(SANDBOX, b"D", b"x"),
        lambda peer: peer.grants(SANDBOX, 1),
        lambda peer: peer.sends(frame(b"C", 1, b"{}")),
        lambda peer: peer.sends(frame(b"X", 1, b"x")),
        lambda peer: peer.pieces(1, b"D", bytes(WINDOW + PIECE)),
        lambda peer: [peer.pieces(1, b"D", b"x") for _ in range(WINDOW // OVERHEAD)],
        lambda peer: [peer.says(3, OutputLost(1)) for _ in range(WINDOW // OVERHEAD)],
        lambda peer: [
            peer.says(4, FilesListed((ENTRY,) * 256)) for _ in range(WINDOW // 256 // OVERHEAD + 9)
        ],
    ],
)
async def test_what_has_no_place_gives_the_sandbox_up(wrong: Wrong) -> None:
    """Unknown and ended streams, events and pieces of other commands, more than was granted.

    And what may be said once, twice: a reader who does not read would be left with all of it.
    """
    async with played() as (mux, peer):
        streams = [mux.open(READ), mux.open(WRITE), mux.open(ATTACH)]
        streams.append(mux.open(ListFiles("a", 1, 10_000)))
        streams += [mux.open(WatchFiles("a", recursive=True)), mux.open(Dial(80))]
        wrong(peer)
        reason = await mux.lost
        assert type(reason) is ProtocolViolation
        with pytest.raises(ProtocolViolation) as caught:
            await streams[1].read()
        assert caught.value is reason


async def test_as_much_as_was_granted_is_taken() -> None:
    """The control: the last frame may go beyond the window, as none is too long for it."""
    async with played() as (mux, peer):
        reading, attached = mux.open(READ), mux.open(ATTACH)
        peer.pieces(1, b"D", bytes(WINDOW))
        for _ in range(WINDOW // (OVERHEAD + 64)):
            peer.says(2, OutputLost(1))
        peer.says(1, DONE)
        got = 0
        while isinstance(message := await reading.read(), Data):
            got += len(message.payload)
        assert got == WINDOW
        assert await attached.read() == OutputLost(1)
        assert not mux.lost.done()


async def test_a_process_is_listed_once() -> None:
    async with played() as (mux, peer):
        listing = asyncio.create_task(mux.processes())
        await peer.hears(ListProcesses)
        peer.says(SANDBOX, known(3), known(3))
        with pytest.raises(ProtocolViolation, match="twice"):
            await listing


async def test_a_listed_process_is_below_the_next_stream() -> None:
    async with played() as (mux, peer):
        listing = asyncio.create_task(mux.processes())
        await peer.hears(ListProcesses)
        peer.says(SANDBOX, known(3), ProcessesListed(next_stream=3))
        with pytest.raises(ProtocolViolation, match="beyond"):
            await listing


async def test_a_command_that_is_too_long_opens_no_stream() -> None:
    async with played() as (mux, peer):
        with pytest.raises(ValueError, match="are possible"):
            mux.open(StatFile("\n" * 300_000))
        mux.open(Dial(80)).finish()
        assert await peer.hears(Dial) == 1
        assert await peer.hears(EndOfBytes) == 1
