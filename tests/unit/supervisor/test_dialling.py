"""A port inside is reached through a stream, both ways, each with an end of its own."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from runner.protocol.living_commands import Cancel, Dial, EndOfBytes
from runner.protocol.living_events import Connected, Done, Failed, Finished
from tests.support.living import Node


@pytest.fixture(params=["127.0.0.1", "::1"])
async def port(request: pytest.FixtureRequest) -> AsyncIterator[int]:
    """Serve a port whose server says all that it heard, when its client has ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = await reader.read()
        writer.write(heard + b"!")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, request.param, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_bytes_go_both_ways_and_each_way_ends(node: Node, port: int) -> None:
    stream = node.open(Dial(port=port))
    await node.send(stream, b"x" * 3_000_000)
    await node.expect(stream, Connected)
    node.say(stream, EndOfBytes())
    got, _ = await node.until(stream, Finished)
    assert got[b"D"] == b"x" * 3_000_000 + b"!"
    assert await node.expect(stream, Done) == Done(more=False)


async def test_a_port_without_a_server_is_refused(node: Node) -> None:
    stream = node.open(Dial(port=1))
    assert await node.expect(stream, Failed) == Failed(error="ECONNREFUSED")


async def test_a_cancelled_connection_is_cut(node: Node, port: int) -> None:
    stream = node.open(Dial(port=port))
    await node.expect(stream, Connected)
    node.say(stream, Cancel())
    assert await node.expect(stream, Done) == Done(more=False)
    await node.ping()
