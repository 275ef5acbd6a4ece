"""A node and a real supervisor: processes, files and ports of a sandbox that lives."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from runner.protocol.living_events import ProcessExited
from runner.sandbox.guest.channel import Closed
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.guest.meeting import meet_again
from runner.sandbox.guest.patience import Patience
from runner.words.errors import GuestRefused, LaunchFailed
from runner.words.execution import Program, Stream
from runner.words.living import OutputGap, OutputPiece, TerminalSize
from tests.support.housed import House, house

MB = 2**20


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as opened:
        yield opened


@pytest.fixture
async def living(home: House) -> LivingSandbox:
    return await home.start()


def program(*argv: str) -> Program:
    """Return a program in the workspace."""
    return Program(argv, {"PATH": os.environ["PATH"]}, cwd=".")


def shell(script: str) -> Program:
    """Return a shell's program."""
    return program("sh", "-c", script)


async def output(living: LivingSandbox, number: int, offset: int = 0) -> bytes:
    """Return what a process puts out, on both its outputs, until it has ended."""
    async with living.process(number).attach(offset) as attached:
        return b"".join([each.data async for each in attached if isinstance(each, OutputPiece)])


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    """Yield pieces."""
    for piece in pieces:
        yield piece


# Processes.


async def test_a_process_is_started_and_its_output_read_with_offsets(
    living: LivingSandbox,
) -> None:
    process = await living.start(shell("echo out; read go; echo wrong >&2; exit 3"), stdin=True)
    async with process.attach() as attached:
        output_ = aiter(attached)
        pieces = [await anext(output_)]
        await process.write(b"go\n")
        pieces += [piece async for piece in output_]
    assert pieces == [
        OutputPiece(Stream.STDOUT, 0, b"out\n"),
        OutputPiece(Stream.STDERR, 4, b"wrong\n"),
    ]
    assert attached.offset == 10
    assert await process.exited == ProcessExited(exit_code=3, signal=None, output=10)
    assert await output(living, process.number, 4) == b"wrong\n"


async def test_a_process_is_started_and_read_from_its_first_byte_on(
    living: LivingSandbox,
) -> None:
    """However little of its output is kept."""
    hasty = shell("head -c 3000000 /dev/zero")
    async with living.start_attached(hasty, keep_bytes=65536) as (process, attached):
        pieces = [piece async for piece in attached]
    assert sum(len(piece.data) for piece in pieces if isinstance(piece, OutputPiece)) == 3_000_000
    assert (await process.exited).exit_code == 0
    with pytest.raises(GuestRefused, match=r"^no-such-program: ENOENT"):
        await living.start_attached(program("no-such-program")).__aenter__()
    await living.ping()
    assert living.processes == [process]


async def test_a_program_that_is_not_there_is_refused_by_name(living: LivingSandbox) -> None:
    with pytest.raises(GuestRefused, match=r"^no-such-program: ENOENT") as caught:
        await living.start(program("no-such-program"))
    assert caught.value.errno == "ENOENT"
    assert living.processes == []


async def test_stdin_is_written_as_the_program_reads_it(living: LivingSandbox) -> None:
    """Far more than a window holds."""
    process = await living.start(program("wc", "-c"), stdin=True)
    await process.write(bytes(3 * MB))
    process.close_stdin()
    assert (await output(living, process.number)).strip() == str(3 * MB).encode()


async def test_a_program_that_does_not_read_holds_up_nobody_else(living: LivingSandbox) -> None:
    sleeper = await living.start(program("sleep", "60"), stdin=True)
    writing = asyncio.create_task(sleeper.write(bytes(3 * MB)))
    other = await living.start(shell("echo here"))
    assert await output(living, other.number) == b"here\n"
    assert not writing.done()
    sleeper.signal(signal.SIGKILL)
    assert (await sleeper.exited).signal == signal.SIGKILL
    # What was written before its end was known went nowhere, as with a pipe.
    with contextlib.suppress(GuestRefused):
        await writing
    with pytest.raises(GuestRefused, match="EPIPE"):
        await sleeper.write(b"x")


async def test_a_terminal_has_a_size_that_changes(living: LivingSandbox) -> None:
    script = shell("stty size; read line; stty size; echo got $line")
    process = await living.start(script, stdin=True, terminal=TerminalSize(24, 80))
    process.resize(TerminalSize(40, 132))
    await process.write(b"hello\n")
    said = (await output(living, process.number)).decode()
    assert "40 132" in said
    assert "got hello" in said


