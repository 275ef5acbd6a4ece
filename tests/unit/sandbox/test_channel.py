"""The worker's messages to a sandbox arrive whole, in order and on the right stream."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner.protocol.commands import COMMANDS, Clean, Command, Load, Ping, Prepare, RunProgram
from runner.protocol.frames import CONTROL, HEADER, PIECE
from runner.sandbox.guest.channel import Channel

RUN = RunProgram(program_bytes=3, stdin_bytes=0, output_bytes=9, egress=False, trust="")


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Channel, asyncio.StreamReader]]:
    """Return a channel, and a reader at its other end."""
    ours, theirs = socket.socketpair()
    there, writer = await asyncio.open_connection(sock=theirs)
    channel = Channel(*await asyncio.open_connection(sock=ours))
    try:
        async with asyncio.timeout(10):
            yield channel, there
    finally:
        channel.close()
        writer.close()
        await writer.wait_closed()


async def next_frame(there: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """Read kind, stream and payload of a frame."""
    kind, stream, size = HEADER.unpack(await there.readexactly(HEADER.size))
    return kind, stream, await there.readexactly(size)


@pytest.mark.parametrize("sizes", [(), (0,), (3, 5), (PIECE, 1), (1, 3 * PIECE + 7)])
async def test_what_follows_a_command_comes_in_order_and_whole(sizes: tuple[int, ...]) -> None:
    """It may be written with the command or after it."""
    contents = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    async with connected() as (channel, there), asyncio.TaskGroup() as tasks:
        tasks.create_task(channel.send(RUN, *contents))
        kind, _, payload = await next_frame(there)
        assert (kind, COMMANDS.decode(payload)) == (b"C", RUN)
        came = b""
        while len(came) < sum(sizes):
            kind, _, payload = await next_frame(there)
            assert kind == b"D"
            assert 0 < len(payload) <= PIECE
            came += payload
        assert came == b"".join(contents)


async def test_each_program_has_the_next_stream_and_the_sandbox_the_first() -> None:
    sent: list[tuple[Command, int]] = [
        (Ping(), 0),
        (Load(), 0),
        (Prepare(), 1),
        (Ping(), 0),
        (RUN, 1),
        (Clean(), 1),
        (Prepare(), 2),
        (RUN, 2),
    ]
    async with connected() as (channel, there):
        for command, expected in sent:
            await channel.send(command, b"pro" if command is RUN else b"")
            _, stream, payload = await next_frame(there)
            assert (COMMANDS.decode(payload), stream) == (command, expected)
            if command is RUN:
                assert await next_frame(there) == (b"D", expected, b"pro")


async def test_a_command_that_is_too_long_is_not_sent() -> None:
    """The supervisor would hang up on it."""
    long = RunProgram(
        program_bytes=3, stdin_bytes=0, output_bytes=9, egress=True, trust="x" * CONTROL
    )
    async with connected() as (channel, there):
        with pytest.raises(ValueError, match="are possible"):
            await channel.send(long)
        await channel.send(Ping())
        assert COMMANDS.decode((await next_frame(there))[2]) == Ping()
