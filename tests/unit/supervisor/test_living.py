"""A sandbox that lives: many processes at once, each with its output, input and end."""

import asyncio
import contextlib
import resource
from pathlib import Path
from typing import NamedTuple

import psutil

from runner.protocol.frames import Data
from runner.protocol.living import Terminal
from runner.protocol.living_commands import (
    Attach,
    CloseStdin,
    ForgetProcess,
    ListProcesses,
    ResizeTerminal,
    SignalProcess,
)
from runner.protocol.living_events import (
    Done,
    Failed,
    OutputDrained,
    ProcessesListed,
    ProcessExited,
    ProcessKnown,
    ProcessNotStarted,
)
from tests.support.living import WITHIN_S, Node, Sandbox


class Footprint(NamedTuple):
    """The memory and the descriptors of a process."""

    descriptors: int
    kib: int


def footprint(pid: int) -> Footprint:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    # Not its share of pages of files, which grows when another Python process of this host ends.
    own = "Anonymous:"
    kib = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith(own))
    return Footprint(len(list(Path(f"/proc/{pid}/fd").iterdir())), kib)


def gone(pid: int) -> bool:
    """Return whether a process ends soon."""
    with contextlib.suppress(psutil.NoSuchProcess):
        _, left = psutil.wait_procs([psutil.Process(pid)], timeout=WITHIN_S)
        return not left
    return True


async def output(node: Node, number: int) -> bytes:
    """Return all that a process puts out on stdout."""
    reading = node.open(Attach(process=number, offset=0, follow=True))
    got, _ = await node.until(reading, OutputDrained)
    return got[b"O"]


async def test_a_process_tells_of_its_output_and_its_end(node: Node) -> None:
    number = await node.start("sh", "-c", "echo out; echo err >&2; exit 3")
    assert await node.end(number) == ProcessExited(exit_code=3, signal=None, output=8)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    got, drained = await node.until(reading, OutputDrained)
    assert (got[b"O"], got[b"E"], drained.offset) == (b"out\n", b"err\n", 8)


async def test_what_cannot_be_started_is_told_and_forgotten(node: Node) -> None:
    missing = node.begin("no-such-program")
    assert await node.expect(missing, ProcessNotStarted) == ProcessNotStarted(error="ENOENT")
    nowhere = node.begin("true", cwd="no/such/folder")
    assert await node.expect(nowhere, ProcessNotStarted) == ProcessNotStarted(error="ENOENT")
    impossible = node.begin("true", "a\0b")
    assert await node.expect(impossible, ProcessNotStarted) == ProcessNotStarted(error="EINVAL")
    node.say(0, ListProcesses())
    assert await node.expect(0, ProcessesListed) == ProcessesListed(next_stream=4)


async def test_input_is_written_and_ended(node: Node) -> None:
    number = await node.start("cat", stdin=True)
    reading = node.open(Attach(process=number, offset=0, follow=True))
    await node.send(number, b"x" * 1_000_000)
    node.say(number, CloseStdin())
    got, _ = await node.until(reading, OutputDrained)
    assert got[b"O"] == b"x" * 1_000_000
    assert (await node.end(number)).exit_code == 0


async def test_a_signal_reaches_the_whole_group(node: Node) -> None:
    number = await node.start("sh", "-c", "sleep 100 & sleep 100; true")
    node.say(number, SignalProcess(number=15))
    assert await node.end(number) == ProcessExited(exit_code=None, signal=15, output=0)


async def test_processes_are_listed_until_they_are_forgotten(node: Node) -> None:
    number = await node.start("sleep", "100", label="mine")
    node.say(0, ListProcesses())
    known = await node.expect(0, ProcessKnown)
    assert (known.process, known.label, known.ended, known.stdin) == (number, "mine", False, False)
    await node.expect(0, ProcessesListed)
    node.say(number, ForgetProcess())
    assert await node.expect(number, Done) == Done(more=False)
    node.say(0, ListProcesses())
    await node.expect(0, ProcessesListed)


async def test_a_ping_is_answered(node: Node) -> None:
    await node.ping()


async def test_a_program_has_its_folder_its_environment_and_nothing_of_the_supervisors(
    node: Node, sandbox: Sandbox
) -> None:
    """Three descriptors, and that by which `ls` looks at them."""
    (sandbox.workspace / "inner").mkdir()
    script = "pwd; echo $A; ls /proc/self/fd | tr '\\n' ' '; readlink /proc/self/fd/0; ulimit -Sn"
    number = await node.start("sh", "-c", script, cwd="inner", env={"A": "b"})
    said = (await output(node, number)).decode().split()
    assert said[:2] == [str(sandbox.workspace / "inner"), "b"]
    assert said[2:7] == ["0", "1", "2", "3", "/dev/null"]
    assert int(said[7]) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def test_a_program_leads_a_session_and_is_the_first_to_go(node: Node) -> None:
    """The kernel, out of memory, ends the program and not the supervisor."""
    script = "read go; ps -o pid= -o pgid= -o sid= -p $$; cat /proc/$$/oom_score_adj; true"
    number = await node.start("sh", "-c", script, stdin=True)
    await node.send(number, b"go\n")
    pid, group, session, score = (await output(node, number)).split()
    assert pid == group == session
    assert score == b"1000"


