"""nsjail and bubblewrap, alone and inside a tenant's container, as near to our spec as they come.

They start the same supervisor in the same root file system. What of our spec they do not have is
named in docs/decisions/0019-past-the-daemon.md, and shows in the isolation that is read back.
"""

import asyncio
import copy
import json
import os
import resource
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.oci import Config, Direct, Rootfs, end
from runner.errors import LaunchFailed
from runner.sandbox.engine import Engine
from runner.sandbox.sockets import listen
from runner.sandbox.spec import SOCKET_DIR, UID
from runner.seccomp import compile_filter, read_profile

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
HOMES = "/run/homes"
_CONTROL = "control.sock"
_FILTER = "filter.bpf"
_MB = 2**20
_RLIMITS = {
    "core": resource.RLIMIT_CORE,
    "fsize": resource.RLIMIT_FSIZE,
    "memlock": resource.RLIMIT_MEMLOCK,
    "nofile": resource.RLIMIT_NOFILE,
    "msgqueue": 12,  # RLIMIT_MSGQUEUE, which Python does not name
}


def write_filter(profiles: Path, target: Path) -> None:
    """Write our system call filter as the kernel takes it."""
    _, document = read_profile(profiles / "seccomp" / "default.json")
    with target.open("wb") as file:
        compile_filter(document).export_bpf(file)
    target.chmod(0o644)


class Plain(Direct):
    """Starts one process for each jail, whose last descendant is the supervisor."""

    program = "true"

    def __init__(self, url: str, folder: Path, rootfs: Rootfs, profiles: Path) -> None:
        super().__init__(url, folder, rootfs)
        self.profiles = profiles
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, container: str) -> None:
        """Start it."""
        await asyncio.to_thread(self._start, container, self.configs[container])

    def _start(self, container: str, config: Config) -> None:
        self._processes[container] = self.spawn(container, config)

    def spawn(self, container: str, config: Config) -> "subprocess.Popen[bytes]":
        """Start the jail's process."""
        raise NotImplementedError

    async def remove(self, container: str) -> None:
        """Kill and remove it."""
        await asyncio.to_thread(self._remove, container)

    def _remove(self, container: str) -> None:
        process = self._processes.pop(container, None)
        if process is None:
            return
        inner = last_descendant(process.pid)
        if inner != process.pid:
            end(inner)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.tidy(container)

    async def kill(self, container: str) -> None:
        """SIGKILL it."""
        if pid := self.pid(container):
            await asyncio.to_thread(end, pid)

    def tidy(self, container: str) -> None:
        """Remove what it leaves."""

    def pid(self, container: str) -> int | None:
        """Return the supervisor's process."""
        process = self._processes.get(container)
        return last_descendant(process.pid) if process else None


