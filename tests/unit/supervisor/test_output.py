"""Output is kept, read again from any offset, and lost only by readers who do not read."""

import asyncio
import importlib
import os
import random
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from runner.protocol.frames import Data
from runner.protocol.living import OVERHEAD, WINDOW
from runner.protocol.living_commands import Attach, Cancel, ListProcesses, SignalProcess
from runner.protocol.living_events import (
    Done,
    Failed,
    OutputDrained,
    OutputLost,
    ProcessesListed,
    ProcessKnown,
)
from tests.support.living import SUPERVISOR, Node


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the supervisor's module."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SUPERVISOR)
    yield importlib.import_module("logs")
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def test_what_is_kept_is_what_came_last_and_of_the_right_kind(logs: ModuleType) -> None:
    """Compared with a list of all bytes, over many sizes and both kinds."""
    chance = random.Random(1)  # noqa: S311 - the same sizes each time
    log = logs.Log(1)
    came: list[tuple[int, int]] = []
    for turn in range(3000):
        kind, size = chance.randrange(2), chance.choice((1, 2, 500, 30_000))
        source, sink = os.pipe()
        content = chance.randbytes(size)
        os.write(sink, content)
        os.close(sink)
        while log.take(source, kind, 65536):
            pass
        os.close(source)
        came += [(byte, kind) for byte in content]
        if len(came) > 200_000:
            came = came[-100_000:]
        assert log.total - log.start <= log.capacity
        if turn % 100 == 0:
            assert _kept(log) == came[len(came) - (log.total - log.start) :]
    log.close()
    assert _kept(log) == came[len(came) - (log.total - log.start) :]
    assert log.total - log.start > 10_000


def _kept(log: "object") -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    offset = log.start  # type: ignore[attr-defined]  # the supervisor's own class
    while offset < log.total:  # type: ignore[attr-defined]  # as above
        kind, piece = log.piece(offset, 7919)  # type: ignore[attr-defined]  # as above
        found += [(byte, b"OE".index(kind)) for byte in piece]
        offset += len(piece)
        piece.release()
    return found


def test_runs_of_both_outputs_take_bounded_memory(logs: ModuleType) -> None:
    """A program that alternates after each byte keeps fewer bytes, and takes no more memory."""
    log = logs.Log(2**20)
    for turn in range(60_000):
        source, sink = os.pipe()
        os.write(sink, b"x")
        log.take(source, turn % 2, 1)
        os.close(source)
        os.close(sink)
    assert len(log._runs) < 40_000
    assert log.total - log.start == 2**20 // logs.RUN


async def test_output_is_read_from_any_offset(node: Node) -> None:
    number = await node.start("sh", "-c", "printf 0123; read go; printf 4567 >&2", stdin=True)
    following = node.open(Attach(process=number, offset=0, follow=True))
    assert await node.next_of(following) == Data(b"O", b"0123")
    await node.send(number, b"go\n")
    assert (await node.end(number)).output == 8
    reading = node.open(Attach(process=number, offset=2, follow=False))
    got, drained = await node.until(reading, OutputDrained)
    assert (got[b"O"], got[b"E"], drained.offset) == (b"23", b"4567", 8)
    beyond = node.open(Attach(process=number, offset=9, follow=False))
    assert await node.expect(beyond, Failed) == Failed(error="EINVAL")


async def test_a_reader_without_follow_takes_what_is_there(node: Node) -> None:
    number = await node.start("sh", "-c", "echo x; sleep 100")
    following = node.open(Attach(process=number, offset=0, follow=True))
    await node.next_of(following)
    reading = node.open(Attach(process=number, offset=0, follow=False))
    got, _ = await node.until(reading, OutputDrained)
    assert got[b"O"] == b"x\n"
    node.say(following, Cancel())
    assert await node.expect(following, Done) == Done(more=False)
    assert node.silent(following)


async def test_of_more_than_is_kept_the_end_is_there_and_the_rest_told(node: Node) -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000 + 'y' * 500_000)"
    number = await node.start("python3", "-c", script, keep_bytes=500_000)
    ended = await node.end(number)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    gap = await node.expect(reading, OutputLost)
    got, drained = await node.until(reading, OutputDrained)
    assert gap.omitted + len(got[b"O"]) == ended.output == drained.offset == 3_500_000
    assert got[b"O"] == b"y" * 500_000


async def test_a_process_waits_for_a_reader_that_keeps_up(node: Node) -> None:
    """A reader gets all of 20 MiB through a ring of 64 KiB."""
    script = "import os\nfor _ in range(320): os.write(1, b'x' * 65536)"
    waits = f'read go; exec python3 -c "{script}"'
    number = await node.start("sh", "-c", waits, stdin=True, keep_bytes=0)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    await node.send(number, b"go\n")
    got, _ = await node.until(reading, OutputDrained)
    assert len(got[b"O"]) == 20 * 2**20
    assert (await node.end(number)).output == 20 * 2**20


async def test_a_slow_reader_stops_nobody_else(node: Node) -> None:
    """It is sent no more than its window; the process waits for it, and others do not."""
    node.grants = False
    endless = "import os\nwhile True: os.write(1, b'x' * 65536)"
    number = await node.start("python3", "-c", endless)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    sent = 0
    while sent < WINDOW or not node.silent(reading):
        data = await node.next_of(reading)
        assert isinstance(data, Data)
        sent += len(data.payload) + OVERHEAD
        # What was sent beyond the window would come before the answer.
        await node.ping()
    assert WINDOW <= sent < WINDOW + 65536 + OVERHEAD
    other = await node.start("echo", "hello")
    assert (await node.end(other)).output == 6
    await node.ping()
    node.say(number, SignalProcess(number=9))
    node.grants = True
    node.grant(reading, sent)
    got, drained = await node.until(reading, OutputDrained)
    ended = await node.end(number)
    assert ended.signal == 9
    assert sent - len(got[b"O"]) < drained.offset == ended.output


LEFT_RUNNING = """
import os
if os.fork():
    os._exit(0)
while True:
    os.write(1, b'x' * 65536)
"""


async def _read_so_far(node: Node) -> int:
    """Return how much the supervisor has read of the one process that there is."""
    node.say(0, ListProcesses())
    known = await node.expect(0, ProcessKnown)
    await node.expect(0, ProcessesListed)
    return known.output


async def test_who_was_left_running_is_read_no_faster_than_others(node: Node) -> None:
    """Output that nobody awaits does not take the supervisor's whole time."""
    number = await node.start("python3", "-c", LEFT_RUNNING)
    await node.end(number)
    await asyncio.sleep(0.5)
    before = await _read_so_far(node)
    await asyncio.sleep(1)
    assert await _read_so_far(node) - before < 2**29


async def test_a_reader_that_takes_nothing_is_not_waited_for_for_ever(node: Node) -> None:
    """After ten seconds the process goes on, and the reader is told what it has lost."""
    node.grants = False
    script = "import os\nfor _ in range(160): os.write(1, b'x' * 65536)"
    number = await node.start("python3", "-c", script)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    ended = await node.end(number)
    node.grants = True
    node.grant(reading, 2 * WINDOW)
    lost = taken = 0
    while not isinstance(heard := await node.next_of(reading), OutputDrained):
        if isinstance(heard, OutputLost):
            lost += heard.omitted
        elif isinstance(heard, Data):
            taken += len(heard.payload)
    assert ended.output == 160 * 65536 == lost + taken
    assert lost > 0