async def test_many_processes_write_at_once_and_each_is_read_whole(living: LivingSandbox) -> None:
    script = shell("for i in $(seq 2000); do echo $0-$i; done")
    started = [await living.start(script) for _ in range(12)]
    told = await asyncio.gather(*(output(living, each.number) for each in started))
    assert {text.count(b"\n") for text in told} == {2000}


async def test_output_beyond_what_is_kept_is_told_as_a_gap(living: LivingSandbox) -> None:
    process = await living.start(shell("head -c 300000 /dev/zero"), keep_bytes=1000)
    await process.exited
    async with process.attach() as attached:
        gap, *pieces = [piece async for piece in attached]
    assert isinstance(gap, OutputGap)
    kept = sum(len(piece.data) for piece in pieces if isinstance(piece, OutputPiece))
    assert (gap.offset, gap.omitted + kept, attached.offset) == (0, 300000, 300000)


async def test_an_offset_beyond_the_output_is_refused(living: LivingSandbox) -> None:
    process = await living.start(program("true"))
    await process.exited
    with pytest.raises(GuestRefused, match="EINVAL"):
        await output(living, process.number, 1)


async def test_a_forgotten_process_is_killed_and_nowhere_any_more(living: LivingSandbox) -> None:
    process = await living.start(program("sleep", "60"))
    living.forget(process.number)
    with pytest.raises(GuestRefused, match="ESRCH"):
        await process.exited
    with pytest.raises(GuestRefused, match="ESRCH"):
        living.process(process.number)
    await living.ping()
    assert await living.list_processes() == []


async def test_nothing_is_granted_for_what_a_forgotten_process_has_not_read(
    living: LivingSandbox,
) -> None:
    """Its stream has ended, and the sandbox would be given up."""
    process = await living.start(program("sleep", "60"), stdin=True)
    writing = asyncio.create_task(process.write(bytes(3 * MB)))
    await living.ping()
    await asyncio.sleep(0.1)
    living.forget(process.number)
    with pytest.raises(GuestRefused, match="EPIPE"):
        await writing
    await living.ping()


async def test_a_start_that_nobody_waits_for_leaves_no_process(living: LivingSandbox) -> None:
    starting = asyncio.create_task(living.start(program("sleep", "60")))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await living.ping()
    assert await living.list_processes() == []


async def test_a_reader_who_leaves_in_the_middle_leaves_the_process(living: LivingSandbox) -> None:
    process = await living.start(shell("while :; do echo more; done"))
    for _ in range(3):
        async with process.attach() as attached:
            async for _piece in attached:
                break
    await living.ping()
    assert not process.exited.done()
    process.signal(signal.SIGTERM)
    assert (await process.exited).signal == signal.SIGTERM


# Files.


async def test_a_file_is_written_and_read_again_in_part(living: LivingSandbox) -> None:
    whole = os.urandom(3 * MB)
    entry = await living.files.write("a/b.bin", chunks(whole[:MB], whole[MB:]), mode=0o600)
    assert (entry.kind, entry.size, entry.mode) == ("file", 3 * MB, 0o600)
    async with living.files.read("a/b.bin") as file:
        assert file.entry == entry
        assert b"".join([chunk async for chunk in file]) == whole
    async with living.files.read("a/b.bin", offset=10, length=20) as file:
        assert b"".join([chunk async for chunk in file]) == whole[10:30]


