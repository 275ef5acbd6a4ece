"""Whatever a program does, its execution ends in the right state, and its neighbour succeeds."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent_runner import Execution, Invalid
from runner.base.signing import PublicKey, verify
from runner.store.receipts import KIND
from tests.support.deployment import Deployment
from tests.support.hostile_names import ODD


@dataclass(frozen=True)
class Case:
    """A program, and how its execution must end."""

    code: str
    state: str
    reason: str
    limits: dict[str, Any] = field(default_factory=dict)
    met: tuple[str, ...] = ()
    stdout: bytes | None = None
    language: str = "python"


FILL = """
import os
try:
    {fill}
except OSError as error:
    print(error.strerror)
    raise SystemExit(1)
"""

CASES = {
    "timeout": Case(
        "import time\nprint('begun', flush=True)\ntime.sleep(60)",
        "timed_out", "wall_clock_limit", {"timeout_s": 1}, ("timeout_s",), b"begun\n",
    ),
    "timeout with SIGTERM ignored": Case(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('begun', flush=True)\ntime.sleep(60)",
        "timed_out", "wall_clock_limit", {"timeout_s": 1}, ("timeout_s",), b"begun\n",
    ),
    "timeout of a program that stops itself": Case(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "timed_out", "wall_clock_limit", {"timeout_s": 1}, ("timeout_s",),
    ),
    "out of memory": Case(
        "x = bytearray(2**30)\nfor i in range(0, len(x), 4096): x[i] = 1",
        "out_of_memory", "memory_limit", {"memory_mb": 64}, ("memory_mb",),
    ),
    "a gigabyte of yes": Case(
        "yes | head -c 1G", "output_limit_exceeded", "output_flood", {"output_kb": 4},
        ("output_kb",), b"y\n" * 2048, "bash",
    ),
    "more output than is kept": Case(
        "print('x' * 100_000)", "succeeded", "completed", {"output_kb": 1}, ("output_kb",),
        b"x" * 1024,
    ),
    "more text than is kept": Case(
        "print('x' + 'é' * 40_000)", "succeeded", "completed", {"output_kb": 33}, ("output_kb",),
        ("x" + "é" * (33 * 512 - 1)).encode(),
    ),
    "text, ended by its time": Case(
        "import time\nprint('é' * 2**20, end='')\ntime.sleep(60)",
        "timed_out", "wall_clock_limit", {"timeout_s": 2, "output_kb": 3}, ("timeout_s",),
        ("é" * 1536).encode(),
    ),
    "fork bomb": Case(
        "import os\nwhile True:\n    os.fork()",
        "failed", "exit_nonzero", {"pids": 16, "timeout_s": 20}, ("pids",),
    ),
    "disk full of bytes": Case(
        FILL.format(fill="open('f', 'wb').write(bytes(64 * 2**20))"),
        "failed", "exit_nonzero", {"disk_mb": 16}, (), b"No space left on device\n",
    ),
    "disk full of files": Case(
        FILL.format(fill="[open(f'{n}', 'w').close() for n in range(1_000_000)]"),
        "failed", "exit_nonzero", {"disk_mb": 8, "timeout_s": 60}, (),
        b"No space left on device\n",
    ),
    "closed stdout": Case(
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(0.3)",
        "succeeded", "completed", {}, (), b"",
    ),
    "binary output": Case(
        "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
        "succeeded", "completed", {}, (), bytes(range(256)),
    ),
    "killed by a signal": Case(
        "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "failed", "killed_by_signal",
    ),
    "zombie children": Case(
        "import os\nfor _ in range(30):\n    if os.fork() == 0: os._exit(0)\nprint('done')",
        "succeeded", "completed", {}, (), b"done\n",
    ),
    "a daemon left behind": Case(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(600)\n    os._exit(0)\nprint('left', flush=True)",
        "succeeded", "completed", {}, (), b"left\n",
    ),
    "no such command": Case("exec /no/such/program", "failed", "exit_nonzero", language="bash"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ends_as_it_should_while_a_neighbour_succeeds(name: str, shared: Deployment) -> None:
    """The program's end is reported truthfully, and nobody else is affected."""
    case = CASES[name]
    hostile, neighbour = shared.client("outcomes"), shared.client("neighbour")
    submitted = hostile.submit(code=case.code, language=case.language, limits=case.limits)
    beside = neighbour.run(code="print(sum(range(10)))", language="python")
    ended = hostile.wait(submitted)
    assert (ended.state, ended.reason) == (case.state, case.reason), ended
    assert set(case.met) <= set(ended.limits_hit), ended.limits_hit
    assert case.stdout is None or (ended.stdout and ended.stdout.raw == case.stdout), ended.stdout
    assert beside.state == "succeeded", beside


