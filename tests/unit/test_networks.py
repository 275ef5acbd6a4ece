"""The network that tests and the stress put before a part stalls, cuts and refuses."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.networks import Network, Place
from tests.support.nodes import free_port

SILENT_S = 0.2


@asynccontextmanager
async def part(at: Place) -> AsyncIterator[None]:
    """Run a part that answers each word with the same word."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while word := await reader.read(100):
            writer.write(word)
        writer.close()

    server = await (
        asyncio.start_unix_server(answer, at)
        if isinstance(at, Path)
        else asyncio.start_server(answer, "127.0.0.1", at)
    )
    async with server:
        yield


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(at: Place) -> AsyncIterator[Ends]:
    reader, writer = await (
        asyncio.open_unix_connection(at)
        if isinstance(at, Path)
        else asyncio.open_connection("127.0.0.1", at)
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


async def says(ends: Ends, word: bytes) -> bytes:
    ends[1].write(word)
    return await ends[0].read(100)


@pytest.fixture(params=["unix", "tcp"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Place, Place]]:
    """Return the place of a part, and where the network to it is to listen."""
    if request.param == "unix":
        yield tmp_path / "part", tmp_path / "here"
    else:
        yield free_port(), free_port()


async def test_what_is_said_during_a_stall_arrives_after_it(places: tuple[Place, Place]) -> None:
    """Nothing is lost, and nobody is told of the stall."""
    real, here = places
    network = Network()
    async with part(real), network.to(real, here), connected(here) as ends:
        assert await says(ends, b"before") == b"before"
        network.open.clear()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(says(ends, b"within"), SILENT_S)
        network.open.set()
        assert await ends[0].read(100) == b"within"


async def test_a_cut_ends_what_is_connected_and_refuses_the_next(
    places: tuple[Place, Place],
) -> None:
    """Until it is restored, as while a part is down."""
    real, here = places
    network = Network()
    async with part(real), network.to(real, here):
        async with connected(here) as ends:
            assert await says(ends, b"before") == b"before"
            network.cut()
            assert await ends[0].read(100) == b""
        with pytest.raises(ConnectionRefusedError):
            async with connected(here):
                pass
        await network.restore()
        async with connected(here) as ends:
            assert await says(ends, b"after") == b"after"
