"""A sandbox outlives its node's process: it goes on, and comes back with its secret."""

import asyncio
import importlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from runner.protocol.greeting import ANSWERS, Agree, Returning, framed
from runner.protocol.living_commands import Attach, ListProcesses, ReadFile
from runner.protocol.living_events import (
    OutputDrained,
    ProcessesListed,
    ProcessExited,
    ProcessKnown,
)
from tests.support.living import SUPERVISOR, WITHIN_S, Sandbox

SECRET = "0123456789abcdef" * 4


@pytest.fixture
def returning(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Return the supervisor's module."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(SUPERVISOR)
    yield importlib.import_module("returning")
    for name in sys.modules.keys() - before:
        del sys.modules[name]


def has_ended(pid: Path) -> bool:
    """Return whether the process that has written its id to a file has ended and was reaped."""
    said = pid.read_text() if pid.exists() else ""
    return said.endswith("\n") and not psutil.pid_exists(int(said))


async def test_processes_go_on_and_are_known_afterwards(sandbox: Sandbox) -> None:
    node = await sandbox.start(secret=SECRET)
    script = "echo $$ > pid; while [ ! -e go ]; do sleep 0.02; done; echo meanwhile"
    quick = await node.start("sh", "-c", script)
    slow = await node.start("cat", stdin=True, label="kept")
    node.open(Attach(process=slow, offset=0, follow=True))
    sandbox.deaf()
    await node.close()
    (sandbox.workspace / "go").touch()
    async with asyncio.timeout(WITHIN_S):
        while not has_ended(sandbox.workspace / "pid"):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.02)
    await sandbox.listen()
    again = await sandbox.connection()
    assert await again.hear_first_word() == Returning(generations=(2,), secret=SECRET)
    again.listen()
    again.say(0, ListProcesses())
    first = await again.expect(0, ProcessKnown)
    second = await again.expect(0, ProcessKnown)
    assert (first.process, first.ended, first.exit_code, first.output) == (quick, True, 0, 10)
    assert (second.process, second.ended, second.label, second.stdin) == (slow, False, "kept", True)
    again.next = (await again.expect(0, ProcessesListed)).next_stream
    assert again.next > slow + 1
    await again.send(slow, b"hello\n" * 100_000)
    reading = again.open(Attach(process=quick, offset=0, follow=True))
    got, _ = await again.until(reading, OutputDrained)
    assert got[b"O"] == b"meanwhile\n"


async def test_a_new_connection_may_come_at_any_time(sandbox: Sandbox) -> None:
    """In the middle of input, output and files, and again and again."""
    (sandbox.workspace / "a").write_bytes(b"x" * 5_000_000)
    node = await sandbox.start()
    number = await node.start("cat", stdin=True)
    for _ in range(5):
        node.open(Attach(process=number, offset=0, follow=True))
        node.open(ReadFile(path="a", offset=0, length=-1))
        await node.send(number, b"y" * 1_000_000)
        await node.close()
        node = await sandbox.connection()
        await node.hear_first_word()
        node.listen()
        node.say(0, ListProcesses())
        assert (await node.expect(0, ProcessKnown)).process == number
        node.next = (await node.expect(0, ProcessesListed)).next_stream


async def test_who_hangs_up_before_a_word_is_tried_again(sandbox: Sandbox) -> None:
    node = await sandbox.start(secret=SECRET)
    await node.close()
    for _ in range(3):
        await (await sandbox.connection()).close()
    again = await sandbox.connection()
    assert await again.hear_first_word() == Returning(generations=(2,), secret=SECRET)
    again.listen()
    await again.ping()


async def test_without_a_node_it_ends_in_time(sandbox: Sandbox) -> None:
    """It also ends if somebody answers the door and says nothing."""
    node = await sandbox.start(alone_s=1)
    assert sandbox.process is not None
    await node.close()
    began = time.monotonic()
    assert await asyncio.wait_for(sandbox.process.wait(), WITHIN_S) == 0
    assert time.monotonic() - began > 0.5


async def test_however_often_it_is_hung_up_on_it_waits_for_one_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, returning: ModuleType
) -> None:
    """Nothing of a knock is left behind, nor of all of them once somebody has answered."""
    monkeypatch.setattr(returning, "SOCKET", str(tmp_path / "s"))
    monkeypatch.setattr(returning, "EVERY_S", 0.01)
    loop = importlib.import_module("loop").Loop()
    met: list[Any] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(5)
        returning.Return(loop, SECRET, 60, met.append)
        for _ in range(20):
            listener.accept()[0].close()
            loop.wait(busy=False)
            loop.wait(busy=False)
        assert len(loop._timers) <= 2
        answering, _ = listener.accept()
        with answering:
            answering.sendall(framed(ANSWERS.encode(Agree(2))))
            while not met:
                loop.wait(busy=False)
            assert loop._timers == []
            met[0].close()


async def test_a_process_that_ends_while_nobody_is_there_is_not_told_twice(
    sandbox: Sandbox,
) -> None:
    node = await sandbox.start()
    number = await node.start("true")
    assert await node.end(number) == ProcessExited(exit_code=0, signal=None, output=0)
    await node.close()
    again = await sandbox.connection()
    await again.hear_first_word()
    again.listen()
    await again.ping()
    assert again.silent(number)
