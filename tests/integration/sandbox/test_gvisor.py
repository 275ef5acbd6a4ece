"""The second tier: the same sandbox, with gVisor's kernel between the program and the host's."""

import asyncio
import dataclasses
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.sandbox.drive import use
from runner.sandbox.guest.sandbox import Bridge
from runner.sandbox.launch import SandboxOrder
from runner.words.errors import IsolationMissing
from runner.words.execution import InputFile, Program
from runner.words.sandbox import Isolation
from runner.words.states import Reason, State
from tests.support import sandboxes
from tests.support.sandboxes import Bench


@pytest.fixture
async def gvisor(tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench whose sandboxes are gVisor's; without `runsc` every test here fails."""
    async with sandboxes.bench(tmp_path, isolation=Isolation.GVISOR) as made:
        yield made


async def test_the_kernel_is_gvisors(gvisor: Bench) -> None:
    """The program sees a kernel of its own, not the host's."""
    ran = await gvisor.bash("uname -r; cat /proc/version")
    assert platform.release() not in ran.stdout.decode()
    assert ran.stdout.startswith(b"4.4.0\nLinux version 4.4.0")


async def test_files_streams_and_artifacts_pass_as_in_a_container(gvisor: Bench) -> None:
    """Input goes in; output, artifacts and the exit code come out."""
    ran = await gvisor.bash(
        "cat data.txt; cat; echo oops >&2; mkdir out; echo made > out/a; exit 4",
        files=[InputFile("data.txt", b"file\n")],
        stdin=b"stdin\n",
    )
    assert (ran.stdout, ran.stderr) == (b"file\nstdin\n", b"oops\n")
    assert ran.ending.exit_code == 4
    assert ran.files["out/a"] == b"made\n"
    assert ran.ending.limits_hit == ()
    assert ran.ending.usage.cpu_s is not None
    assert ran.ending.usage.cpu_s > 0


async def test_the_data_stack_runs(gvisor: Bench) -> None:
    """This includes threads, processes, numpy, pandas, git and node."""
    ran = await gvisor.bash(
        "set -e\n"
        "python3 - <<'PY'\n"
        "import subprocess, threading, numpy, pandas\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "assert pandas.DataFrame({'a': numpy.arange(3)}).a.sum() == 3\n"
        "assert subprocess.check_output(['echo', 'x']) == b'x\\n'\n"
        "PY\n"
        "git init -q repo && cd repo && echo a > f && git add f\n"
        "git -c user.name=a -c user.email=a@b commit -qm first && git log --oneline | wc -l\n"
        "cd .. && rm -r repo && node -e 'console.log(6 * 7)'\n",
        memory_mb=512,
    )
    assert ran.ending.exit_code == 0, ran.stderr
    assert ran.stdout == b"thread\n1\n42\n"


WAITS = """
import os, select

reading, writing = os.pipe()
os.write(writing, b"x")
print(select.select([reading], [], [], 5)[0] == [reading])
"""


async def test_a_program_can_wait_with_select(gvisor: Bench) -> None:
    """For gVisor, the call that it makes has another name than for Linux."""
    ran = await gvisor.python(WAITS)
    assert (ran.stdout, ran.stderr) == (b"True\n", b"")


async def test_the_deadline_ends_everything(gvisor: Bench) -> None:
    """This includes a program that ignores SIGTERM, and what it started."""
    ran = await gvisor.bash(
        "trap '' TERM; (setsid sleep 100 &); while :; do sleep 0.1; done", timeout_s=1
    )
    assert ran.verdict[:2] == (State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT)
    assert ran.ending.usage.wall_s < 10


async def test_what_a_program_leaves_running_ends_with_it(gvisor: Bench) -> None:
    """A daemon does not hold the result back."""
    ran = await gvisor.bash("(setsid sleep 100 &); echo end")
    assert ran.stdout == b"end\n"
    assert ran.verdict.state is State.SUCCEEDED
    assert ran.ending.usage.wall_s < 10


async def test_memory_is_bounded_by_the_host(gvisor: Bench) -> None:
    """The processes of gVisor count, too; beyond the limit, the whole sandbox ends."""
    ran = await gvisor.python("x = bytearray(1024 * 2**20); print(len(x))")
    assert ran.verdict[:2] == (State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT)
    assert b"1073741824" not in ran.stdout


@pytest.mark.alone
async def test_memory_is_the_verdict_also_when_docker_has_not_heard_of_it(
    gvisor: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker's event comes late or never; the kernel's own count is read in time."""

    async def unaware(_: str) -> dict[str, object]:
        return {"Running": False, "OOMKilled": False}

    monkeypatch.setattr(gvisor.launcher.engine, "state", unaware)
    ran = await gvisor.python("x = bytearray(1024 * 2**20); print(len(x))")
    assert ran.verdict[:2] == (State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT)


async def test_a_fork_bomb_ends_with_its_sandbox(gvisor: Bench) -> None:
    """The limit is the host's: gVisor itself reaches it, and does not survive that."""
    ran = await gvisor.bash(":() { : | : & }; :; sleep 20", timeout_s=10)
    assert ran.verdict.state in {State.SYSTEM_ERROR, State.TIMED_OUT, State.OUT_OF_MEMORY}
    assert (ran.ending.usage.pids_peak or 0) <= 192 + 3 * 65


async def test_the_workspace_is_bounded(gvisor: Bench) -> None:
    """It gives ENOSPC at the requested size."""
    ran = await gvisor.bash("head -c 64M /dev/zero > big; wc -c < big", disk_mb=8)
    assert ran.ending.limits_hit == ("disk_mb",)
    assert int(ran.stdout) <= 8 * 2**20


async def test_the_profile_and_the_privileges_hold_inside(gvisor: Bench) -> None:
    """There are no capabilities, namespaces, tracing or raw sockets, and the root is read-only."""
    ran = await gvisor.python(
        "import ctypes, os, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "status = dict(l.split(':\\t', 1) for l in open('/proc/self/status') if ':\\t' in l)\n"
        "print({status[f'Cap{n}'].strip() for n in ('Inh', 'Prm', 'Eff', 'Bnd')})\n"
        "print(status['Seccomp'].strip(), *{*os.getresuid(), *os.getresgid()})\n"
        "for call in (lambda: libc.unshare(0x10000000), lambda: libc.ptrace(0, 0, 0, 0)):\n"
        "    print(call(), ctypes.get_errno())\n"
        "for kind in ((16, 3), (17, 3), (40, 1), (2, 3)):\n"
        "    try: socket.socket(*kind); print('open')\n"
        "    except OSError as error: print(error.errno)\n"
        "root = next(l.split() for l in open('/proc/mounts') if l.split()[1] == '/')\n"
        "print(root[3].split(',')[0])\n"
    )
    lines = ran.stdout.decode().splitlines()
    seccomp, user = lines.pop(1).split()
    assert seccomp == "2"
    assert int(user) in Settings().sandbox_uid_range
    assert lines == [
        "{'0000000000000000'}",
        "-1 1",
        "-1 1",
        "1",
        "1",
        "1",
        "1",
        "ro",
    ], ran.stderr


async def test_there_is_no_network_but_loopback(gvisor: Bench) -> None:
    """There is one interface, which leads nowhere."""
    ran = await gvisor.python(
        "import socket\n"
        "print([l.split(':')[0].strip() for l in open('/proc/net/dev').readlines()[2:]])\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try: s.connect(('169.254.169.254', 9)); print('reached')\n"
        "except OSError: print('no route')\n"
    )
    assert ran.stdout == b"['lo']\nno route\n"


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [
        ({"runc": {}}, "runner doctor"),
        ({"runsc": {"path": "runsc", "runtimeArgs": ["--ignore-cgroups"]}}, "no limit"),
    ],
    ids=["no such runtime", "a runtime without limits"],
)
async def test_it_is_refused_where_docker_cannot_give_it(
    gvisor: Bench, monkeypatch: pytest.MonkeyPatch, runtimes: dict[str, Any], message: str
) -> None:
    """Nothing weaker is started instead, and the error says what to do."""
    real = gvisor.launcher.engine.info

    async def changed() -> dict[str, Any]:
        facts = await real()
        return {**facts, "info": {**facts["info"], "Runtimes": runtimes}}

    monkeypatch.setattr(gvisor.launcher.engine, "info", changed)
    with pytest.raises(IsolationMissing, match=message):
        await gvisor.launcher.launch(gvisor.order())
    order = SandboxOrder(dataclasses.replace(gvisor.spec(), isolation=Isolation.CONTAINER))
    await (await gvisor.launcher.launch(order)).destroy()


async def test_the_way_out_leads_through_the_sandboxes_own_socket(gvisor: Bench) -> None:
    """The bridge inside connects to it through gVisor, at any time of the run."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    code = "exec 3<>/dev/tcp/127.0.0.1/3128; echo hello >&3; cat <&3"
    async with (
        gvisor.sandbox() as sandbox,
        await asyncio.start_unix_server(echo, sock=sandbox.listen_for_egress()),
    ):
        program = Program(("bash", "-c", code), {})
        ran = await use(sandbox, program, gvisor.limits.bounds, bridge=Bridge())
    assert ran.stdout == b"hello\n"


async def test_another_sandbox_sees_neither_processes_nor_files_of_it(gvisor: Bench) -> None:
    async with gvisor.sandbox() as sandbox:
        other = Program(("bash", "-c", "echo x > /tmp/mark; sleep 5"), {})
        bounds = gvisor.within(timeout_s=4).bounds
        running = asyncio.create_task(use(sandbox, other, bounds))
        await asyncio.sleep(1)
        ran = await gvisor.bash("cat /tmp/mark; cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert b"sleep" not in ran.stdout
    assert b"No such file" in ran.stderr
