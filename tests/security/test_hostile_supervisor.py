"""A supervisor taken over by the program it runs: whatever it says, only its sandbox is lost.

Each test starts a real container whose first process is a script of ours on the same socket.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest

from runner.protocol.messages import VERSION
from runner.sandbox import drive
from runner.sandbox.drive import Shelf, use
from runner.sandbox.engine.spec import container_config
from runner.words.errors import LaunchFailed, ProtocolViolation
from runner.words.execution import InputFile, Program
from tests.support.sandboxes import Bench

PRELUDE = """
import json, socket, struct, time
wire = socket.socket(socket.AF_UNIX)
wire.connect('/run/sandbox/supervisor.sock')
def frame(kind, payload, size=None):
    wire.sendall(struct.pack('>cI', kind, len(payload) if size is None else size) + payload)
def say(name, **facts):
    frame(b'C', json.dumps({'say': name, **facts}).encode())
def hear():
    head = b''
    while len(head) < 5: head += wire.recv(5 - len(head))
    size = struct.unpack('>cI', head)[1]
    while size: size -= len(wire.recv(size))
def end(**facts):
    say('ended', **{'exit_code': 0, 'signal': None, 'stdout': 0, 'stderr': 0,
                    'disk_full': False, **facts})
"""
READY = f"say('ready', version={VERSION})\n"
STARTED = READY + "hear(); hear(); hear(); say('started')\n"  # prepare, run, the program

NOTHING = "say('collected', refused=[], refused_total=0)"

Play = Callable[[str], None]


@pytest.fixture
def play(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return a function that makes a script the first process of every sandbox."""

    def replace(script: str) -> None:
        def config(*args: Any) -> dict[str, Any]:
            code = PRELUDE + script + "\ntime.sleep(60)\n"
            return {**container_config(*args), "Entrypoint": ["/usr/bin/python3", "-c", code]}

        monkeypatch.setattr(bench.launcher.maker, "configure", config)

    return replace


async def run(bench: Bench, **options: Any) -> Any:
    """Run a program in a sandbox of the replaced supervisor."""
    return await bench.run(("true",), timeout_s=2.0, **options)


@pytest.mark.parametrize(
    "script",
    [
        "frame(b'C', b'', 2**32 - 1)",
        "frame(b'D', b'', 65537)",
        "frame(b'X', b'x')",
        "frame(b'C', b'', 0)",
        "frame(b'O', b'too early')",
        'frame(b\'C\', b\'{"say": "ready", "version": 2, "version": 2}\')',
        'frame(b\'C\', b\'{"say": "ready", "version": NaN}\')',
        'frame(b\'C\', b\'{"say": "ready", "version": 1e400}\')',
        "frame(b'C', b'{\"say\": \"ready\", \"version\": ' + b'9' * 5000 + b'}')",
        "frame(b'C', b'{\"say\": \"ready\", \"version\": ' + b'[' * 100000 + b'}')",
        "frame(b'C', b'\\xff\\xfe')",
        "frame(b'C', b'[]')",
        f"say('ready', version={VERSION + 1})",
        "say('ready', version=True)",
        "say('ready', version='1')",
        f"say('ready', version={VERSION}, tenant='other')",
        "say('__class__')",
        "say(['ready'])",
        "wire.close()",
    ],
)
async def test_a_first_word_that_is_not_the_agreed_one_fails_the_launch(
    bench: Bench, play: Play, script: str
) -> None:
    """Oversized, unknown, malformed, ambiguous or forged: the launch fails, nothing stays."""
    play(script)
    with pytest.raises(ProtocolViolation):
        await bench.launcher.launch(bench.order())


