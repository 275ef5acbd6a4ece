"""The bytes of connections to ports are counted at once, and told while connections last."""

import asyncio

import pytest

from runner.node.residents.carried import PortBytes, counting


async def test_a_connection_that_lasts_is_told_of_before_it_ends() -> None:
    """Each byte once; while nothing is carried, nothing is told."""
    ports, told = PortBytes(), asyncio.Queue[PortBytes]()
    async with counting(ports, told.put_nowait, every_s=0.01) as carried:
        carried.add(into=3, out=5)
        assert await told.get() == PortBytes(3, 5)
        carried.add(out=1)
        assert await told.get() == PortBytes(0, 1)
        await asyncio.sleep(0.05)
        assert told.empty()
        assert ports == PortBytes(3, 6)
        carried.add(into=2)
        left = [told.get_nowait()] if not told.empty() else []
    left += [told.get_nowait() for _ in range(told.qsize())]
    assert sum(each.bytes_in for each in left) == 2
    assert ports == PortBytes(5, 6)


async def test_connections_of_one_sandbox_add_up() -> None:
    """What one that fails has carried counts, too."""
    ports, told = PortBytes(1, 1), list[PortBytes]()

    async def breaks() -> None:
        async with counting(ports, told.append) as second:
            second.add(into=10)
            raise ConnectionError

    async with counting(ports, told.append) as first:
        with pytest.raises(ConnectionError):
            await breaks()
        first.add(into=20, out=1)
    assert told == [PortBytes(10, 0), PortBytes(20, 1)]
    assert ports == PortBytes(31, 2)
