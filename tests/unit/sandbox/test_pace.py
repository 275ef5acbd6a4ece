"""A sandbox gets its share of the event loop, and no more, in whatever pieces it speaks."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from runner.protocol.events import EVENTS, Counted
from runner.protocol.frames import PIECE, SANDBOX, Data, frame
from runner.sandbox.guest.channel import Channel
from runner.sandbox.guest.pace import SHARE, Pace

FOR_S = 1.5


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

        reading = asyncio.create_task(read())
        began, used = time.monotonic(), time.thread_time()
        await asyncio.sleep(FOR_S)
        share = (time.thread_time() - used) / (time.monotonic() - began)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    return share


@pytest.mark.alone
@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_small_frames_takes_a_share_of_the_loop(kind: str) -> None:
    """With room for a host that is slower than the one whose costs are charged."""
    assert await share_of(FLOODS[kind]) < 2.5 * SHARE


@pytest.mark.alone
async def test_without_a_pace_it_takes_all_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control, which needs processor time: the thread that floods takes some of it, too."""
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
    """Of one kind, in order, and never larger than a piece may be."""
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