async def test_a_file_that_is_half_written_is_as_it_was(living: LivingSandbox) -> None:
    """Whoever sent it went away."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"new"
        raise ConnectionResetError

    await living.files.write("a", chunks(b"old"))
    with pytest.raises(ConnectionResetError):
        await living.files.write("a", broken())
    async with living.files.read("a") as file:
        assert [chunk async for chunk in file] == [b"old"]
    await living.ping()
    assert [each.path.rpartition("/")[2] for each in (await living.files.list(".")).entries] == [
        "a"
    ]


async def test_a_file_that_is_not_read_to_its_end_keeps_nobody(living: LivingSandbox) -> None:
    await living.files.write("a", chunks(bytes(4 * MB)))
    for _ in range(5):
        async with living.files.read("a") as file:
            async for _chunk in file:
                break
    await living.ping()


@pytest.mark.parametrize("path", ["none", "none/none"])
async def test_what_is_not_there_is_refused_with_its_errno(
    living: LivingSandbox, path: str
) -> None:
    for work in (
        living.files.stat(path),
        living.files.list(path),
        living.files.remove(path),
        living.files.move(path, "elsewhere"),
        living.files.read(path).__aenter__(),
        living.files.watch(path).__aenter__(),
    ):
        with pytest.raises(GuestRefused, match=f"^{path}: ENOENT") as caught:
            await work
        assert (caught.value.errno, caught.value.what) == ("ENOENT", path)


async def test_folders_are_made_moved_listed_and_removed(living: LivingSandbox) -> None:
    files = living.files
    assert (await files.make_folder("one/two")).kind == "folder"
    await files.write("one/two/three", chunks(b"3"))
    with pytest.raises(GuestRefused, match="EEXIST"):
        await files.move("one", "one/two/three")
    await files.move("one", "uno")
    listed = await files.list(".", depth=3)
    assert sorted(each.path.rpartition("/")[2] for each in listed.entries) == [
        "three",
        "two",
        "uno",
    ]
    assert not listed.more
    with pytest.raises(GuestRefused, match="ENOTEMPTY"):
        await files.remove("uno")
    await files.remove("uno", recursive=True)
    assert (await files.list(".")).entries == ()


async def test_a_long_list_is_cut_and_says_so(living: LivingSandbox) -> None:
    made = await living.start(shell("for i in $(seq 3000); do : > file-with-a-long-name-$i; done"))
    await made.exited
    listed = await living.files.list(".", most=2500)
    assert (len(listed.entries), listed.more) == (2500, True)
    assert len({each.path for each in (await living.files.list(".")).entries}) == 3000


async def test_names_that_are_no_text_harm_nobody(living: LivingSandbox) -> None:
    made = await living.start(program("python3", "-c", r"open(b'\xff\n\x1b[2J', 'w')"))
    assert (await made.exited).exit_code == 0
    (entry,) = (await living.files.list(".")).entries
    assert entry.kind == "file"
    entry.path.encode()
    await living.ping()


async def test_sizes_and_times_beyond_all_reason_harm_nobody(living: LivingSandbox) -> None:
    script = "truncate -s 7E large; touch -d @-99999999999 old; touch -d @99999999999 new"
    made = await living.start(shell(script))
    await made.exited
    assert {each.kind for each in (await living.files.list(".")).entries} == {"file"}
    await living.ping()


async def test_changes_are_told_as_they_happen(living: LivingSandbox) -> None:
    async with living.files.watch(".") as watch:
        changes = aiter(watch)
        seen: set[tuple[str, str]] = set()
        for script, change in (
            ("mkdir new", ("made", "new")),
            ("echo x > new/file", ("written", "file")),
            ("rm new/file", ("removed", "file")),
        ):
            await living.start(shell(script))
            while change not in seen:
                told = await anext(changes)
                seen |= {(each.kind, each.path.rpartition("/")[2]) for each in told.changes}
    await living.ping()


# Ports.


async def test_a_port_is_dialled_and_each_direction_ends_by_itself(living: LivingSandbox) -> None:
    server = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); c, _ = s.accept(); got = b''\n"
        "while data := c.recv(65536): got += data\n"
        "c.sendall(b'got %d' % len(got)); c.close()"
    )
    process = await living.start(program("python3", "-c", server))
    async with process.attach() as attached:
        async for piece in attached:
            assert isinstance(piece, OutputPiece)
            port = int(piece.data)
            break
    async with living.dial(port) as dialled:
        await dialled.write(bytes(2 * MB))
        dialled.finish()
        assert await dialled.read() == f"got {2 * MB}".encode()
        assert await dialled.read() == b""
        assert await dialled.read() == b""
    await process.exited
    with pytest.raises(GuestRefused, match="ECONNREFUSED"):
        await living.dial(port).__aenter__()


# Its life.


async def test_a_sandbox_outlives_its_node_and_is_taken_over(home: House) -> None:
    """Processes never stopped; output that came meanwhile is there; what has ended is known."""
    before = await home.start()
    running = await before.start(
        shell("echo one; while [ ! -e go ]; do sleep 0.02; done; echo two; cat"),
        stdin=True,
        label='{"tag": "it"}',
    )
    ended = await before.start(shell("exit 7"))
    await ended.exited
    before.leave()
    with pytest.raises(Closed):
        await before.ping()
    (home.workspace / "go").touch()
    after = await home.adopt()
    assert [each.number for each in after.processes] == [running.number, ended.number]
    same = after.process(running.number)
    assert (same.label, same.stdin, same.terminal) == ('{"tag": "it"}', True, False)
    await same.write(b"three\n")
    same.close_stdin()
    assert await output(after, same.number) == b"one\ntwo\nthree\n"
    assert (await same.exited).exit_code == 0
    assert (await after.process(ended.number).exited).exit_code == 7
    new = await after.start(program("true"))
    assert new.number > ended.number


async def test_as_many_processes_as_are_remembered_are_taken_over(home: House) -> None:
    """Their labels are as long as can be, and the sandbox is read from no faster than others."""
    before = await home.start()
    label = "\U0001f600" * 8 * 1024
    started = [await before.start(program("true"), label=label) for _ in range(256)]
    await asyncio.gather(*(each.exited for each in started))
    home.waits = Patience(2)
    before.leave()
    after = await home.adopt()
    assert len(after.processes) == len(await after.list_processes()) == 256
    assert after.processes[-1].label == label


async def test_a_process_that_ends_as_the_node_returns_is_known_to_have_ended(
    home: House,
) -> None:
    before = await home.start()
    started = [await before.start(shell(f"sleep 0.{n:02}")) for n in range(20, 60, 2)]
    before.leave()
    after = await home.adopt()
    ends = await asyncio.gather(*(after.process(each.number).exited for each in started))
    assert {end.exit_code for end in ends} == {0}


async def test_a_supervisor_with_another_secret_is_not_taken_over(home: House) -> None:
    before = await home.start()
    before.leave()
    with pytest.raises(LaunchFailed, match="did not return"):
        await home.adopt("00" * 32, timeout_s=1.0)
    await (await home.adopt()).ping()


async def test_strangers_at_the_socket_keep_no_supervisor_away(home: House) -> None:
    """Programs of the tenant are the same user, and can connect once nobody is there."""
    before = await home.start()
    before.leave()
    with home.door() as listener:
        strangers = []
        # One after the other, those who say too little would take longer than all may.
        for word in (b"C\0\0\0\2[]", b"X\0\0\0\1x", b"C\xff\xff\xff\xff", *[b"", b"C"] * 6):
            reader, writer = await asyncio.open_unix_connection(home.socket)
            writer.write(word)
            strangers.append((reader, writer))
        channel = await meet_again(listener, home.awaited(), 11.0)
    channel.close()
    for reader, writer in strangers:
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()


KNOCKING = """
import socket, sys
while True:
    caller = socket.socket(socket.AF_UNIX)
    try:
        caller.connect(sys.argv[1])
        caller.sendall(b'C')
        print(flush=True)
    except OSError:
        pass
