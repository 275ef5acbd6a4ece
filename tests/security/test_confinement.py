"""What a program cannot do in a sandbox: each probe fails there and works without the control.

A control run is the same launch with one change to the container's configuration, so a probe that
could not succeed at all is found out.
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pyseccomp
import pytest

from runner.errors import LaunchFailed
from runner.sandbox import launch
from runner.sandbox.spec import SOCKET_DIR, container_config
from runner.settings import Settings
from tests.sandboxes import Bench, Ran

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def without(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[[Change], Any]:
    """Return a context in which sandboxes start with one control taken away."""

    @contextmanager
    def changed(change: Change) -> Iterator[None]:
        def config(*args: Any) -> dict[str, Any]:
            built = container_config(*args)
            change(built)
            return built

        with monkeypatch.context() as patch:
            patch.setattr(bench.launcher, "spec", config)
            yield

    return changed


def unconfined(config: dict[str, Any]) -> None:
    """Take the seccomp profile away."""
    config["HostConfig"]["SecurityOpt"] = ["no-new-privileges", "seccomp=unconfined"]


def host(**changes: Any) -> Change:
    """Change fields of the host configuration."""
    return lambda config: config["HostConfig"].update(changes)


def answer(ran: Ran) -> Any:
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
    """No capability in any set, no_new_privs, filtered, one unprivileged user and no groups."""
    processes = answer(await bench.python(STATUS))
    assert "1" in processes
    assert len(processes) == 2, "host processes are visible"
    for status in processes.values():
        assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Groups"] in {"", "10001"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (host(CapDrop=[]), "CapBnd"),
        (host(SecurityOpt=["seccomp=unconfined"]), "NoNewPrivs"),
        (unconfined, "Seccomp"),
        (host(GroupAdd=["1234"]), "Groups"),
    ],
    ids=["capabilities", "no-new-privileges", "seccomp", "groups"],
)
async def test_the_status_probe_sees_a_missing_control(
    bench: Bench, without: Callable[[Change], Any], change: Change, field: str
) -> None:
    """Control: without the setting, the field differs."""
    guarded = answer(await bench.python(STATUS))["1"]
    with without(change):
        bare = answer(await bench.python(STATUS))["1"]
    assert bare[field] != guarded[field]


# Calls that do something else than EPERM for an unprivileged user on an open system.
DENIED = {
    "add_key": 1, "clone3": 38, "io_uring_setup": 38, "kcmp": 1, "keyctl": 1, "msgget": 1,
    "mq_open": 1, "name_to_handle_at": 1, "open_tree": 1, "perf_event_open": 1, "pidfd_getfd": 1,
    "process_vm_readv": 1, "process_vm_writev": 1, "ptrace": 1, "request_key": 1,
    "semget": 1, "setns": 1, "shmget": 1, "unshare": 1, "vmsplice": 1,
}  # fmt: skip


async def test_denied_system_calls_fail_with_the_profiles_error(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """Each fails with the errno the profile names; unfiltered, each ends some other way."""
    numbers = {name: pyseccomp.resolve_syscall(pyseccomp.system_arch(), name) for name in DENIED}
    probe = f"""
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
found = {{}}
for name, number in {numbers!r}.items():
    ctypes.set_errno(0)
    result = libc.syscall(number, 0, 0, 0, 0, 0, 0)
    found[name] = ctypes.get_errno() if result == -1 else 0
print(json.dumps(found))
"""
    assert answer(await bench.python(probe)) == DENIED
    with without(unconfined):
        bare = answer(await bench.python(probe))
    assert [name for name in DENIED if bare[name] == DENIED[name]] == []


@pytest.mark.parametrize(
    ("setup", "call"),
    [
        ("import socket", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)"),
        ("import resource", "resource.prlimit(1, resource.RLIMIT_CORE, (0, 0))"),
        (
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.unshare(0x10000000)",
            "check(ctypes.get_errno())",
        ),
        (
            "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.personality(0x40000)",
            "check(ctypes.get_errno())",
        ),
    ],
    ids=["netlink", "limits of PID 1", "user namespace", "no address randomisation"],
)
async def test_calls_refused_by_their_arguments(
    bench: Bench, without: Callable[[Change], Any], setup: str, call: str
) -> None:
    """Refused with EPERM by the profile; allowed by the kernel without it."""
    probe = f"""
import os
import secrets
{setup}
def check(number):
    if number: raise OSError(number, os.strerror(number))
try:
    {call}
except (OSError, PermissionError) as error:
    print(error.errno or 1)
else:
    print(0)
