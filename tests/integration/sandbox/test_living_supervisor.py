"""The supervisor lives in a real container: all that it can be told, behind both walls.

`tests/unit/supervisor` has the details. Here is what a container makes different: users, mounts,
the kernel of gVisor, and PID 1.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from runner.protocol.commands import COMMANDS, Live
from runner.protocol.events import EVENTS, Living
from runner.protocol.frames import Data, frame
from runner.protocol.greeting import Returning
from runner.protocol.living import Terminal
from runner.protocol.living_commands import (
    Attach,
    CloseStdin,
    Dial,
    EndOfBytes,
    ForgetProcess,
    ListProcesses,
    ReadFile,
    SignalProcess,
    StatFile,
    WatchFiles,
    WriteFile,
)
from runner.protocol.living_events import (
    Connected,
    Done,
    Failed,
    FileFound,
    FilesChanged,
    Finished,
    OutputDrained,
    ProcessesListed,
    ProcessKnown,
    Watching,
)
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.guest.sockets import SUPERVISOR_SOCKET, listen, listen_for_egress
from runner.words.sandbox import Isolation
from tests.support import sandboxes
from tests.support.living import WITHIN_S, Node
from tests.support.sandboxes import MB, Bench

SECRET = "0123456789abcdef" * 4


@pytest.fixture(params=[Isolation.CONTAINER, Isolation.GVISOR])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench behind each wall."""
    async with sandboxes.bench(tmp_path, isolation=request.param) as made:
        yield made


async def live(sandbox: Sandbox, *, egress: bool = False) -> Node:
    """Tell a sandbox to live; return the node's end."""
    channel = sandbox._channel
    node = Node(channel._reader, channel._writer)
    told = Live(secret=SECRET, alone_s=60, egress=egress, trust="")
    node.writer.write(frame(b"C", 0, COMMANDS.encode(told)))
    kind, _, payload = await node._frame()
    assert kind == b"C" and EVENTS.decode(payload) == Living()
    node.listen()
    return node


async def output(node: Node, number: int) -> bytes:
    """Return all that a process writes to stdout."""
    reading = node.open(Attach(process=number, offset=0, follow=True))
    got, _ = await node.until(reading, OutputDrained)
    return got[b"O"]


async def seen(node: Node, reading: int, text: bytes) -> bytes:
    """Return the output up to the first occurrence of a text."""
    got = b""
    while text not in got:
        piece = await node.next_of(reading)
        assert isinstance(piece, Data)
        got += piece.payload
    return got


@asynccontextmanager
async def alive(bench: Bench, *, prepared: bool = True) -> AsyncIterator[tuple[Sandbox, Node]]:
    """Launch a sandbox, which lives from then on."""
    async with bench.sandbox() as sandbox:
        if prepared:
            await sandbox.prepare()
        node = await live(sandbox)
        try:
            yield sandbox, node
        finally:
            await node.close()


@pytest.mark.parametrize("prepared", [True, False])
async def test_processes_run_and_end(either: Bench, *, prepared: bool) -> None:
    """It may have a prepared program, like a sandbox from stock, or not."""
    async with alive(either, prepared=prepared) as (_, node):
        numbers = [await node.start("sh", "-c", f"echo {each}; exit {each}") for each in range(9)]
        for each, number in enumerate(numbers):
            assert (await node.end(number)).exit_code == each
            assert await output(node, number) == f"{each}\n".encode()
        sleeper = await node.start("sh", "-c", "sleep 100 & sleep 100; true")
        node.say(sleeper, SignalProcess(number=9))
        assert (await node.end(sleeper)).signal == 9
        number = await node.start("cat", stdin=True)
        await node.send(number, b"x" * 1_000_000)
        node.say(number, CloseStdin())
        assert (await node.end(number)).output == 1_000_000


async def test_a_terminal_is_one(either: Bench) -> None:
    """It is the controlling terminal, so Ctrl-C and job control work."""
    async with alive(either) as (_, node):
        size = Terminal(rows=5, columns=99)
        number = await node.start("bash", "--norc", "--noediting", "-i", terminal=size)
        reading = node.open(Attach(process=number, offset=0, follow=True))
        shown = await seen(node, reading, b"$ ")
        await node.send(number, b"stty size; tty\n")
        shown += await seen(node, reading, b"5 99\r\n/dev/pts/0\r\n")
        if either.isolation is Isolation.CONTAINER:  # gVisor lacks the /dev/tty that bash needs
            assert b"job control" not in shown
            # What says it is the one that sleeps: bash gave it the terminal before it ran.
            await node.send(number, b"sh -c 'echo sleep\\ing; exec sleep 100'\n")
            await seen(node, reading, b"sleeping\r\n")
            await node.send(number, b"\x03")
            await seen(node, reading, b"$ ")
        await node.send(number, b"exit 7\n")
        await node.until(reading, OutputDrained)
        assert (await node.end(number)).exit_code == 7