def test_dropped_output_is_counted(shared: Deployment) -> None:
    """The result says that output is missing: `truncated`, and how many bytes there were."""
    client = shared.client("outcomes")
    ended = client.run(code="print('x' * 100_000)", language="python", limits={"output_kb": 1})
    assert ended.stdout is not None
    assert (ended.stdout.truncated, ended.stdout.total_bytes) == (True, 100_001)


def test_text_is_text_in_every_event(shared: Deployment) -> None:
    """The program writes pieces that end within characters, each of which becomes an event."""
    code = (
        "import sys, time\ntext = ('売上 天气 é\\n' * 40).encode()\n"
        "for at in range(0, len(text), 100):\n"
        "    sys.stdout.buffer.write(text[at:at + 100])\n"
        "    sys.stdout.buffer.flush()\n    time.sleep(0.15)\n"
    )
    client = shared.client("outcomes")
    submitted = client.submit(code=code, language="python")
    events = [event for event in client.events(submitted.id) if event.kind == "stdout"]
    assert len(events) > 2
    assert [event.data["encoding"] for event in events] == ["utf-8"] * len(events)
    assert b"".join(event.raw for event in events).decode() == "売上 天气 é\n" * 40


def test_both_ends_of_long_output_are_kept_on_request(shared: Deployment) -> None:
    """A test run's summary is not lost. Wherever output is shown, it says what is missing."""
    client = shared.client("outcomes")
    ended = client.run(
        code="print('é' * 40_000)\nprint('1 failed, 41 passed')",
        language="python",
        limits={"output_kb": 2},
        output_keep="head_and_tail",
    )
    out = ended.stdout
    assert out is not None
    assert (ended.state, ended.limits_hit) == ("succeeded", ("output_kb",))
    assert (out.head, out.truncated, out.total_bytes) == (("é" * 512).encode(), True, 80_021)
    assert out.tail.decode() == "é" * 501 + "\n1 failed, 41 passed\n"
    assert out.omitted_bytes == out.total_bytes - len(out.raw)
    assert f"[… {out.omitted_bytes:,} bytes left out …]" in out.text
    events = [event for event in client.events(ended.id) if event.kind == "stdout"]
    assert b"".join(event.raw for event in events) == out.raw
    assert [event.data.get("omitted_bytes") for event in events] == [None, out.omitted_bytes]
    keys = tuple(PublicKey(id_, pem) for id_, pem in client.signing_keys().items())
    body = verify(client.receipt(ended.id), KIND, keys)
    assert body["output"]["stdout"]["hash"] == f"sha256:{hashlib.sha256(out.raw).hexdigest()}"


def test_files_keep_their_names_on_the_whole_way(shared: Deployment) -> None:
    """A file has the same name on a user's system, in the sandbox, and in the results."""
    names = [name for name in ODD.values() if "/" not in name]
    client = shared.client("names")
    ended = client.run(
        code="import os\nfor name in os.listdir('in'): os.rename('in/' + name, name)",
        language="python",
        files={f"in/{name}": name for name in names},
    )
    assert (ended.state, ended.artifacts_refused) == ("succeeded", ()), ended
    assert sorted(each.path for each in ended.artifacts) == sorted(names)
    for name in names:
        with client.download(ended.id, name) as chunks:
            assert b"".join(chunks).decode() == name


def test_a_command_that_does_not_exist_says_so(shared: Deployment) -> None:
    """Nothing was started, and the reason differs from that of a failing program."""
    ended: Execution = shared.client("outcomes").run(command=["/no/such/program"])
    assert (ended.state, ended.reason) == ("failed", "command_not_started")
    assert ended.detail is not None and "no such" in ended.detail.lower()


@pytest.mark.parametrize("language", ["cobol", "Python", "", "python3"])
def test_a_language_that_nothing_runs_is_refused_by_name(language: str, shared: Deployment) -> None:
    """With those there are; nothing is stored, and nothing runs."""
    client = shared.client("languages")
    with pytest.raises(Invalid) as refused:
        client.run(code="DISPLAY 'HELLO'.", language=language)
    (fault,) = refused.value.errors
    assert fault["field"] == "body.language"
    assert "'python', 'bash', 'javascript' or 'typescript'" in fault["message"]
    assert client.list() == ([], None)


def test_input_files_that_do_not_fit_are_the_requests_fault(shared: Deployment) -> None:
    """Small files take whole pages. The reason is "not started", not an error of ours."""
    files = dict.fromkeys((f"f{number}" for number in range(130)), "x" * 4097)
    client = shared.client("outcomes")
    ended = client.run(command=["true"], files=files, limits={"disk_mb": 1})
    assert (ended.state, ended.reason) == ("failed", "command_not_started"), ended