"""
    assert answer(await bench.python(probe)) == 1
    with without(unconfined):
        assert answer(await bench.python(probe)) == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="an entry that only x86-64 has")
async def test_the_32_bit_entry_is_closed(bench: Bench, without: Callable[[Change], Any]) -> None:
    """`int 0x80` is a second table of system calls; a filter of one table does not see it."""
    probe = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('b814000000cd80c3'))  # mov eax, 20 (getpid); int 0x80; ret
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""
    assert (await bench.python(probe)).ending.signal == 31  # SIGSYS
    with without(unconfined):
        assert answer(await bench.python(probe)) > 1


async def test_typing_into_a_terminal_is_refused(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """TIOCSTI, also with bits above the 32 that the kernel looks at (CVE-2019-10063)."""
    probe = """
import ctypes, json, os
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_char_p]
_, terminal = os.openpty()
libc.ioctl(terminal, 0x540E, None)  # TIOCSCTTY: from here on this program's own terminal
found = []
for request in (0x5412, 0x541C, 0x100005412):
    ctypes.set_errno(0)
    libc.ioctl(terminal, request, b'x')
    found.append(ctypes.get_errno())
print(json.dumps(found))
"""
    assert answer(await bench.python(probe)) == [1, 1, 1]
    with without(unconfined):
        assert 1 not in answer(await bench.python(probe))


async def test_the_supervisor_cannot_be_read_or_traced(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """Of the same user, but not dumpable: also with every system call allowed."""
    probe = """
import ctypes, json, os, subprocess
def readable(pid, name):
    try:
        with open(f'/proc/{pid}/{name}', 'rb') as file: file.read(1)
        return True
    except PermissionError:
        return False
def traceable(pid):
    return ctypes.CDLL(None).ptrace(0x4206, pid, 0, 0) == 0
other = subprocess.Popen(['sleep', '60'])
print(json.dumps([[readable(pid, name) for name in ('environ', 'maps', 'auxv')] + [traceable(pid)]
    for pid in (1, other.pid)]))
"""
    with without(unconfined):
        supervisor, sibling = answer(await bench.python(probe))
    assert supervisor == [False] * 4
    assert sibling == [True] * 4


async def test_the_supervisor_survives_every_signal(bench: Bench) -> None:
    """PID 1 discards what it has no handler for, and the run is reported all the same."""
    ran = await bench.python(
        "import os, signal\n"
        "for number in signal.valid_signals(): os.kill(1, number)\n"
        "print('still here')"
    )
    assert ran.stdout == b"still here\n"
    assert ran.ending.exit_code == 0


NETWORK = """
import json, socket
def reach(address, family):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((address, 9))  # of a datagram socket: looks up a route, sends nothing
            return True
        except OSError:
            return False
print(json.dumps([[name for _, name in socket.if_nameindex()],
    reach('169.254.169.254', socket.AF_INET), reach('10.0.0.1', socket.AF_INET)]))
"""


@contextmanager
def network() -> Iterator[str]:
    """Make a network as an ordinary container has one; the daemon may run without its default."""
    client = docker.APIClient(Settings().docker_url, version="auto", timeout=30)
    name = f"runner-test-{secrets.token_hex(4)}"
    try:
        client.create_network(name, driver="bridge")
        yield name
    finally:
        client.remove_network(name)
        client.close()


async def test_there_is_no_network_but_loopback(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """One interface, no route to the metadata address or anywhere."""
    listing = NETWORK.replace(
        "[name for _, name in socket.if_nameindex()]",
        "[line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]",
    )
    assert answer(await bench.python(listing)) == [["lo"], False, False]

    with network() as name:

        def connected(config: dict[str, Any]) -> None:
            config["NetworkDisabled"] = False
            config["HostConfig"]["NetworkMode"] = name

        with without(connected):
            interfaces, metadata, private = answer(await bench.python(listing))
    assert "eth0" in interfaces
    assert metadata
    assert private


NAMESPACES = """
import json, os
print(json.dumps({name: os.readlink(f'/proc/self/ns/{name}')
    for name in ('pid', 'mnt', 'net', 'ipc', 'uts', 'cgroup')}))
