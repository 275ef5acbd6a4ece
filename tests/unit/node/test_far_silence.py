"""A network that silently drops everything leaves no call between hosts waiting for ever."""

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, cast

import pytest

from runner.base.duties import Duties
from runner.base.lost_peers import LOST_MS
from runner.door.calls import CALLS
from runner.door.identity import DoorIdentity, DoorRole, certify, make_authority
from runner.door.reaching import DoorWays, tls_address
from runner.door.replies import REPLIES
from runner.door.streams import ApiLine
from runner.door.wire import DoorLine, Hung
from runner.node.residents.attend import NodeLine
from runner.node.residents.door import NodeDoor
from runner.node.residents.far import open_far_door

DAY = timedelta(days=1)
PIECE = b"x" * 65536
_NEW_NETWORK = 0x4000_0000
"""`CLONE_NEWNET` (unshare(2)); Python has it from 3.12 on."""
_SET_FLAGS, _UP = 0x8914, 1
"""`SIOCSIFFLAGS` and `IFF_UP` (netdevice(7))."""


class Node:
    """A node's end of calls that last: it keeps their connections and answers nothing."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[NodeLine] = asyncio.Queue()

    def serve_far(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep a connection."""
        self.came.put_nowait(DoorLine(reader, writer, says=REPLIES, hears=CALLS))


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[tuple[ApiLine, NodeLine]]:
    """Connect an API to a node's door between hosts; yield both ends."""
    make_authority(folder / "authority")
    certify(folder / "authority", folder / "door", DoorRole.NODE, "one", DAY)
    certify(folder / "authority", folder / "door", DoorRole.API, "api-1", DAY)
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = f"127.0.0.1:{free.getsockname()[1]}"
    node = Node()
    identity = DoorIdentity(folder / "door", DoorRole.NODE)
    door = cast("NodeDoor", node)
    async with open_far_door(door, place, identity, Duties(), within_s=600):
        reached = await DoorWays(folder, folder / "door").reach(tls_address(place, "one"))
        line = await node.came.get()
        try:
            yield reached.line, line
        finally:
            reached.line.abort()
            line.abort()


def in_a_network_of_its_own(work: Coroutine[Any, Any, None]) -> None:
    """Do some work in a network of its own, which is a loopback. Raises what the work raises."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            # Threads have namespaces of their own, and sockets those of the thread that made them.
            _leave_network()
            carry(packets=True)
            done.set_result(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            done.set_exception(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    done.result()


def _leave_network() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def carry(*, packets: bool) -> None:
    """Let this thread's loopback carry packets, or lose all of them without a word."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", _UP if packets else 0)
        fcntl.ioctl(any_socket, _SET_FLAGS, request)


async def silent(line: ApiLine | NodeLine) -> None:
    """Wait as a call does that has nothing to say. Raises Hung."""
    await line.hear()


async def talkative(line: ApiLine | NodeLine) -> None:
    """Send as long as the other end takes something. Raises Hung."""
    while True:
        await line.send(b"D", PIECE)


@pytest.mark.parametrize("sends", ["neither", "api", "node"])
def test_both_ends_give_up_what_the_network_has_lost(tmp_path: Path, sends: str) -> None:
    """The control: a connection beside it, without a guard, still waits when both have ended."""

    async def lost() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            other, _ = listener.accept()
        async with connected(tmp_path) as (api, node):
            unguarded = asyncio.create_task(reader.read())
            if sends == "neither":
                ends = [asyncio.create_task(silent(line)) for line in (api, node)]
                await asyncio.sleep(0)
                carry(packets=False)
            else:
                carry(packets=False)
                writer.write(PIECE)
                ends = [
                    asyncio.create_task(talkative(line) if name == sends else silent(line))
                    for name, line in (("api", api), ("node", node))
                ]
            async with asyncio.timeout(120):
                for end in ends:
                    with pytest.raises(Hung):
                        await end
                for line in (api, node):
                    while line.peer.fileno() != -1:  # noqa: ASYNC110 - sockets tell nobody
                        await asyncio.sleep(0.1)
            assert not unguarded.done()
            unguarded.cancel()
            await asyncio.gather(unguarded, return_exceptions=True)
            writer.transport.abort()
            other.close()

    in_a_network_of_its_own(lost())


async def test_an_end_that_takes_nothing_for_long_is_not_lost(tmp_path: Path) -> None:
    """A program need not read its stdin. The control: `TCP_USER_TIMEOUT` ends such a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, writer = await asyncio.open_connection(*listener.getsockname())
        deaf, _ = listener.accept()
    bounded = writer.get_extra_info("socket")
    bounded.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MS)
    async with connected(tmp_path) as (api, node):
        sending = asyncio.create_task(talkative(api))
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(120):
                while True:
                    writer.write(PIECE)
                    await writer.drain()
        assert writer.transport.is_closing()
        assert not sending.done()
        async with asyncio.timeout(60):
            for _ in range(100):
                await node.hear()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    deaf.close()
