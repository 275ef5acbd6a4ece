"""Connections are accepted one by one, and no cancellation loses one."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from runner.base.sockets import accept

pytestmark = pytest.mark.anyio
Accept = Callable[[socket.socket], Awaitable[object]]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Return a non-blocking socket that listens."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
        made.listen(8)
        made.setblocking(False)  # noqa: FBT003 - the standard library's signature
        yield made


async def sock_accept(listener: socket.socket) -> object:
    """Accept as the event loop does."""
    connection, _ = await asyncio.get_running_loop().sock_accept(listener)
    return connection


async def cancelled_as_one_comes(accept: Accept, listener: socket.socket) -> None:
    """Cancel the accepting task when the loop knows of a connection but the task does not yet."""
    accepting = asyncio.ensure_future(accept(listener))
    await asyncio.sleep(0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
        # The current task is always one step ahead of the accepting one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting


async def is_left(listener: socket.socket) -> bool:
    """Return whether a connection waits to be accepted."""
    try:
        async with asyncio.timeout(0.2):
            connection = await accept(listener)
    except TimeoutError:
        return False
    connection.close()
    return True


async def test_a_connection_that_comes_as_its_taker_is_cancelled_is_the_next_one_s(
    listener: socket.socket,
) -> None:
    await cancelled_as_one_comes(accept, listener)
    assert await is_left(listener)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_the_event_loop_s_own_way_loses_it(listener: socket.socket) -> None:
    """The control."""
    await cancelled_as_one_comes(sock_accept, listener)
    assert not await is_left(listener)


async def test_one_that_waits_already_is_taken_at_once(listener: socket.socket) -> None:
    """The accepted connection does not block."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.getsockname())
        connection = await accept(listener)
        assert not connection.getblocking()
        connection.close()


async def test_a_listener_may_be_closed_while_somebody_waits_for_it(
    listener: socket.socket,
) -> None:
    """During cleanup, its number then belongs to nobody, or to another file."""
    accepting = asyncio.ensure_future(accept(listener))
    await asyncio.sleep(0.01)
    number = listener.fileno()
    listener.close()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert number in (ours.fileno(), theirs.fileno())
        heard = asyncio.Event()
        reader = ours if ours.fileno() == number else theirs
        asyncio.get_running_loop().add_reader(reader, heard.set)
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting
        (theirs if reader is ours else ours).send(b"x")
        async with asyncio.timeout(2):
            await heard.wait()
        asyncio.get_running_loop().remove_reader(reader)
