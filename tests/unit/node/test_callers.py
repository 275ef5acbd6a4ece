"""Callers of a node that hang up while their call waits for something, by real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias
from uuid import UUID

import pytest

from runner.door.calls import CALLS
from runner.door.grants import DoorGrant
from runner.door.replies import REPLIES
from runner.door.wire import DoorLine
from runner.node.residents.attend import NodeLine
from runner.node.residents.callers import CallTable
from runner.words.errors import NodeAway
from runner.words.ids import new_id

TENANT, SANDBOX = new_id(), new_id()
Connected: TypeAlias = AbstractAsyncContextManager[tuple[NodeLine, asyncio.StreamWriter]]
PLENTY = bytes(8 * 1024 * 1024)


def grant(tenant: UUID = TENANT, sandbox: UUID = SANDBOX) -> DoorGrant:
    return DoorGrant(tenant, sandbox, "input", 0.0, "key:agent", None, None, None)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[NodeLine, asyncio.StreamWriter]]:
    """Yield the node's end of a connection, and the caller's."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    _, caller = await asyncio.open_unix_connection(sock=theirs)
    try:
        yield DoorLine(reader, writer, says=REPLIES, hears=CALLS), caller
    finally:
        writer.transport.abort()
        caller.transport.abort()


@asynccontextmanager
async def connected_by_tcp() -> AsyncIterator[tuple[NodeLine, asyncio.StreamWriter]]:
    """Yield the same over TCP, as between hosts."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        _, caller = await asyncio.open_connection(*listener.getsockname())
        ours, _ = await asyncio.to_thread(listener.accept)
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield DoorLine(reader, writer, says=REPLIES, hears=CALLS), caller
    finally:
        writer.transport.abort()
        caller.transport.abort()


async def waits_for_ever() -> None:
    await asyncio.Event().wait()


async def answering(
    callers: CallTable, line: NodeLine, work: Callable[[], Coroutine[object, object, None]]
) -> None:
    with callers.answered(line, grant()):
        await work()


@pytest.mark.parametrize("unread", [b"", PLENTY], ids=["none", "plenty"])
@pytest.mark.parametrize("way", [connected, connected_by_tcp], ids=["unix", "tcp"])
async def test_a_call_that_waits_ends_when_its_caller_hangs_up(
    unread: bytes, way: Callable[[], Connected]
) -> None:
    """This holds however many unread bytes the caller has sent."""
    async with way() as (line, caller):
        call = asyncio.create_task(answering(CallTable(), line, waits_for_ever))
        caller.write(unread)
        await asyncio.sleep(0.7)
        assert not call.done()
        DoorLine(asyncio.StreamReader(), caller, says=CALLS, hears=REPLIES).abort()
        async with asyncio.timeout(60):
            await asyncio.wait({call})
        assert call.cancelled()


async def test_a_call_whose_connection_failed_ends() -> None:
    async with connected() as (line, _):
        call = asyncio.create_task(answering(CallTable(), line, waits_for_ever))
        await asyncio.sleep(0)
        line.abort()
        async with asyncio.timeout(60):
            await asyncio.wait({call})
        assert call.cancelled()


async def test_no_sandbox_and_no_tenant_takes_all_places() -> None:
    callers = CallTable(of_sandbox=2, of_tenant=3)
    async with (
        connected() as (line, _),
        connected() as (first, _),
        connected() as (second, _),
        connected() as (third, _),
    ):
        call = asyncio.create_task(answering(callers, line, waits_for_ever))
        await asyncio.sleep(0)
        with callers.answered(first, grant()):
            with (
                pytest.raises(NodeAway, match="sandbox answers 2"),
                callers.answered(second, grant()),
            ):
                pass
            with callers.answered(second, grant(sandbox=new_id())):
                with (
                    pytest.raises(NodeAway, match="3 calls of this tenant"),
                    callers.answered(third, grant(sandbox=new_id())),
                ):
                    pass
                with callers.answered(third, grant(tenant=new_id(), sandbox=new_id())):
                    pass
    async with asyncio.timeout(60):
        await asyncio.wait({call})
    with callers.answered(first, grant()):
        assert len(callers._calls) == 1
