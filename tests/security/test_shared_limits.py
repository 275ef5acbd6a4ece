"""Each sandbox is a user of its own: limits that the kernel counts by user are not shared.

The checks `resources.shared.*` of `runner.verify` show that a sandbox which uses up such a limit
leaves the others alone, and would not if all were one user.
"""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.sandbox.drive import use
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher
from runner.sandbox.reap import remove_strays
from runner.words.errors import LaunchFailed
from runner.words.execution import Program
from runner.words.sandbox import Isolation
from tests.support import sandboxes
from tests.support.sandboxes import Bench


@pytest.fixture
def uids() -> str:
    """Return a range of two ids that no other deployment on this host uses."""
    return f"{80_000 + 2 * secrets.randbelow(5000)}:2"


@asynccontextmanager
async def worker(folder: Path, uids: str, node: str = "a") -> AsyncIterator[Launcher]:
    """Open what a worker with this range needs to start sandboxes."""
    settings = Settings(
        state_dir=folder / node, slots=2, pool_max=0, sandboxes=0, sandbox_uids=uids
    )
    async with Launcher.open(settings, node=f"{uids}-{node}", instance="only") as launcher:
        yield launcher


def user(sandbox: Sandbox) -> int:
    """Return the user of the sandbox's first process, as the kernel sees it."""
    assert sandbox.container.isolation is not None
    assert sandbox.container.isolation.uid == sandbox.container.isolation.gid
    return sandbox.container.isolation.uid


async def test_no_two_sandboxes_of_a_host_are_one_user(
    bench: Bench, tmp_path: Path, uids: str
) -> None:
    """It does not matter which worker starts them; a sandbox that is gone gives its id back."""
    async with worker(tmp_path, uids) as one, worker(tmp_path, uids, "b") as other:
        first, second = await one.launch(bench.order()), await other.launch(bench.order())
        try:
            assert user(first) != user(second)
            for launcher in (one, other):
                with pytest.raises(LaunchFailed, match="RUNNER_SANDBOX_UIDS"):
                    await launcher.launch(bench.order())
            await first.destroy()
            third = await other.launch(bench.order())
            assert user(third) == user(first)
            await third.destroy()
        finally:
            await first.destroy()
            await second.destroy()


async def test_a_dead_workers_sandbox_keeps_its_user_until_nothing_of_it_lives(
    bench: Bench, tmp_path: Path, uids: str
) -> None:
    """The container holds the id, not the process that started the container."""
    async with worker(tmp_path, uids) as one, worker(tmp_path, uids, "b") as other:
        left = await one.launch(bench.order())
        left._channel.close()
        one.live.clear()
        for _ in range(2):
            fresh = await other.launch(bench.order())
            assert user(fresh) != user(left)
            await fresh.destroy()
        assert await remove_strays(one) == 1
        both = [await other.launch(bench.order()) for _ in range(2)]
        assert user(left) in map(user, both)
        for sandbox in both:
            await sandbox.destroy()


async def test_a_launch_that_fails_touches_no_other_workers_container(
    bench: Bench, tmp_path: Path, uids: str
) -> None:
    """Not even the container whose name it would have had is touched."""
    async with worker(tmp_path, uids) as one, worker(tmp_path, uids, "b") as other:
        held = [await one.launch(bench.order()) for _ in range(2)]
        try:
            with pytest.raises(LaunchFailed):
                await other.launch(bench.order())
            for sandbox in held:
                await sandbox.ping()
        finally:
            for sandbox in held:
                await sandbox.destroy()


WHO = """
import getpass, grp, os, pwd, subprocess
me = pwd.getpwuid(os.getuid())
assert pwd.getpwnam('agent') == me
assert grp.getgrgid(os.getgid()).gr_name == 'agent'
assert os.stat('.').st_uid == os.getuid()
run = lambda *words: subprocess.check_output(words, text=True).strip()
print(me.pw_name, me.pw_dir, getpass.getuser(), os.path.expanduser('~agent'))
print(run('whoami'), run('id', '-gn'))
run('git', 'init', '-q', 'repo')
print(run('git', '-C', 'repo', 'var', 'GIT_COMMITTER_IDENT').split('<')[0] or 'nameless')
"""


@pytest.mark.parametrize("isolation", list(Isolation))
async def test_programs_learn_who_they_are(tmp_path: Path, isolation: Isolation) -> None:
    """The user's name is the same in every sandbox, whatever the number is."""
    async with sandboxes.bench(tmp_path, isolation=isolation) as bench:
        ran = await bench.python(WHO, env={"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"})
    assert ran.stdout.decode().splitlines() == [
        "agent /workspace agent /workspace",
        "agent agent",
        "a ",
    ], ran.stderr


async def test_a_program_has_terminals_of_its_own(bench: Bench) -> None:
    """They work as the host's do, up to the limit, and are free again after the program."""
    code = (
        "import os, pty\n"
        "pairs = []\n"
        "try:\n"
        "    while True: pairs.append(pty.openpty())\n"
        "except OSError: pass\n"
        "master, slave = pairs[0]\n"
        "os.write(slave, b'hello\\n')\n"
        "print(len(pairs), os.ttyname(slave), os.read(master, 9), os.stat('/dev/pts/0').st_gid)\n"
    )
    async with bench.sandbox() as sandbox:
        for _ in range(2):
            program = Program(("python3", "-c", code), {})
            ran = await use(sandbox, program, bench.limits.bounds, again=True)
            assert ran.stdout == b"16 /dev/pts/0 b'hello\\r\\n' 5\n", ran
            assert await sandbox.clean() == []
