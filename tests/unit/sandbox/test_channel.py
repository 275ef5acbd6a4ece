"""A report is taken as what it claims to be, or not at all."""

import asyncio
import json
import socket
import struct

import pytest

from runner.protocol.frames import PIECE
from runner.protocol.messages import Collected, Ended, NotStarted, Ready, parse
from runner.sandbox.guest.channel import Channel
from runner.words.errors import ProtocolViolation


def test_reports_are_parsed_into_their_kinds() -> None:
    """One of each shape."""
    assert parse(b'{"say": "ready", "version": 1}') == Ready(version=1)
    assert parse(b'{"say": "not_started", "error": "ENOENT"}') == NotStarted(error="ENOENT")
    assert parse(
        b'{"say": "ended", "exit_code": 0, "signal": null, "stdout": 1, "stderr": 0,'
        b' "disk_full": false}'
    ) == Ended(exit_code=0, signal=None, stdout=1, stderr=0, disk_full=False)
    assert parse(b'{"say": "collected", "refused": [["a", "b"]], "refused_total": 1}') == Collected(
        refused=[("a", "b")], refused_total=1
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"ready"',
        b"\xff",
        b"{",
        b'{"version": 1}',
        b'{"say": "unknown"}',
        b'{"say": null}',
        b'{"say": ["ready"]}',
        b'{"say": "ready"}',
        b'{"say": "ready", "version": "1"}',
        b'{"say": "ready", "version": true}',
        b'{"say": "ready", "version": 1.0}',
        b'{"say": "ready", "version": 1, "more": 1}',
        b'{"say": "ready", "version": 1, "version": 1}',
        b'{"say": "ready", "say": "ready", "version": 1}',
        b'{"say": "ready", "version": NaN}',
        b'{"say": "ready", "version": Infinity}',
        b'{"say": "ready", "version": ' + b"9" * 100_000 + b"}",
        b'{"say": "ready", "version": ' + b"[" * 100_000 + b"}",
        b'{"say": "not_started", "error": "No such file\\u001b[2J"}',
        b'{"say": "artifact", "path": "", "size": 0}',
        b'{"say": "artifact", "path": "a", "size": -1}',
        b'{"say": "counted", "stdout": 9007199254740992, "stderr": 0}',
    ],
)
def test_anything_else_is_a_violation(payload: bytes) -> None:
    """Malformed, ambiguous, mistyped, out of range, or with a field too many or too few."""
    with pytest.raises(ProtocolViolation):
        parse(payload)


def test_a_violation_does_not_repeat_what_was_sent() -> None:
    """A hostile text does not reach logs and results through an error."""
    with pytest.raises(ProtocolViolation) as caught:
        parse(json.dumps({"say": "ready", "version": "canary"}).encode())
    assert "canary" not in caught.value.detail


@pytest.mark.parametrize("sizes", [(), (0,), (3, 5), (PIECE, 1), (1, 3 * PIECE + 7)])
async def test_what_follows_a_command_comes_in_order_and_whole(sizes: tuple[int, ...]) -> None:
    """Whether it is written with the command or after it."""
    contents = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    ours, theirs = socket.socketpair()
    there, close = await asyncio.open_connection(sock=theirs)
    channel = Channel(*await asyncio.open_connection(sock=ours))
    try:
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(channel.send("run", *contents, program_bytes=3))
            kind, size = struct.unpack(">cI", await there.readexactly(5))
            assert kind == b"C"
            assert json.loads(await there.readexactly(size)) == {"do": "run", "program_bytes": 3}
            came = b""
            while len(came) < sum(sizes):
                kind, size = struct.unpack(">cI", await there.readexactly(5))
                assert kind == b"D"
                assert 0 < size <= PIECE
                came += await there.readexactly(size)
        assert came == b"".join(contents)
    finally:
        channel.close()
        close.close()
        await close.wait_closed()