async def test_files_ports_and_watches_work(either: Bench) -> None:
    async with alive(either) as (_, node):
        watching = node.open(WatchFiles(path=".", recursive=True))
        await node.expect(watching, Watching)
        writing = node.open(WriteFile(path="new/a", mode=0o640, parents=True))
        await node.send(writing, b"x" * 3_000_000)
        node.say(writing, EndOfBytes())
        entry = (await node.expect(writing, FileFound)).entry
        assert (entry.path, entry.size, entry.mode) == ("/workspace/new/a", 3_000_000, 0o640)
        await node.expect(writing, Done)
        reading = node.open(ReadFile(path="new/a", offset=0, length=-1))
        await node.expect(reading, FileFound)
        got, _ = await node.until(reading, Done)
        assert got[b"D"] == b"x" * 3_000_000
        changes = (await node.expect(watching, FilesChanged)).changes
        assert changes[0].path == "/workspace/new"
        server = (
            "import socket\n"
            "served = socket.create_server(('127.0.0.1', 8000))\n"
            "print(flush=True)\n"
            "connection, _ = served.accept()\n"
            "connection.sendall(connection.makefile('rb').read().upper())\n"
        )
        number = await node.start("python3", "-c", server)
        await node.next_of(node.open(Attach(process=number, offset=0, follow=True)))
        dialling = node.open(Dial(port=8000))
        await node.expect(dialling, Connected)
        await node.send(dialling, b"hello")
        node.say(dialling, EndOfBytes())
        got, _ = await node.until(dialling, Finished)
        assert got[b"D"] == b"HELLO"
        await node.expect(dialling, Done)


async def test_the_egress_proxy_is_reached_as_long_as_it_lives(either: Bench) -> None:
    """Many connections use it at once, in both directions to their ends."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    script = (
        "import socket\n"
        "made = [socket.create_connection(('127.0.0.1', 3128)) for _ in range(40)]\n"
        "for each in made: each.sendall(b'x' * 200_000); each.shutdown(socket.SHUT_WR)\n"
        "for each in made: assert each.makefile('rb').read() == b'X' * 200_000\n"
    )
    async with either.sandbox() as sandbox:
        node = await live(sandbox, egress=True)
        server = await asyncio.start_unix_server(
            serve, sock=listen_for_egress(sandbox.container.home)
        )
        for _ in range(3):
            number = await node.start("python3", "-c", script)
            assert (await node.end(number)).exit_code == 0
        await node.ping()
        await node.close()
        server.close()


async def test_nobody_comes_to_what_is_pid_1s(either: Bench) -> None:
    """No program does, and no client through the supervisor. The control is a file beside."""
    async with alive(either) as (_, node):
        script = (
            "cat /proc/1/mem; ls /proc/1/fd;"
            "ln -s /proc/self/fd a; ln -s /proc/1/environ b; ln -s /etc/hostname c;"
            "python3 -c 'import os; print(len(os.listdir(\"/proc/self/fd\")))'"
        )
        number = await node.start("sh", "-c", script)
        said = (await output(node, number)).split()
        assert said[-1] == b"4"
        for path in ("a/3", "b", "/proc/self/mem", "/dev/fd/0", "/sys/kernel"):
            reading = node.open(ReadFile(path=path, offset=0, length=-1))
            assert await node.expect(reading, Failed) == Failed(error="EACCES"), path
        stat = node.open(StatFile(path="/proc/1"))
        assert await node.expect(stat, Failed) == Failed(error="EACCES")
        reading = node.open(ReadFile(path="c", offset=0, length=-1))
        await node.expect(reading, FileFound)
        await node.until(reading, Done)


async def test_a_sandbox_comes_back_to_a_node_that_listens_again(either: Bench) -> None:
    """Its processes continued meanwhile; the folder is the same, the socket is new."""
    async with alive(either) as (sandbox, node):
        number = await node.start("sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.2; done")
        await node.close()
        listener = listen(sandbox.container.home, SUPERVISOR_SOCKET, backlog=1)
        connected: asyncio.Queue[Node] = asyncio.Queue()

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connected.put_nowait(Node(reader, writer))

        server = await asyncio.start_unix_server(arrive, sock=listener)
        again = await asyncio.wait_for(connected.get(), WITHIN_S)
        server.close()
        assert await again.hear_first_word() == Returning(generations=(2,), secret=SECRET)
        again.listen()
        again.say(0, ListProcesses())
        assert (await again.expect(0, ProcessKnown)).process == number
        again.next = (await again.expect(0, ProcessesListed)).next_stream
        assert await output(again, number) == b"1\n2\n3\n4\n5\n"
        await again.close()


@pytest.mark.alone
async def test_pid_1_stays_small_and_answers_while_fifty_processes_write(bench: Bench) -> None:
    """It has 6 MiB for itself when idle, and hardly more later.

    It answers within 20 ms; one in ten may take longer, as the host has other work to do.
    """
    async with alive(bench) as (sandbox, node):
        pid1 = psutil.Process((await bench.launcher.engine.state(sandbox.container.id))["Pid"])
        assert pid1.memory_full_info().uss < 6 * MB
        writers = [
            await node.start("sh", "-c", "exec cat /dev/zero", keep_bytes=2**16) for _ in range(50)
        ]
        await asyncio.sleep(1)
        pings = sorted([await node.ping() for _ in range(100)])
        for number in writers:
            node.say(number, SignalProcess(number=9))
            await node.end(number)
            node.say(number, ForgetProcess())
            await node.expect(number, Done)
        assert pings[90] < 0.02
        await asyncio.sleep(6)  # free memory goes back to the kernel meanwhile
        assert pid1.memory_full_info().uss < 6.5 * MB