"""


async def test_a_flood_of_strangers_costs_little_and_is_logged_once(home: House) -> None:
    with home.door() as listener, capture_logs() as logged:
        flood = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KNOCKING, home.socket, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert flood.stdout is not None
            await flood.stdout.readline()
            began = time.process_time()
            with pytest.raises(LaunchFailed):
                await meet_again(listener, home.awaited(), 3.0)
            assert time.process_time() - began < 1.5
        finally:
            flood.kill()
            await flood.wait()
    (line,) = [each for each in logged if "stranger" in each["event"]]
    assert sum(line["seen"].values()) > 10


async def test_another_process_is_not_heard_even_with_the_secret(home: House) -> None:
    """This holds on hosts that show the supervisor's own process."""
    before = await home.start()
    before.leave()
    with home.door() as listener:
        with pytest.raises(LaunchFailed):
            await meet_again(listener, home.awaited(pid=os.getpid()), 1.0)
        assert home.process is not None
        awaited = home.awaited(pid=home.process.pid)
        (await meet_again(listener, awaited, 60.0)).close()


async def test_the_death_of_the_supervisor_is_told_to_everybody(
    home: House, living: LivingSandbox
) -> None:
    process = await living.start(program("sleep", "60"))
    assert home.process is not None
    home.process.kill()
    assert isinstance(await living.lost, Closed)
    with pytest.raises(Closed):
        await process.exited
    with pytest.raises(Closed):
        await living.start(program("true"))
