"""Frames and messages at the door: whole, bounded, and nonsense refused."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.door import calls, replies
from runner.door.call import DoorCall, EndCall
from runner.door.calls import CALLS
from runner.door.replies import REPLIES, raised, told
from runner.door.wire import CONTROL, PIECE, Chunk, DoorLine, Hung
from runner.protocol.living import Terminal
from runner.words import errors
from runner.words.living import FileEntry, ProcessEnd, ProcessInfo

MOMENT = datetime(2026, 11, 29, 1, 2, 3, 456789, UTC)


@asynccontextmanager
async def pair(
    folder: Path,
) -> AsyncIterator[tuple[DoorLine[DoorCall, replies.Reply], DoorLine[replies.Reply, DoorCall]]]:
    """Return both ends of a connection by a real socket: the API's and the node's."""
    came: asyncio.Queue[DoorLine[replies.Reply, DoorCall]] = asyncio.Queue()

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.put_nowait(DoorLine(reader, writer, says=REPLIES, hears=CALLS))

    server = await asyncio.start_unix_server(serve, folder / "s")
    reader, writer = await asyncio.open_unix_connection(folder / "s")
    api = DoorLine(reader, writer, says=CALLS, hears=REPLIES)
    node = await came.get()
    try:
        yield api, node
    finally:
        api.abort()
        node.abort()
        server.close()


@pytest.mark.parametrize(
    "call",
    [
        calls.StartCall(
            argv=("echo", "ü"),
            env={"A": "b"},
            cwd=None,
            stdin=True,
            terminal=Terminal(24, 80),
            timeout_s=1.5,
            tag="t",
            keep_bytes=1,
            attach=True,
        ),
        calls.ReadCall("a", 5, None),
        EndCall("killed"),
        calls.FinishCall(),
    ],
    ids=lambda call: call.name,
)
async def test_a_call_comes_as_it_was_made(tmp_path: Path, call: DoorCall) -> None:
    async with pair(tmp_path) as (api, node):
        await api.tell(call)
        assert await node.hear() == call


@pytest.mark.parametrize(
    "reply",
    [
        replies.ProcessReply(
            ProcessInfo(
                number=3,
                argv=("a", "b"),
                tag=None,
                terminal=False,
                stdin=True,
                started_at=MOMENT,
                output_bytes=7,
                ended_at=MOMENT,
                end=ProcessEnd(None, 9, timed_out=True, output_bytes=7),
            )
        ),
        replies.FilesReply((FileEntry("/workspace/\U0001f600", "link", 0, 0o777, MOMENT, "x"),)),
        replies.DoneReply(more=True),
    ],
    ids=lambda reply: reply.name,
)
async def test_a_reply_comes_as_it_was_given(tmp_path: Path, reply: replies.Reply) -> None:
    async with pair(tmp_path) as (api, node):
        await node.tell(reply)
        assert await api.hear() == reply


async def test_bytes_come_in_pieces_and_in_order(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(5 * PIECE + 1)  # noqa: S311 - only to tell pieces apart
    async with pair(tmp_path) as (api, node):
        sending = asyncio.create_task(api.send(b"D", data))
        got = b""
        while len(got) < len(data):
            chunk = await node.hear()
            assert isinstance(chunk, Chunk) and 0 < len(chunk.data) <= PIECE
            got += chunk.data
        await sending
        assert got == data


async def test_who_does_not_read_holds_up_who_sends(tmp_path: Path) -> None:
    async with pair(tmp_path) as (api, node):
        sending = asyncio.create_task(api.send(b"D", bytes(64 * 2**20)))
        done, _ = await asyncio.wait({sending}, timeout=0.3)
        assert not done
        node.abort()
        with pytest.raises(Hung):
            await sending


async def test_a_message_that_is_too_long_is_not_sent(tmp_path: Path) -> None:
    async with pair(tmp_path) as (api, _):
        with pytest.raises(ValueError, match="are possible"):
            await api.tell(calls.StatCall("a" * CONTROL))


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">cI", b"C", 0),
        struct.pack(">cI", b"C", CONTROL + 1),
        struct.pack(">cI", b"D", PIECE + 1),
        struct.pack(">cI", b"X", 1) + b"x",
        struct.pack(">cI", b"C", 2) + b"{}",
        struct.pack(">cI", b"C", 13) + b'{"do":"fly"}' + b" ",
        struct.pack(">cI", b"C", 27) + b'{"do":"create","more":"yes"',
    ],
)
async def test_nonsense_is_refused(tmp_path: Path, frame: bytes) -> None:
    async with pair(tmp_path) as (api, node):
        api._writer.write(frame)
        with pytest.raises(errors.ProtocolViolation):
            await node.hear()


async def test_any_bytes_are_refused_or_end() -> None:
    """Fuzz: whole frames with bytes changed, and noise. Nothing else may come of them."""
    rng = random.Random(16)  # noqa: S311 - a seed makes a failure come again
    good = b"".join(
        struct.pack(">cI", b"C", len(text)) + text
        for text in map(CALLS.encode, [calls.StatCall("a"), calls.SignalCall(1, 9)])
    )
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    for _ in range(300):
        data = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(200)))
        for _ in range(rng.randrange(6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        reader = asyncio.StreamReader()
        reader.feed_data(bytes(data))
        reader.feed_eof()
        line = DoorLine(reader, writer, says=REPLIES, hears=CALLS)
        try:
            while True:
                assert isinstance(await line.hear(), DoorCall | Chunk)
        except (Hung, errors.ProtocolViolation):
            pass
    writer.close()
    theirs.close()


@pytest.mark.parametrize(
    "error",
    [
        errors.NotFound("n"),
        errors.Conflict("c"),
        errors.SandboxEnded("s"),
        errors.NodeAway("a"),
        errors.FileRefused("ENOENT", "a/b"),
        errors.Invalid("i", "egress"),
        errors.ImageIncompatible("m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_comes_as_what_it_was(error: errors.RunnerError) -> None:
    found = raised(told(error))
    assert type(found) is type(error)
    assert found.detail == error.detail
    assert found.retry_after_s == error.retry_after_s


def test_what_a_guest_refuses_is_told_of_the_path() -> None:
    found = raised(told(errors.GuestRefused("EACCES", "a")))
    assert isinstance(found, errors.FileRefused)
    assert (found.errno_name, found.path) == ("EACCES", "a")


def test_a_process_that_is_not_there_is_not_found() -> None:
    found = raised(told(errors.GuestRefused("ESRCH", "process 3")))
    assert isinstance(found, errors.NotFound)