async def test_a_partial_frame_and_then_silence_fails_the_launch(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience with a supervisor that stops in the middle is bounded."""
    monkeypatch.setattr(bench.launcher, "report_s", 1.0)
    play("frame(b'C', b'{', 100)")
    with pytest.raises(LaunchFailed):
        await bench.launcher.launch(bench.order())


@pytest.mark.parametrize(
    "script",
    [
        "end(exit_code=None)",
        "end(signal=9)",
        "end(exit_code=256)",
        "end(exit_code=-1)",
        "end(stdout=-1)",
        "end(stdout=2**60)",
        "end(result='mine')",
        "end(disk_full=1)",
        "say('started')",
        "say('ready', version=1)",
        "say('collected', refused=[], refused_total=0)",
        "frame(b'D', b'x')",
        "frame(b'O', b'x' * 10); end(stdout=5)",
        "say('counted', stdout=9, stderr=0); say('counted', stdout=8, stderr=0)",
        "for _ in range(100): frame(b'O', b'x' * 65536)",
    ],
)
async def test_nonsense_about_a_run_is_not_believed(bench: Bench, play: Play, script: str) -> None:
    """Contradictions, forged fields, words out of turn and more output than asked for."""
    play(STARTED + script)
    with pytest.raises(ProtocolViolation):
        await run(bench, output_kb=64)


async def test_endless_reports_end_at_the_deadline(bench: Bench, play: Play) -> None:
    """Valid frames for ever do not keep a run alive."""
    play(STARTED + "while True: say('counted', stdout=0, stderr=0)")
    began = time.monotonic()
    ran = await run(bench)
    assert ran.verdict.state == "timed_out"
    assert time.monotonic() - began < 6


async def test_success_claimed_for_a_killed_program_is_not_believed(
    bench: Bench, play: Play
) -> None:
    """A report of exit code 0 after our deadline changes nothing."""
    play(STARTED + "hear(); end(); hear(); " + NOTHING)
    ran = await run(bench)
    assert ran.ending.exit_code == 0
    assert ran.verdict.state == "timed_out"


async def test_a_second_result_is_not_taken(bench: Bench, play: Play) -> None:
    """The first one counts; the next thing said must belong to what is asked next."""
    play(STARTED + "end(); end(exit_code=1)")
    with pytest.raises(ProtocolViolation):
        await run(bench)


@pytest.mark.parametrize(
    "script",
    [
        "say('artifact', path='../../etc/passwd', size=1)",
        "say('artifact', path='/etc/passwd', size=1)",
        "say('artifact', path='a//b', size=1)",
        "say('artifact', path='a\\nb', size=1)",
        "say('artifact', path='', size=1)",
        "say('artifact', path='\\U0001f40d' * 257, size=1); frame(b'D', b'x'); " + NOTHING,
        "say('artifact', path='a', size=2**40)",
        "say('artifact', path='a', size=1); frame(b'D', b'xx')",
        "say('artifact', path='a', size=1); frame(b'O', b'x')",
        "say('artifact', path='a', size=2); frame(b'D', b'x'); " + NOTHING,
        "for n in range(100): say('artifact', path=str(n), size=1); frame(b'D', b'x')",
        "say('collected', refused=[['a', 'b']] * 51, refused_total=51)",
        "say('collected', refused=[['a']], refused_total=1)",
        "frame(b'D', b'x')",
    ],
)
async def test_forged_artifacts_are_not_taken(bench: Bench, play: Play, script: str) -> None:
    """Names that lead elsewhere, sizes that lie, more than was asked for."""
    play(STARTED + "end(); hear()\n" + script)
    with pytest.raises(ProtocolViolation):
        await run(bench)


async def test_terminal_controls_in_refused_names_are_made_harmless(
    bench: Bench, play: Play
) -> None:
    """Text from a sandbox ends up in a result that people print."""
    play(STARTED + "end(); hear(); say('collected', refused=[['\\x1b[2J', 'x']], refused_total=1)")
    ran = await run(bench)
    assert ran.collected.refused == ("\N{REPLACEMENT CHARACTER}[2J: x",)


async def test_a_supervisor_that_does_not_take_files_is_given_up(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that nobody reads ends by our clock."""
    monkeypatch.setattr("runner.sandbox.guest.patience.UPLOAD_S", 0.5)
    play(READY)
    async with bench.sandbox() as sandbox:
        with pytest.raises(ProtocolViolation, match="in time"):
            await sandbox.upload([InputFile("a", bytes(10_000_000))])


async def test_a_supervisor_that_does_not_hand_files_back_is_given_up(
    bench: Bench, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does a collection."""
    monkeypatch.setattr("runner.sandbox.guest.patience.COLLECT_S", 0.5)
    play(STARTED + "end()")
    async with bench.sandbox() as sandbox:
        with pytest.raises(ProtocolViolation, match="in time"):
            await use(sandbox, Program(("true",), {}), bench.limits.bounds)


async def test_one_connection_is_taken_and_no_second(bench: Bench, play: Play) -> None:
    """The socket is gone once the first has come."""
    play(
        READY + "hear()\n"
        "try:\n"
        "    socket.socket(socket.AF_UNIX).connect('/run/sandbox/supervisor.sock')\n"
        "    say('not_started', error='ECONNECTED')\n"
        "except FileNotFoundError: say('not_started', error='ENOENT')\n"
        "hear(); " + NOTHING
    )
    ran = await run(bench)
    assert ran.ending.not_started == "ENOENT"


async def test_the_sink_never_sees_a_file_that_was_not_whole(bench: Bench, play: Play) -> None:
    """A transfer cut short raises inside the sink, which then keeps nothing."""
    play(
        STARTED
        + "end(); hear(); say('artifact', path='a', size=9); frame(b'D', b'x'); wire.close()"
    )
    shelf = Shelf()
    async with bench.sandbox() as sandbox:
        await drive.run(sandbox, Program(("true",), {}), bench.limits.bounds)
        with pytest.raises(ProtocolViolation):
            await sandbox.collect(max_files=1, max_bytes=9, sink=shelf)
    assert shelf.files == {}
