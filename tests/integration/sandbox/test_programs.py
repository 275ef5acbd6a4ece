"""A program runs, its output comes back, and its end is reported correctly."""

from runner.words.execution import InputFile
from runner.words.states import Reason, State
from tests.support.sandboxes import Bench


async def test_output_exit_code_and_usage_are_reported(bench: Bench) -> None:
    """A program's two outputs, exit code and usage come back."""
    ran = await bench.python("import sys; print('out'); print('err', file=sys.stderr); exit(3)")
    assert (ran.stdout, ran.stderr) == (b"out\n", b"err\n")
    assert ran.ending.exit_code == 3
    assert ran.verdict[:2] == (State.FAILED, Reason.EXIT_NONZERO)
    assert 0 < ran.ending.usage.wall_s < 10
    assert ran.ending.usage.cpu_s is not None
    assert 0 < ran.ending.usage.cpu_s < 5
    assert ran.ending.usage.memory_peak_bytes is not None
    assert ran.ending.usage.memory_peak_bytes > 2**20


async def test_stdin_environment_and_files_reach_the_program(bench: Bench) -> None:
    """Input comes by stdin, environment and files, in the workspace."""
    ran = await bench.bash(
        'cat; echo "$GREETING"; cat data/in.bin; pwd',
        stdin=b"from stdin\n" * 20_000,
        env={"GREETING": "grüß dich"},
        files=[InputFile("data/in.bin", b"\x00\xff\n")],
    )
    expected = b"from stdin\n" * 20_000 + "grüß dich\n".encode() + b"\x00\xff\n/workspace\n"
    assert ran.stdout == expected
    assert ran.verdict.state is State.SUCCEEDED


async def test_a_program_that_ignores_a_large_stdin_is_not_held_up(bench: Bench) -> None:
    """Stdin that nobody reads blocks nothing."""
    ran = await bench.bash("echo done", stdin=b"x" * 2_000_000)
    assert ran.stdout == b"done\n"


async def test_bytes_that_are_no_text_come_back_unchanged(bench: Bench) -> None:
    """Output is bytes, including NUL and invalid UTF-8."""
    ran = await bench.python("import os; os.write(1, bytes(range(256)) * 1000)")
    assert ran.stdout == bytes(range(256)) * 1000


async def test_a_program_ended_by_a_signal_is_reported_with_its_name(bench: Bench) -> None:
    """An end by a signal has its own reason."""
    ran = await bench.bash("kill -SEGV $$")
    assert ran.ending.signal == 11
    assert ran.verdict == (
        State.FAILED,
        Reason.KILLED_BY_SIGNAL,
        "The program was ended by SIGSEGV.",
    )


async def test_a_command_that_does_not_exist_is_not_started(bench: Bench) -> None:
    """The result says so instead of giving an exit code."""
    ran = await bench.run(("no-such-command",))
    assert ran.ending.not_started == "ENOENT"
    assert ran.verdict[:2] == (State.FAILED, Reason.COMMAND_NOT_STARTED)


async def test_a_file_that_is_not_executable_is_not_started(bench: Bench) -> None:
    """A plain file is not a command."""
    ran = await bench.run(("./notes",), files=[InputFile("notes", b"hello")])
    assert ran.ending.not_started == "EACCES"


async def test_a_program_inherits_nothing_but_its_three_streams(bench: Bench) -> None:
    """It has no descriptor above 2, default signal actions, and its own session."""
    ran = await bench.run(
        (
            "python3",
            "-I",
            "-S",
            "-c",
            (
                "import os\n"
                "print([n for n in range(3, 4096) if os.path.exists(f'/proc/self/fd/{n}')])\n"
                "print([l for l in open('/proc/self/status') if l.startswith('SigBlk')])\n"
                "print(os.getsid(0) == os.getpid())"
            ),
        )
    )
    assert ran.stdout.splitlines() == [
        b"[]",
        b"['SigBlk:\\t0000000000000000\\n']",
        b"True",
    ]


async def test_closed_outputs_do_not_end_the_run(bench: Bench) -> None:
    """A program may close its pipes and continue."""
    ran = await bench.bash("echo before; exec >&- 2>&-; sleep 0.3; echo later > made")
    assert ran.stdout == b"before\n"
    assert ran.files == {"made": b"later\n"}
    assert ran.verdict.state is State.SUCCEEDED


async def test_what_a_program_leaves_running_ends_with_it(bench: Bench) -> None:
    """Daemons and double forks do not outlive the program, nor hold its result back."""
    ran = await bench.bash(
        "(setsid bash -c 'trap \"\" TERM HUP; while :; do sleep 0.05; echo x >> grown; done' &) "
        "; sleep 0.3; echo end"
    )
    assert ran.stdout == b"end\n"
    assert ran.ending.usage.wall_s < 5
    assert ran.files["grown"].startswith(b"x")


async def test_orphans_by_the_thousand_are_reaped(bench: Bench) -> None:
    """Zombies do not fill the pids limit."""
    ran = await bench.python(
        "import os, time\n"
        "for _ in range(2000):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        if os.fork() == 0: os._exit(0)\n"
        "        os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "print('reaped')"
    )
    assert ran.stdout == b"reaped\n"


async def test_the_data_stack_and_the_shell_tools_work(bench: Bench) -> None:
    """Everything that the image promises runs under its seccomp profile and limits."""
    ran = await bench.bash(
        "set -e\n"
        "python3 - <<'PY'\n"
        "import asyncio, multiprocessing, sqlite3, subprocess, threading\n"
        "import numpy, pandas, matplotlib.pyplot as plt\n"
        "assert (numpy.eye(200) @ numpy.eye(200)).sum() == 200\n"
        "assert pandas.DataFrame({'a': [1, 2]}).a.sum() == 3\n"
        "plt.plot([1, 2]); plt.savefig('chart.png')\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "with multiprocessing.Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]\n"
        "assert subprocess.check_output(['echo', 'x']) == b'x\\n'\n"
        "asyncio.run(asyncio.sleep(0))\n"
        "sqlite3.connect('db').execute('create table t (a)')\n"
        "PY\n"
        "git init -q repo && cd repo && echo a > f && git add f\n"
        "git -c user.name=a -c user.email=a@b commit -qm first && git log --oneline | wc -l\n"
        "cd .. && tar czf repo.tgz repo && rm -r repo && tar xzf repo.tgz && rm -r repo\n"
        "curl --version > /dev/null; pip --version > /dev/null\n",
        memory_mb=512,
    )
    assert ran.ending.exit_code == 0, ran.stderr
    assert ran.stdout == b"thread\n1\n"
    assert set(ran.files) == {"chart.png", "db", "repo.tgz"}
    assert ran.files["chart.png"].startswith(b"\x89PNG")


async def test_a_run_of_python_writes_no_bytecode(bench: Bench) -> None:
    """Imports of the program's own modules leave no artifacts."""
    ran = await bench.python(
        "import helper; print(helper.x)", files=[InputFile("helper.py", b"x = 1")]
    )
    assert ran.stdout == b"1\n"
    assert ran.files == {}