"""


def own_namespaces() -> dict[str, str]:
    """Return the test's own, which are the host's."""
    return {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()}


async def test_each_sandbox_has_namespaces_of_its_own(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """None is shared with the host or with a neighbour; the probe sees it where one is."""
    first, second = answer(await bench.python(NAMESPACES)), None
    async with bench.sandbox():
        second = answer(await bench.python(NAMESPACES))
    ours = own_namespaces()
    for name, value in first.items():
        assert value not in {ours[name], second[name]}, name
    for name, change in {
        "ipc": host(IpcMode="host"),
        "uts": host(UTSMode="host"),
        "cgroup": host(CgroupnsMode="host"),
    }.items():
        with without(shared(change)):
            assert answer(await bench.python(NAMESPACES))[name] == ours[name]


def shared(change: Change) -> Change:
    """Return the change, made possible: a name of its own needs a namespace of its own."""

    def both(config: dict[str, Any]) -> None:
        del config["Hostname"]
        change(config)

    return both


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
    """Tried by writing in every folder of every mount."""
    assert answer(await bench.python(WRITABLE)) == ["/dev/shm", "/tmp", "/workspace"]  # noqa: S108

    def with_message_queues(config: dict[str, Any]) -> None:
        del config["HostConfig"]["Tmpfs"]["/dev/mqueue"]
        config["HostConfig"]["Ulimits"] = []

    with without(with_message_queues):
        assert "/dev/mqueue" in answer(await bench.python(WRITABLE))


async def test_the_root_is_read_only_even_for_its_owner(
    bench: Bench, without: Callable[[Change], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root without capabilities: EROFS; with a writable root the same write succeeds."""
    monkeypatch.setattr(launch, "UID", 0)
    probe = """
import json
try:
    open('/etc/probe', 'w').close()
    print(0)
except OSError as error:
    print(error.errno)
"""

    def as_root(config: dict[str, Any]) -> None:
        config["User"] = "0:0"
        del config["HostConfig"]["Tmpfs"]["/workspace"]

    def writable(config: dict[str, Any]) -> None:
        as_root(config)
        config["HostConfig"]["ReadonlyRootfs"] = False

    with without(as_root):
        assert answer(await bench.python(probe)) == 30
    with without(writable):
        assert answer(await bench.python(probe)) == 0


async def test_writable_places_are_tmpfs_without_setuid_or_devices(bench: Bench) -> None:
    """As the kernel shows the mounts, not as they were asked for."""
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


MASKED = """
import json
def content(path):
    try:
        with open(path, 'rb') as file: return len(file.read(64))
    except OSError: return -1
print(json.dumps([content(path) for path in
    ('/proc/interrupts', '/proc/modules', '/proc/kallsyms', '/proc/timer_list', '/proc/keys')]))
"""


async def test_what_tells_of_the_host_is_masked(
    bench: Bench, without: Callable[[Change], Any]
) -> None:
    """Empty where the kernel has something to tell; the probe sees it unmasked."""
    assert max(answer(await bench.python(MASKED))) <= 0
    with without(host(MaskedPaths=[])):
        assert max(answer(await bench.python(MASKED))) > 0


async def test_kernel_settings_cannot_be_written(bench: Bench) -> None:
    """By a write attempt, for the ones that have been escapes (CVE-2022-0492, CVE-2025-31133)."""
    ran = await bench.python("""
import json
found = {}
for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger',
             '/proc/sys/vm/overcommit_memory', '/sys/fs/cgroup/release_agent',
             '/sys/fs/cgroup/memory/release_agent', '/proc/1/oom_score_adj'):
    try:
        open(path, 'w').write('0')
        found[path] = 'written'
    except OSError:
        pass
print(json.dumps(found))
""")
    assert answer(ran) == {}


async def test_the_environment_and_name_tell_nothing_of_the_host(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program sees its own variables and fixed ones."""
    monkeypatch.setenv("RUNNER_CANARY", "canary-of-the-worker")
    ran = await bench.bash("env; hostname; cat /etc/machine-id /etc/hostname", env={"MINE": "1"})
    lines = ran.stdout.decode().splitlines()
    names = {line.split("=")[0] for line in lines if "=" in line}
    assert names == {
        "HOME", "HOSTNAME", "LANG", "MINE", "MPLBACKEND", "MPLCONFIGDIR", "PATH", "PWD",
        "PYTHONDONTWRITEBYTECODE", "SHLVL", "XDG_CACHE_HOME", "_",
    }  # fmt: skip
    assert "sandbox" in lines
    assert os.uname().nodename not in ran.stdout.decode()
    assert "canary" not in ran.stdout.decode()


async def test_the_socket_directory_is_this_sandboxs_own_and_closed(bench: Bench) -> None:
    """Nothing in it once the program runs, and nothing can be put there."""
    async with bench.sandbox():
        ran = await bench.bash(f"ls -A {SOCKET_DIR}; touch {SOCKET_DIR}/x || echo refused")
    assert ran.stdout == b"refused\n"


async def test_no_profile_no_sandbox(bench: Bench, without: Callable[[Change], Any]) -> None:
    """A profile that the runtime cannot load fails the launch instead of being left out."""
    broken = {"defaultAction": "SCMP_ACT_NO_SUCH", "syscalls": []}
    with (
        without(host(SecurityOpt=[f"seccomp={json.dumps(broken)}"])),
        pytest.raises(LaunchFailed),
    ):
        await bench.bash("true")