def last_descendant(pid: int) -> int:
    """Return the end of a chain of only children (proc_pid_children(5))."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return pid
    return last_descendant(int(children[0])) if children else pid


class Nsjail(Plain):
    """nsjail, which makes its own control groups."""

    name = "nsjail"

    def __init__(
        self, url: str, folder: Path, rootfs: Rootfs, profiles: Path, program: str
    ) -> None:
        super().__init__(url, folder, rootfs, profiles)
        self.program = program
        _, document = read_profile(profiles / "seccomp" / "default.json")
        # Its language knows no filter by argument as Docker's does: names alone, so a bit wider.
        names = sorted(document.allowed - _UNKNOWN_TO_KAFEL)
        self._policy = "ALLOW { " + ", ".join(names) + " } DEFAULT ERRNO(1)"

    def spawn(self, container: str, config: Config) -> "subprocess.Popen[bytes]":
        """Start it with all that it has of our spec."""
        del container
        host = config["HostConfig"]
        home = host["Mounts"][0]["Source"]
        parent = host["CgroupParent"].strip("/")
        for controller in CONTROLLERS:
            (CGROUPS / controller / parent).mkdir(parents=True, exist_ok=True)
        limits = {each["Name"]: str(each["Hard"]) for each in host["Ulimits"]}
        return subprocess.Popen(
            [
                self.program, "--mode", "o", "--really_quiet", "--time_limit", "0",
                # As our containers: without a user namespace.
                "--disable_clone_newuser", "--chroot", str(self.rootfs.path),
                "--user", str(UID), "--group", str(UID), "--hostname", "sandbox",
                "--cwd", config["WorkingDir"],
                *_each("--env", config["Env"]),
                *_each("--mount", [
                    f"none:{target}:tmpfs:size={_size(options)}{_owner(options)}"
                    for target, options in host["Tmpfs"].items() if not target.startswith("/dev")
                ]),
                "--bindmount_ro", f"{home}:{SOCKET_DIR}",
                *_each("--bindmount", [f"/dev/{name}" for name in ("null", "zero", "urandom")]),
                "--rlimit_as", "inf", "--rlimit_cpu", "inf", "--rlimit_nproc", "inf",
                "--rlimit_core", "0", "--rlimit_fsize", str(int(limits["fsize"]) // _MB),
                "--rlimit_nofile", limits["nofile"], "--rlimit_memlock", "1",
                "--rlimit_msgqueue", "0",
                "--cgroup_mem_max", str(host["Memory"]), "--cgroup_mem_parent", parent,
                "--cgroup_pids_max", str(host["PidsLimit"]), "--cgroup_pids_parent", parent,
                "--cgroup_cpu_ms_per_sec", str(host["NanoCpus"] // 10**6),
                "--cgroup_cpu_parent", parent,
                "--seccomp_string", self._policy,
                "--", *config["Entrypoint"],
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


_UNKNOWN_TO_KAFEL: frozenset[str] = frozenset()


class Bubblewrap(Plain):
    """bubblewrap, with our own control groups and in a user namespace."""

    name = "bubblewrap"
    program = "bwrap"

    def __init__(self, url: str, folder: Path, rootfs: Rootfs, profiles: Path) -> None:
        super().__init__(url, folder, rootfs, profiles)
        self._filter = self.folder / _FILTER
        write_filter(profiles, self._filter)

    def spawn(self, container: str, config: Config) -> "subprocess.Popen[bytes]":
        """Start it as the sandbox's user, in control groups that we make."""
        enter = confine(container, config)
        home = config["HostConfig"]["Mounts"][0]["Source"]
        with self._filter.open("rb") as file:
            arguments = bubble(config, str(self.rootfs.path), home, file.fileno())
            return subprocess.Popen(
                [self.program, *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[file.fileno()], cwd="/",
                preexec_fn=enter,  # noqa: PLW1509 - nothing of Python's is locked by its threads
            )  # fmt: skip

    def tidy(self, container: str) -> None:
        """Remove its control groups."""
        parent = self.configs.pop(container)["HostConfig"]["CgroupParent"].strip("/")
        for controller in CONTROLLERS:
            (CGROUPS / controller / parent / container).rmdir()


def bubble(config: Config, root: str, home: str, seccomp: int) -> list[str]:
    """Return bubblewrap's arguments for our configuration."""
    tmpfs = []
    for target, options in config["HostConfig"]["Tmpfs"].items():
        if not target.startswith("/dev"):
            tmpfs += ["--size", str(_size(options)), "--tmpfs", target]
    environment = [part for each in config["Env"] for part in ("--setenv", *each.split("=", 1))]
    return [
        "--unshare-all", "--uid", str(UID), "--gid", str(UID), "--hostname", "sandbox",
        "--as-pid-1", "--new-session", "--cap-drop", "ALL", "--disable-userns", "--clearenv",
        *environment, "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", *tmpfs,
        "--ro-bind", home, SOCKET_DIR,
        *([] if root != "/" else ["--tmpfs", HOMES]),
        "--remount-ro", "/", "--chdir", config["WorkingDir"], "--seccomp", str(seccomp),
        *config["Entrypoint"],
    ]  # fmt: skip


def confine(container: str, config: Config) -> Callable[[], None]:
    """Make control groups (v1); return what enters them in a child, and becomes the user."""
    host = config["HostConfig"]
    wanted = {
        "memory": {"memory.limit_in_bytes": host["Memory"]},
        "pids": {"pids.max": host["PidsLimit"]},
        "cpu": {"cpu.cfs_quota_us": host["NanoCpus"] // 10**4},
    }
    groups = []
    for controller, values in wanted.items():
        group = CGROUPS / controller / host["CgroupParent"].strip("/") / container
        group.mkdir(parents=True)
        for name, value in values.items():
            (group / name).write_text(str(value))
        groups.append(str(group / "cgroup.procs"))

    def enter() -> None:
        for group in groups:
            Path(group).write_text(str(os.getpid()))
        for each in host["Ulimits"]:
            resource.setrlimit(_RLIMITS[each["Name"]], (each["Soft"], each["Hard"]))
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)

    return enter


class Inner(Plain):
    """bubblewrap inside one long-lived container of a tenant's, loosened as far as it must be."""

    name = "inner"
    program = "/usr/bin/bwrap"

    def __init__(
        self, url: str, folder: Path, rootfs: Rootfs, profiles: Path, docker: Engine
    ) -> None:
        super().__init__(url, folder, rootfs, profiles)
        self._docker = docker
        self._control: socket.socket | None = None
        self._lock = asyncio.Lock()
        self._container = ""
        self.init = 0

    async def start(self, container: str) -> None:
        """Have the container's first process start it."""
        config = self.configs[container]
        async with self._lock:
            if self._control is None:
                await self._open(config, Path(config["HostConfig"]["Mounts"][0]["Source"]).parent)
            arguments = bubble(config, "/", f"{HOMES}/{container.removeprefix('runner-')}", 9)
            await self._say({"start": container, "arguments": arguments})

    async def _open(self, config: Config, homes: Path) -> None:
        write_filter(self.profiles, homes / _FILTER)
        with listen(homes, _CONTROL, backlog=1) as listener:
            listener.setblocking(True)  # noqa: FBT003 - the standard library's signature
            listener.settimeout(10)
            self._container = await self._docker.create("benchmark-tenant", loosened(config, homes))
            await self._docker.start(self._container)
            self._control, _ = await asyncio.to_thread(listener.accept)
        self.init = int((await self._docker.state(self._container))["Pid"])

    async def _say(self, command: dict[str, Any]) -> None:
        if self._control is None:
            raise LaunchFailed("the tenant's container is not there")
        self._control.sendall(json.dumps(command).encode() + b"\n")
        if not await asyncio.to_thread(self._control.recv, 1):
            raise LaunchFailed("the tenant's container has ended")

    def pid(self, container: str) -> int | None:
        """Return the supervisor that has this name in its environment, as we see it."""
        children = Path(f"/proc/{self.init}/task/{self.init}/children").read_text().split()
        for child in children:
            arguments = Path(f"/proc/{child}/cmdline").read_text()
            if container.removeprefix("runner-") in arguments:
                return last_descendant(int(child))
        return None

    async def remove(self, container: str) -> None:
        """Have it killed, and waited for."""
        async with self._lock:
            await self._say({"end": container})

    async def close(self) -> None:
        """Remove the tenant's container."""
        if self._control is not None:
            self._control.close()
            await self._docker.remove(self._container)


NEEDED = ("clone", "mount", "pivot_root", "sethostname", "umount2", "unshare", "capset")
"""What our filter refuses (clone: with flags of namespaces) and bubblewrap needs."""

INIT = """
import json, os, socket, subprocess
control = socket.socket(socket.AF_UNIX)
control.connect("/run/homes/control.sock")
os.dup2(os.open("/run/homes/filter.bpf", os.O_RDONLY), 8)
running = {}
def fresh():
    os.dup2(os.open("/run/homes/filter.bpf", os.O_RDONLY), 9)
for line in control.makefile():
    said = json.loads(line)
    if "start" in said:
        running[said["start"]] = subprocess.Popen(
            ["/opt/bwrap", *said["arguments"]], preexec_fn=fresh, close_fds=False)
    elif said["end"] in running:
        process = running.pop(said["end"])
        process.kill()
        process.wait()
    control.sendall(b".")
"""


def loosened(config: Config, homes: Path) -> dict[str, Any]:
    """Return our configuration, loosened by what an unprivileged jail inside needs."""
    loose = copy.deepcopy(dict(config))
    host = loose["HostConfig"]
    name, _, text = host["SecurityOpt"][1].partition("=")
    profile = json.loads(text)
    for entry in profile["syscalls"]:
        entry["names"] = [each for each in entry["names"] if each not in NEEDED]
    profile["syscalls"] = [entry for entry in profile["syscalls"] if entry["names"]]
    profile["syscalls"].append({"names": list(NEEDED), "action": "SCMP_ACT_ALLOW"})
    host["SecurityOpt"][1] = f"{name}={json.dumps(profile)}"
    # A user namespace may mount a /proc only where the one that is there hides nothing
    # (mount_too_revealing in fs/namespace.c).
    host["MaskedPaths"], host["ReadonlyPaths"] = [], []
    host["Mounts"] = [
        {**host["Mounts"][0], "Source": str(homes), "Target": HOMES},
        {**host["Mounts"][0], "Source": Inner.program, "Target": "/opt/bwrap"},
    ]
    host["Tmpfs"][SOCKET_DIR] = "rw,size=4k,mode=0755"
    # One container's limits for all that run in it: none of them has its own.
    for limit in ("Memory", "MemorySwap", "PidsLimit"):
        host[limit] *= 16
    host["NanoCpus"] = 0
    loose["Entrypoint"] = ["/usr/bin/python3", "-I", "-S", "-c", INIT]
    return loose


def _each(option: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _size(options: str) -> int:
    return int(dict(part.partition("=")[::2] for part in options.split(","))["size"])


def _owner(options: str) -> str:
    kept = [part for part in options.split(",") if part.startswith(("uid=", "gid=", "mode="))]
    return "".join(f",{part}" for part in kept)
