"""A program is confined to its sandbox, in tests that look at several probes or controls.

Single attacks, each with the one control that stops it, are the checks of `runner.verify`.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.sandbox.drive import ProgramRun
from runner.sandbox.engine.spec import SOCKET_DIR, container_config
from runner.words.errors import LaunchFailed
from tests.support.sandboxes import Bench

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Any]:
    """Return a context in which sandboxes start without one of their controls."""

    @contextmanager
    def changed(change: Change) -> Iterator[None]:
        def config(*args: Any) -> dict[str, Any]:
            built = container_config(*args)
            change(built)
            return built

        with monkeypatch.context() as patch:
            patch.setattr(bench.launcher.maker, "configure", config)
            yield

    return changed


def unconfined(config: dict[str, Any]) -> None:
    """Take the seccomp profile away."""
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges", "seccomp=unconfined"]


def host(**changes: Any) -> Change:
    """Change fields of the host configuration."""
    return lambda config: config["HostConfig"].update(changes)


def answer(ran: ProgramRun) -> Any:
    """Return what the probe printed."""
    assert ran.ending.exit_code == 0, (ran.ending, ran.stderr)
    return json.loads(ran.stdout)


STATUS = """
import json, glob
found = {}
for path in glob.glob('/proc/[0-9]*/status'):
    lines = dict(line.split(':\\t', 1) for line in open(path).read().splitlines() if ':\\t' in line)
    found[path.split('/')[2]] = {k: lines[k].strip() for k in
        ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb',
         'NoNewPrivs', 'Seccomp', 'Uid', 'Groups')}
print(json.dumps(found))
"""


async def test_every_process_is_without_privileges(bench: Bench) -> None:
    """No set holds a capability; no_new_privs, a filter, one unprivileged user, no groups."""
    processes = answer(await bench.python(STATUS))
    assert "1" in processes
    assert len(processes) == 2, "host processes are visible"
    for status in processes.values():
        assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        (user,) = set(status["Uid"].split())
        assert int(user) in Settings().sandbox_uid_range
        assert status["Groups"] in {"", user}


async def test_the_supervisor_survives_every_signal(bench: Bench) -> None:
    """PID 1 discards signals for which it has no handler, and still reports the run."""
    ran = await bench.python(
        "import os, signal\n"
        "for number in signal.valid_signals(): os.kill(1, number)\n"
        "print('still here')"
    )
    assert ran.stdout == b"still here\n"
    assert ran.ending.exit_code == 0


WRITABLE = """
import json, os
found = set()
for mount in {line.split()[1] for line in open('/proc/mounts')}:
    for folder, names, _ in os.walk(mount):
        names[:] = [n for n in names if not os.path.ismount(os.path.join(folder, n))]
        if folder.startswith(('/proc', '/sys')) and not os.access(folder, os.W_OK): continue
        try:
            os.close(os.open(folder + '/probe', os.O_WRONLY | os.O_CREAT, 0o600))
            found.add(folder)
        except OSError:
            pass
print(json.dumps(sorted(found)))
"""


async def test_three_places_are_writable_and_no_more(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """The test tries to write in every folder of every mount."""
    assert answer(await bench.python(WRITABLE)) == ["/dev/shm", "/tmp", "/workspace"]  # noqa: S108

    def with_message_queues(config: dict[str, Any]) -> None:
        del config["HostConfig"]["Tmpfs"]["/dev/mqueue"]
        config["HostConfig"]["Ulimits"] = []

    with without(with_message_queues):
        assert "/dev/mqueue" in answer(await bench.python(WRITABLE))


async def test_writable_places_are_tmpfs_without_setuid_or_devices(bench: Bench) -> None:
    """The kernel shows the actual mounts, whatever was asked for."""
    mounts = (await bench.bash("cat /proc/mounts")).stdout.decode().splitlines()
    options = {line.split()[1]: line.split()[2:4] for line in mounts}
    for place in ("/workspace", "/tmp", "/dev/shm"):  # noqa: S108
        kind, flags = options[place]
        assert kind == "tmpfs"
        assert {"nosuid", "nodev"} < set(flags.split(","))
        assert "size=" in flags
        assert "nr_inodes=" in flags
    assert options["/"][1].split(",")[0] == "ro"
    assert options[SOCKET_DIR][1].split(",")[0] == "ro"


PRIVILEGED_FILES = """
import json, os, stat
found = []
for folder, _, names in os.walk('/'):
    if folder.startswith(('/proc', '/sys')): continue
    for name in names:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode) and mode & 0o6000: found.append(path)
        elif stat.S_ISSOCK(mode) or stat.S_ISBLK(mode): found.append(path)
        elif stat.S_ISREG(mode) and 'security.capability' in os.listxattr(path): found.append(path)
print(json.dumps(found))
"""


async def test_the_image_holds_no_privileged_file_and_no_socket(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """No setuid or setgid file, no file capability, no socket of a daemon, no block device."""
    assert answer(await bench.python(PRIVILEGED_FILES)) == []
    planted = "import os; open('f', 'w').close(); os.chmod('f', 0o4755)\n" + PRIVILEGED_FILES
    assert answer(await bench.python(planted)) == ["/workspace/f"]

    def with_docker(config: dict[str, Any]) -> None:
        socket = Settings().docker_url.removeprefix("unix://")
        config["HostConfig"]["Binds"] = [f"{socket}:/opt/docker.sock:ro"]

    with without(with_docker):
        assert answer(await bench.python(PRIVILEGED_FILES)) == ["/opt/docker.sock"]


async def test_the_environment_and_name_tell_nothing_of_the_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program sees its own variables and fixed ones."""
    monkeypatch.setenv("RUNNER_CANARY", "canary-of-the-worker")
    ran = await bench.bash("env; hostname; cat /etc/machine-id /etc/hostname", env={"MINE": "1"})
    lines = ran.stdout.decode().splitlines()
    names = {line.split("=")[0] for line in lines if "=" in line}
    assert names == {
        "HOME", "HOSTNAME", "LANG", "MINE", "MPLBACKEND", "MPLCONFIGDIR", "NPM_CONFIG_AUDIT",
        "NPM_CONFIG_CACHE", "NPM_CONFIG_FUND", "NPM_CONFIG_PREFIX", "NPM_CONFIG_UPDATE_NOTIFIER",
        "PATH", "PIP_DISABLE_PIP_VERSION_CHECK", "PWD", "PYTHONDONTWRITEBYTECODE", "SHLVL",
        "XDG_CACHE_HOME", "_",
    }  # fmt: skip
    assert "sandbox" in lines
    assert os.uname().nodename not in ran.stdout.decode()
    assert "canary" not in ran.stdout.decode()


async def test_the_socket_directory_is_this_sandboxs_own_and_closed(bench: Bench) -> None:
    """It is empty once the program runs, and the program cannot put anything there."""
    async with bench.sandbox():
        ran = await bench.bash(f"ls -A {SOCKET_DIR}; touch {SOCKET_DIR}/x || echo refused")
    assert ran.stdout == b"refused\n"


async def test_no_profile_no_sandbox(bench: Bench, without: Callable[[Change], Any]) -> None:
    """If the runtime cannot load a profile, the launch fails; it does not start without one."""
    broken = {"defaultAction": "SCMP_ACT_NO_SUCH", "syscalls": []}
    with (
        without(host(SecurityOpt=[f"seccomp={json.dumps(broken)}"])),
        pytest.raises(LaunchFailed),
    ):
        await bench.bash("true")
