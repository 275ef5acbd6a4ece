"""nsjail and bubblewrap, as close to our specification as possible.

They start the same supervisor in the same root file system. docs/decisions/0019-past-the-daemon.md
lists what they lack, and the isolation that is read back shows it.
"""

import asyncio
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyseccomp

from benchmarks.oci import Config, Direct, Rootfs, end
from runner.base.seccomp import compile_filter, read_profile
from runner.sandbox.engine.spec import SOCKET_DIR

CGROUPS = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu")
HOMES = "/run/homes"
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
    """Write our system call filter in the form that the kernel takes."""
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
        """Remove what the jail leaves behind."""

    def pid(self, container: str) -> int | None:
        """Return the supervisor's process."""
        process = self._processes.get(container)
        return last_descendant(process.pid) if process else None


def last_descendant(pid: int) -> int:
    """Return the end of a chain of only children (proc_pid_children(5))."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
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
        # By number, as its language has other names. It filters by name only, so it permits a bit
        # more.
        numbers = {pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, n) for n in document.allowed}
        allowed = ", ".join(f"SYSCALL[{number}]" for number in sorted(numbers) if number >= 0)
        self._policy = f"ALLOW {{ {allowed} }} DEFAULT ERRNO(1)"

    def spawn(self, container: str, config: Config) -> "subprocess.Popen[bytes]":
        """Start it."""
        del container
        return subprocess.Popen(
            self.arguments(config),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def arguments(self, config: Config) -> list[str]:
        """Return its command line, with as much of our specification as it supports."""
        host = config["HostConfig"]
        home = host["Mounts"][0]["Source"]
        uid = user(config)
        parent = host["CgroupParent"].strip("/")
        for controller in CONTROLLERS:
            (CGROUPS / controller / parent).mkdir(parents=True, exist_ok=True)
        limits = {each["Name"]: str(each["Hard"]) for each in host["Ulimits"]}
        return [
            self.program, "--mode", "o", "--really_quiet", "--time_limit", "0",
            # Without a user namespace, like our containers.
            "--disable_clone_newuser", "--proc_rw", "--chroot", str(self.rootfs.path),
            "--user", uid, "--group", uid, "--hostname", "sandbox",
            "--cwd", config["WorkingDir"],
            *_each("--env", config["Env"]),
            *_each("--mount", [
                f"none:{target}:tmpfs:size={_size(options)}{_owner(options)}"
                for target, options in host["Tmpfs"].items() if not target.startswith("/dev")
            ]),
            "--bindmount_ro", f"{home}:{SOCKET_DIR}",
            *_each("--bindmount", [f"/dev/{name}" for name in ("null", "zero", "urandom")]),
            "--rlimit_as", "soft", "--rlimit_cpu", "soft", "--rlimit_nproc", "soft",
            "--rlimit_core", "0", "--rlimit_fsize", str(int(limits["fsize"]) // _MB),
            "--rlimit_nofile", limits["nofile"], "--rlimit_memlock", "1",
            "--rlimit_msgqueue", "0",
            "--cgroup_mem_max", str(host["Memory"]), "--cgroup_mem_parent", parent,
            "--cgroup_pids_max", str(host["PidsLimit"]), "--cgroup_pids_parent", parent,
            "--cgroup_cpu_ms_per_sec", str(host["NanoCpus"] // 10**6),
            "--cgroup_cpu_parent", parent,
            "--seccomp_string", self._policy,
            "--", *config["Entrypoint"],
        ]  # fmt: skip


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


def user(config: Config) -> str:
    """Return the user id of the sandbox, which is also its group id."""
    return str(config["User"]).partition(":")[0]


def bubble(config: Config, root: str, home: str, seccomp: int) -> list[str]:
    """Return bubblewrap's arguments for our configuration."""
    tmpfs = []
    for target, options in config["HostConfig"]["Tmpfs"].items():
        if not target.startswith("/dev"):
            tmpfs += ["--size", str(_size(options)), "--tmpfs", target]
    environment: list[str] = []
    for each in config["Env"]:
        environment += ["--setenv", *each.split("=", 1)]
    return [
        "--unshare-all", "--unshare-user", "--uid", user(config), "--gid", user(config),
        "--hostname", "sandbox", "--as-pid-1", "--new-session", "--cap-drop", "ALL",
        "--disable-userns", "--clearenv",
        *environment, "--ro-bind", root, "/", "--proc", "/proc", "--dev", "/dev", *tmpfs,
        "--ro-bind", home, SOCKET_DIR,
        *([] if root != "/" else ["--tmpfs", HOMES, "--die-with-parent"]),
        "--remount-ro", "/", "--chdir", config["WorkingDir"], "--seccomp", str(seccomp),
        *config["Entrypoint"],
    ]  # fmt: skip


def confine(container: str, config: Config) -> Callable[[], None]:
    """Make control groups (v1); return what a child calls to enter them and become the user."""
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
    uid = int(user(config))

    def enter() -> None:
        for group in groups:
            Path(group).write_text(str(os.getpid()))
        for each in host["Ulimits"]:
            resource.setrlimit(_RLIMITS[each["Name"]], (each["Soft"], each["Hard"]))
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    return enter


def _each(option: str, values: list[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _size(options: str) -> int:
    return int(dict(part.partition("=")[::2] for part in options.split(","))["size"])


def _owner(options: str) -> str:
    kept = [part for part in options.split(",") if part.startswith(("uid=", "gid=", "mode="))]
    return "".join(f",{part}" for part in kept)