async def test_signals_are_what_a_program_finds_them_to_be(node: Node) -> None:
    """Python ignores some for itself; the two that glibc keeps for itself do not count."""
    number = await node.start("sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status")
    masks = [int(line.split()[1], 16) for line in (await output(node, number)).splitlines()]
    assert [mask & ~(0b11 << 31) for mask in masks] == [0, 0]


async def test_what_a_process_leaves_running_goes_on_and_is_heard(
    node: Node, sandbox: Sandbox
) -> None:
    script = "echo before; (while [ ! -e go ]; do sleep 0.05; done; echo after) &"
    number = await node.start("sh", "-c", script)
    ended = await node.end(number)
    assert ended.output == 7
    assert await output(node, number) == b"before\n"
    (sandbox.workspace / "go").touch()
    after = b""
    async with asyncio.timeout(WITHIN_S):
        while not after:
            reading = node.open(Attach(process=number, offset=7, follow=False))
            after = (await node.until(reading, OutputDrained))[0][b"O"]
            await asyncio.sleep(0.05)
    assert after == b"after\n"


async def test_a_forgotten_process_is_killed_and_its_readers_end(node: Node) -> None:
    number = await node.start("sh", "-c", "echo $$; sleep 100; true")
    reading = node.open(Attach(process=number, offset=0, follow=True))
    data = await node.next_of(reading)
    assert isinstance(data, Data)
    node.say(number, ForgetProcess())
    await node.expect(number, Done)
    await node.expect(reading, OutputDrained)
    assert await asyncio.to_thread(gone, int(data.payload))
    again = node.open(Attach(process=number, offset=0, follow=True))
    assert await node.expect(again, Failed) == Failed(error="ESRCH")


async def test_a_terminal_is_one(node: Node) -> None:
    """It controls its session, has a size that can change, echoes, and ends its input."""
    program = (
        "import os\n"
        "print(os.isatty(0), os.get_terminal_size().columns, os.environ['TERM'], flush=True)\n"
        "open('/dev/tty').close()\n"
        "print('ready', flush=True)\n"
        "print(input().upper())\n"
        "print(os.get_terminal_size().columns)\n"
        "try:\n    input()\nexcept EOFError:\n    print('end')\n"
    )
    number = await node.start("python3", "-c", program, terminal=Terminal(rows=5, columns=99))
    reading = node.open(Attach(process=number, offset=0, follow=True))
    shown = b""
    while b"ready" not in shown:
        data = await node.next_of(reading)
        assert isinstance(data, Data)
        shown += data.payload
    assert shown.split() == [b"True", b"99", b"xterm-256color", b"ready"]
    node.say(number, ResizeTerminal(terminal=Terminal(rows=5, columns=77)))
    await node.send(number, b"typed\n")
    node.say(number, CloseStdin())
    got, _ = await node.until(reading, OutputDrained)
    assert got[b"O"].replace(b"^D\x08\x08", b"").split() == [b"typed", b"TYPED", b"77", b"end"]
    assert (await node.end(number)).exit_code == 0


async def test_ctrl_c_on_a_terminal_interrupts(node: Node) -> None:
    number = await node.start("sleep", "100", terminal=Terminal(rows=5, columns=80))
    await node.send(number, b"\x03")
    assert (await node.end(number)).signal == 2


async def test_input_for_who_reads_none_is_dropped(node: Node) -> None:
    """Nobody waits for it for ever."""
    number = await node.start("sh", "-c", "exec <&-; sleep 1", stdin=True)
    await node.send(number, b"x" * 2_000_000)
    assert (await node.end(number)).exit_code == 0


async def test_processes_end_one_after_the_other_and_leave_nothing(
    node: Node, sandbox: Sandbox
) -> None:
    """No descriptor stays, and no memory to speak of."""
    assert sandbox.process is not None
    before = None
    for count in range(300):
        number = await node.start("sh", "-c", "echo x")
        await node.end(number)
        node.say(number, ForgetProcess())
        await node.expect(number, Done)
        if count == 100:
            before = footprint(sandbox.process.pid)
    await node.ping()
    assert before is not None
    after = footprint(sandbox.process.pid)
    assert after.descriptors <= before.descriptors
    assert after.kib - before.kib < 200
