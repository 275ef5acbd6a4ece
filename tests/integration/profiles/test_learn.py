"""A command is observed in a real sandbox; the proposal is enough for it, and no more."""

import asyncio
import dataclasses
import socket
from pathlib import Path
from typing import Any

from runner.base.seccomp import SeccompProfile, read_profile
from runner.base.settings import Settings
from runner.profiles.learn import Observation, learn, observing, unfiltered
from runner.profiles.propose import Proposal, propose
from runner.quotas.sizes import load_sizes
from runner.sandbox.drive import use
from runner.sandbox.engine.maker import Configure
from runner.sandbox.engine.spec import Host, Placement, container_config
from runner.sandbox.guest.sandbox import Bridge
from runner.words.execution import InputFile, Program
from runner.words.resources import Resources
from runner.words.sandbox import SandboxSpec
from runner.words.states import State
from tests.support import sandboxes

RAW, DOCUMENT = read_profile(Settings().profiles_path / "seccomp" / "default.json")
MEDIUM = load_sizes(Settings().profiles_path)["medium"]


async def observe(
    state_dir: Path,
    *command: str,
    configure: Configure = observing,
    files: tuple[InputFile, ...] = (),
) -> Observation:
    """Observe a command in a sandbox of its own."""
    async with sandboxes.bench(state_dir, configure=configure) as bench:
        return await learn(
            bench.launcher,
            DOCUMENT,
            command,
            spec=SandboxSpec("python", MEDIUM.resources),
            bounds=MEDIUM.bounds,
            files=files,
        )


def under(proposal: Proposal) -> Configure:
    """Return a configuration that gives sandboxes the proposed profile."""

    def configure(
        placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
    ) -> dict[str, Any]:
        proposed = dataclasses.replace(profile, json=proposal.after)
        return container_config(placement, resources, proposed, host)

    return configure


async def test_calls_of_every_process_and_thread_are_seen(tmp_path: Path) -> None:
    """This includes a child of a child, and calls after an exec."""
    seen = await observe(
        tmp_path,
        "bash",
        "-c",
        "cat in.txt; (exec python3 -c 'import os, threading\n"
        "t = threading.Thread(target=os.sched_yield); t.start(); t.join()\n"
        'os.mkfifo("f")\'); exit 3',
        files=(InputFile("in.txt", b"hello\n"),),
    )
    names = {call.name for call in seen.calls}
    assert {"execve", "sched_yield", "mknodat", "clone3"} <= names
    assert "ptrace" not in names
    assert "inotify_init1" not in names
    assert seen.ending.exit_code == 3
    assert seen.output == b"hello\n"


async def test_arguments_are_kept_where_the_profile_looks_at_them(tmp_path: Path) -> None:
    seen = await observe(
        tmp_path, "python3", "-c", "import socket; socket.socket(socket.AF_INET6).close()"
    )
    families = {dict(call.arguments)[0] for call in seen.calls if call.name == "socket"}
    assert families == {int(socket.AF_INET6)}


async def test_a_refused_call_is_seen_and_what_follows_it_only_unconfined(tmp_path: Path) -> None:
    code = (
        "import ctypes, os\nif ctypes.CDLL(None).unshare(0x10000000) == 0: os.sched_getparam(0)\n"
    )
    confined = propose(RAW, DOCUMENT, (await observe(tmp_path, "python3", "-c", code)).calls, "")
    assert [call.name for call in confined.added] == ["unshare"]
    seen = await observe(tmp_path, "python3", "-c", code, configure=unfiltered)
    names = {call.name for call in propose(RAW, DOCUMENT, seen.calls, "").added}
    assert {"unshare", "sched_getparam"} <= names


async def test_the_smallest_profile_still_starts_cleans_up_runs_ends_collects_and_reaches_out(
    tmp_path: Path,
) -> None:
    """A sandbox with no more calls than its program needs still does all of its own work."""
    command = (
        "bash",
        "-c",
        "exec 3<>/dev/tcp/127.0.0.1/3128; echo hello >&3; head -1 <&3; sleep 9",
    )
    proposal = propose(RAW, DOCUMENT, (await observe(tmp_path, *command)).calls, "")
    assert len(proposal.unused) > 60

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    async with (
        sandboxes.bench(tmp_path, configure=under(proposal)) as bench,
        bench.sandbox() as sandbox,
        await asyncio.start_unix_server(echo, sock=sandbox.listen_for_egress()),
    ):
        for code in ("", "echo made > made"):
            files, program = [InputFile("main.sh", code.encode())], Program(("bash", "main.sh"), {})
            await use(sandbox, program, bench.limits.bounds, files=files, again=True)
            assert await sandbox.clean() == []
        ran = await use(
            sandbox,
            Program((*command[:2], "echo made > made; " + command[2]), {}, b"x" * 100_000),
            bench.within(timeout_s=1).bounds,
            files=[InputFile("a/b", b"x")],
            bridge=Bridge(),
        )
    assert (ran.stdout, ran.verdict.state) == (b"hello\n", State.TIMED_OUT), ran.stderr
    assert ran.files == {"made": b"made\n"}


async def test_the_proposal_for_a_program_is_enough_for_that_program(tmp_path: Path) -> None:
    """It is learnt from one run, and the program runs again under it."""
    command = ("python3", "-c", "import pandas; print(pandas.Series([1, 2]).sum())")
    proposal = propose(RAW, DOCUMENT, (await observe(tmp_path, *command)).calls, "")
    assert proposal.added == ()
    async with sandboxes.bench(tmp_path, configure=under(proposal)) as bench:
        ran = await bench.run(command, memory_mb=512)
        assert (ran.stdout, ran.ending.exit_code) == (b"3\n", 0), ran.stderr
        refused = await bench.bash("mkfifo f")
    assert refused.ending.exit_code == 1


async def test_outside_the_observing_sandbox_nobody_may_trace(tmp_path: Path) -> None:
    """No other sandbox has what lets the observer work."""
    probe = "import ctypes; print(ctypes.CDLL(None).ptrace(0, 0, 0, 0))"
    async with sandboxes.bench(tmp_path) as bench:
        assert (await bench.python(probe)).stdout == b"-1\n"
    async with sandboxes.bench(tmp_path, configure=observing) as bench:
        assert (await bench.python(probe)).stdout == b"0\n"
