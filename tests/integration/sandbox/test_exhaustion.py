"""A program that takes too much is ended or refused it, and nothing else is affected."""

import asyncio
import time

from runner.sandbox import drive
from runner.words.execution import Program
from runner.words.states import Reason, State
from tests.support.sandboxes import MB, Bench


async def test_the_deadline_holds_against_a_program_that_ignores_sigterm(bench: Bench) -> None:
    """It gets SIGTERM and then SIGKILL; its output until then is kept."""
    began = time.monotonic()
    ran = await bench.bash("trap '' TERM; echo partial; while :; do sleep 1; done", timeout_s=1.0)
    assert ran.verdict[:2] == (State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT)
    assert ran.stdout == b"partial\n"
    assert "timeout_s" in ran.ending.limits_hit
    assert ran.ending.usage.cpu_s is not None
    assert time.monotonic() - began < 5


async def test_a_program_told_to_end_may_tidy_up(bench: Bench) -> None:
    """Within the grace after SIGTERM a program can still write, and its files are collected."""
    ran = await bench.bash(
        "trap 'echo saved > state; exit 0' TERM; echo ready; while :; do sleep 0.05; done",
        timeout_s=1.0,
        grace_s=3.0,
    )
    assert ran.verdict.state is State.TIMED_OUT
    assert ran.ending.exit_code == 0
    assert ran.files == {"state": b"saved\n"}


async def test_a_program_that_stops_itself_does_not_outlive_the_deadline(bench: Bench) -> None:
    """SIGSTOP does not evade the deadline."""
    ran = await bench.bash("trap '' TERM; kill -STOP $$; sleep 60", timeout_s=0.5)
    assert ran.verdict.state is State.TIMED_OUT
    assert ran.ending.usage.wall_s < 3


async def test_cancelling_ends_the_program(bench: Bench) -> None:
    """The result distinguishes a cancellation from a deadline."""
    ran = await bench.bash("sleep 60", cancel_after=0.2)
    assert ran.verdict[:2] == (State.CANCELLED, Reason.CANCEL_REQUESTED)
    assert ran.ending.usage.wall_s < 3


async def test_too_much_memory_ends_as_out_of_memory(bench: Bench) -> None:
    """The kernel's counter says it, not the exit code."""
    ran = await bench.python("x = bytearray(400 * 2**20)", memory_mb=128)
    assert ran.verdict[:2] == (State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT)
    assert "memory_mb" in ran.ending.limits_hit


async def test_files_in_tmpfs_count_as_memory(bench: Bench) -> None:
    """Writing to memory-backed folders is no way around the memory limit."""
    ran = await bench.bash("head -c 100M /dev/zero > /tmp/a", memory_mb=64, disk_mb=128)
    assert ran.ending.oom_killed
    assert ran.verdict.state is State.OUT_OF_MEMORY


async def test_what_a_program_left_before_its_files_filled_the_memory_is_kept(
    bench: Bench,
) -> None:
    """Handing files back needs no new process, for which no memory is left.

    Rarely the kernel finds PID 1 short of memory while what it killed has not let go of its own,
    and kills that, too (once in some 200 times): then there is nobody to hand them back.
    """
    for _ in range(4):
        ran = await bench.bash(
            "echo kept > small; head -c 100M /dev/zero > large",
            memory_mb=64,
            disk_mb=128,
            max_bytes=MB,
        )
        assert ran.verdict.state is State.OUT_OF_MEMORY
        if not ran.ending.container_died:
            break
    assert ran.files == {"small": b"kept\n"}


async def test_a_fork_bomb_meets_the_pids_limit(bench: Bench) -> None:
    """The bomb is refused more processes, and is ended with all it started."""
    ran = await bench.bash(
        "bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 0.5", timeout_s=5.0, pids=32
    )
    assert "pids" in ran.ending.limits_hit
    assert ran.ending.usage.pids_peak is not None
    assert ran.ending.usage.pids_peak <= 33


async def test_a_full_pids_limit_does_not_save_a_program_from_the_deadline(bench: Bench) -> None:
    """Ending a sandbox full of processes needs no new process."""
    ran = await bench.python(
        "import os, time, signal\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "except OSError: print('full', flush=True)\n"
        "time.sleep(60)",
        timeout_s=1.5,
        pids=32,
    )
    assert ran.stdout == b"full\n"
    assert ran.verdict.state is State.TIMED_OUT
    assert ran.ending.usage.wall_s < 5


