"""Two clients of one sandbox whose supervisor is hostile: each hears what is said on its streams.

The supervisor sees the bytes of both, and may lie to each about its own. It cannot make the node
hand to one client what it says on a stream of the other's, whenever and in whichever frame.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from runner.protocol.commands import Command
from runner.protocol.frames import GRANT, frame
from runner.protocol.living_commands import LIVING_COMMANDS, Attach, Cancel, ReadFile
from runner.protocol.living_events import LIVING_EVENTS, Done, Failed, FileFound, OutputDrained
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.mux import Mux
from runner.words.errors import GuestRefused, ProtocolViolation
from runner.words.living import OutputPiece
from tests.support.living_protocol import ENTRY
from tests.support.peers import Peer
from tests.unit.sandbox.test_hostile_living import held, started

MINE, THEIRS = b"m" * 40, b"t" * 40
Say = Callable[[int], bytes]
"""Returns a frame of the other client's bytes on a stream."""


async def read(living: LivingSandbox, path: str) -> bytes:
    """Read a file as a client does."""
    async with living.files.read(path) as file:
        return b"".join([chunk async for chunk in file])


def reads(living: LivingSandbox, path: str) -> "asyncio.Task[bytes]":
    """Return a client that reads a file."""
    return asyncio.create_task(read(living, path))


async def gone(client: "asyncio.Task[Any]") -> None:
    """Let a client leave in the middle."""
    client.cancel()
    await asyncio.gather(client, return_exceptions=True)


async def told(peer: Peer, kind: type[Command]) -> int:
    """Return the stream of the next command, which must be of this kind, whatever was granted."""
    while (frame_ := await peer.frame())[0] != b"C":
        assert frame_[0] == b"W"
    assert isinstance(LIVING_COMMANDS.decode(frame_[2]), kind)
    return frame_[1]


async def reopened(living: LivingSandbox, peer: Peer) -> tuple[int, int, "asyncio.Task[bytes]"]:
    """Let one client leave half-way and another come; return both streams, and the other."""
    first = reads(living, "theirs")
    theirs = await told(peer, ReadFile)
    peer.says(theirs, FileFound(ENTRY))
    peer.pieces(theirs, b"D", THEIRS[:10])
    await asyncio.sleep(0)
    await gone(first)
    assert await told(peer, Cancel) == theirs
    second = reads(living, "mine")
    mine = await told(peer, ReadFile)
    assert mine > theirs
    return theirs, mine, second


async def test_what_a_client_left_half_way_reaches_nobody_who_comes_after() -> None:
    async with held() as (living, peer):
        theirs, mine, second = await reopened(living, peer)
        peer.pieces(theirs, b"D", THEIRS)
        peer.says(mine, FileFound(ENTRY))
        peer.pieces(theirs, b"D", THEIRS)
        peer.pieces(mine, b"D", MINE)
        peer.says(theirs, Done(more=False))
        peer.says(mine, Done(more=False))
        assert await second == MINE


async def test_this_would_be_seen_if_streams_were_mixed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a node that gives a frame to whoever reads."""
    take = Mux._take

    def to_the_newest(mux: Mux, kind: bytes, number: int, payload: bytes) -> None:
        take(mux, kind, max(mux._streams) if kind == b"D" else number, payload)

    monkeypatch.setattr(Mux, "_take", to_the_newest)
    async with held() as (living, peer):
        theirs, mine, second = await reopened(living, peer)
        peer.says(mine, FileFound(ENTRY))
        peer.pieces(theirs, b"D", THEIRS)
        peer.pieces(mine, b"D", MINE)
        peer.says(mine, Done(more=False))
        assert THEIRS in await second


@pytest.mark.parametrize(
    "said",
    [
        lambda stream: frame(b"D", stream, THEIRS),
        lambda stream: frame(b"O", stream, THEIRS),
        lambda stream: frame(b"E", stream, THEIRS),
        lambda stream: frame(b"W", stream, GRANT.pack(1)),
        lambda stream: frame(b"C", stream, LIVING_EVENTS.encode(FileFound(ENTRY))),
    ],
    ids=["data", "stdout", "stderr", "grant", "event"],
)
@pytest.mark.parametrize("where", ["ended", "next", "far"])
async def test_bytes_cannot_wait_on_a_stream_for_whoever_comes(said: Say, where: str) -> None:
    """Neither on one that has ended, nor on one that nobody has opened yet."""
    async with held() as (living, peer):
        first = reads(living, "theirs")
        theirs = await told(peer, ReadFile)
        peer.says(theirs, FileFound(ENTRY), Done(more=False))
        await first
        peer.sends(said({"ended": theirs, "next": theirs + 1, "far": theirs + 1000}[where]))
        assert "no place on stream" in (await living.lost).detail
        with pytest.raises(ProtocolViolation):
            await read(living, "mine")


@pytest.mark.parametrize("kind", [b"O", b"E", b"D"])
async def test_output_is_not_taken_on_the_stream_that_a_process_was_started_on(kind: bytes) -> None:
    """Each client that reads it has a stream of its own, and nobody reads that one."""
    async with held() as (living, peer):
        process = await started(living, peer)
        async with process.attach() as mine:
            await told(peer, Attach)
            peer.pieces(process.number, kind, THEIRS)
            with pytest.raises(ProtocolViolation):
                [each async for each in mine]


async def test_no_order_of_frames_mixes_two_clients() -> None:
    """Many orders, with a third client who leaves in the middle of each."""
    chance = random.Random(16)  # noqa: S311 - no secret
    async with held() as (living, peer):
        process = await started(living, peer)
        for _ in range(200):
            async with process.attach() as mine, process.attach() as yours:
                numbers = [await told(peer, Attach), await told(peer, Attach)]
                third = reads(living, "theirs")
                numbers.append(await told(peer, ReadFile))
                peer.says(numbers[2], FileFound(ENTRY))
                await gone(third)
                assert await told(peer, Cancel) == numbers[2]
                order = [0] * 20 + [1] * 20 + [2] * 20
                chance.shuffle(order)
                for which in order:
                    peer.sends(frame((b"O", b"O", b"D")[which], numbers[which], b"myt"[which:][:1]))
                peer.says(numbers[2], Done(more=False))
                for number in numbers[:2]:
                    peer.says(number, OutputDrained(20))
                assert await heard(mine) == b"m" * 20
                assert await heard(yours) == b"y" * 20


async def heard(attached: Any) -> bytes:
    """Return the bytes that a client reads."""
    return b"".join([each.data async for each in attached if isinstance(each, OutputPiece)])


async def test_each_clients_failure_is_its_own() -> None:
    """An error about one client's file ends nothing of the other's."""
    async with held() as (living, peer):
        first, second = reads(living, "theirs"), reads(living, "mine")
        theirs, mine = await told(peer, ReadFile), await told(peer, ReadFile)
        peer.says(mine, FileFound(ENTRY))
        peer.says(theirs, Failed("EIO"))
        with pytest.raises(GuestRefused, match="theirs"):
            await first
        peer.pieces(mine, b"D", MINE)
        peer.says(mine, Done(more=False))
        assert await second == MINE