async def test_a_full_disk_is_the_programs_error(bench: Bench) -> None:
    """Every writable place has a limit of its own."""
    ran = await bench.bash(
        "for d in /workspace /tmp /dev/shm; do for n in 1 2 3; do head -c 6M /dev/zero > $d/$n; "
        "done 2>&1 | grep -om1 'No space left'; done; true",
        disk_mb=8,
        memory_mb=128,
    )
    assert ran.stdout == b"No space left\n" * 3
    assert ran.verdict.state is State.SUCCEEDED
    assert "disk_mb" in ran.ending.limits_hit


async def test_a_million_files_meet_the_inode_limit(bench: Bench) -> None:
    """Empty files cost kernel memory that no byte limit counts: their number is limited."""
    ran = await bench.python(
        "import errno\n"
        "for folder in ('/workspace', '/tmp', '/dev/shm'):\n"
        "    try:\n"
        "        for n in range(1_000_000): open(f'{folder}/{n}', 'w').close()\n"
        "    except OSError as error: print(folder, errno.errorcode[error.errno], n < 10_000)",
        disk_mb=8,
    )
    assert ran.stdout == b"".join(
        f"{folder} ENOSPC True\n".encode()
        for folder in ("/workspace", "/tmp", "/dev/shm")  # noqa: S108 - the sandbox's own
    )


async def test_more_output_than_kept_is_counted_and_dropped(bench: Bench) -> None:
    """Each stream keeps its first part; the rest is only counted."""
    ran = await bench.bash("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2", output_kb=64)
    assert len(ran.stdout) == len(ran.stderr) == 64 * 1024
    assert (ran.ending.stdout.total_bytes, ran.ending.stdout.truncated) == (5_000_000, True)
    assert (ran.ending.stderr.total_bytes, ran.ending.stderr.truncated) == (3_000_000, True)
    assert ran.verdict.state is State.SUCCEEDED
    assert ran.ending.limits_hit == ("output_kb",)


async def test_a_gigabyte_of_output_ends_as_a_flood(bench: Bench) -> None:
    """A flood is ended, and costs the worker what it keeps, no more."""
    ran = await bench.bash("yes | head -c 1G", flood_bytes=64 * MB, output_kb=16)
    assert ran.verdict[:2] == (State.OUTPUT_LIMIT_EXCEEDED, Reason.OUTPUT_FLOOD)
    assert len(ran.stdout) == 16 * 1024
    assert 64 * MB < ran.ending.stdout.total_bytes < 1024 * MB


async def test_a_slow_reader_slows_the_program_instead_of_buffering(bench: Bench) -> None:
    """Output that the worker does not take yet stays in the program's hands."""
    stuck = asyncio.Event()
    taken = 0

    async def on_output(_stream: object, chunk: bytes) -> None:
        nonlocal taken
        taken += len(chunk)
        await stuck.wait()

    async with bench.sandbox(output_kb=4096) as sandbox:
        run = asyncio.create_task(
            drive.run(
                sandbox,
                Program(("bash", "-c", "head -c 3M /dev/zero; date +%s.%N > /workspace/end"), {}),
                bench.within(output_kb=4096).bounds,
                on_output=on_output,
            )
        )
        await asyncio.sleep(0.7)
        assert not run.done()
        assert taken <= 64 * 1024
        stuck.set()
        ending = (await run).ending
        assert ending.stdout.total_bytes == taken == 3 * MB


async def test_a_neighbour_does_not_feel_it(bench: Bench) -> None:
    """Beside a fork bomb, a memory bomb and a flood, another sandbox's run succeeds."""
    hostile = [
        bench.bash("bomb() { bomb | bomb & }; bomb 2>/dev/null; sleep 3", pids=64),
        bench.python("x = bytearray(400 * 2**20)", memory_mb=64),
        bench.bash("yes", flood_bytes=32 * MB),
    ]
    *_, ran = await asyncio.gather(*hostile, bench.python("print(sum(range(10**6)))"))
    assert ran.stdout == b"499999500000\n"
    assert ran.verdict.state is State.SUCCEEDED
