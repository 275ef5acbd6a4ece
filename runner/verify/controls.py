"""The controls that checks test, and how to take each away to show that it is what stops them.

Taking a control away changes one thing in a container's configuration, and nothing else. Some
layers stand behind others: a system call that the kernel refuses to unprivileged processes anyway
shows nothing about the filter. In such a case, `lowered` takes away the layers behind in both runs,
so that only the control is left.
"""

import re
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.sandbox.engine.masks import MASKED
from runner.sandbox.engine.spec import SUPERVISOR
from runner.sandbox.launch import NODE_LABEL

Change = Callable[[dict[str, Any]], None]

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ",
)  # fmt: skip
"""In the order of their bits (linux/capability.h), as far as every Docker version knows them."""


@dataclass(frozen=True, slots=True)
class Control:
    """One control."""

    title: str
    remove: Change
    lowered: Change | None = None


def host(**fields: Any) -> Change:
    """Change fields of the host configuration."""
    return lambda config: config["HostConfig"].update(fields)


def both(*changes: Change) -> Change:
    """Make several changes."""

    def change(config: dict[str, Any]) -> None:
        for each in changes:
            each(config)

    return change


def become(user: str) -> Change:
    """Run as this user and group, written `uid:gid`."""
    uid, _, gid = user.partition(":")

    def change(config: dict[str, Any]) -> None:
        config["User"] = user
        # Only its owner can enter the workspace, not even root without capabilities.
        for place, options in config["HostConfig"]["Tmpfs"].items():
            own = re.sub(r"\buid=[0-9]+", f"uid={uid}", options)
            config["HostConfig"]["Tmpfs"][place] = re.sub(r"\bgid=[0-9]+", f"gid={gid}", own)

    return change


root = become("0:0")
"""Run as the container's root, who owns its files."""


def all_capabilities(config: dict[str, Any]) -> None:
    """Give every capability that root of this host has."""
    config["HostConfig"].update(CapDrop=["ALL"], CapAdd=sorted(host_capabilities()))


def host_capabilities() -> frozenset[str]:
    """Return the names of the capabilities that this process may have at most (capabilities(7))."""
    status = Path("/proc/self/status").read_text()
    (bounds,) = [line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:")]
    mask = int(bounds, 16)
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def security_option(name: str, value: str) -> Change:
    """Set one security option and replace its former value."""

    def change(config: dict[str, Any]) -> None:
        kept = [option for option in _options(config) if not option.startswith(f"{name}=")]
        config["HostConfig"]["SecurityOpt"] = [*kept, f"{name}={value}"]

    return change


unfiltered = security_option("seccomp", "unconfined")
"""Take the system call filter away."""


def new_privileges(config: dict[str, Any]) -> None:
    """Let programs gain privileges by executing a file."""
    config["HostConfig"]["SecurityOpt"] = [
        option for option in _options(config) if option != "no-new-privileges"
    ]


def without_name(config: dict[str, Any]) -> None:
    """Drop the name: a sandbox with a name of its own needs a namespace of its own."""
    config.pop("Hostname", None)


def tmpfs(old: str, new: str) -> Change:
    """Replace an option of every writable place."""

    def change(config: dict[str, Any]) -> None:
        places = config["HostConfig"]["Tmpfs"]
        for place in places:
            places[place] = places[place].replace(old, new)

    return change


def ulimit(name: str, value: int) -> Change:
    """Set one resource limit."""

    def change(config: dict[str, Any]) -> None:
        kept = [each for each in config["HostConfig"]["Ulimits"] if each["Name"] != name]
        config["HostConfig"]["Ulimits"] = [*kept, {"Name": name, "Soft": value, "Hard": value}]

    return change


def own_ulimit(name: str, number: int) -> Change:
    """Set one resource limit to this process's own, the most that Docker can give."""

    def change(config: dict[str, Any]) -> None:
        ulimit(name, resource.getrlimit(number)[1])(config)

    return change


def supervisor(patch: str) -> Change:
    """Start the supervisor after some Python code, which can change the supervisor's modules."""
    code = (
        f"import sys; sys.path.insert(0, {SUPERVISOR!r})\n{patch}\n"
        f"import runpy; runpy.run_path({SUPERVISOR + '/__main__.py'!r}, run_name='__main__')"
    )

    def change(config: dict[str, Any]) -> None:
        config["Entrypoint"] = ["/usr/bin/python3", "-I", "-c", code]

    return change


def _options(config: dict[str, Any]) -> list[str]:
    return list(config["HostConfig"]["SecurityOpt"])


def _host_network(config: dict[str, Any]) -> None:
    without_name(config)
    config["NetworkDisabled"] = False
    config["HostConfig"]["NetworkMode"] = "host"


def _connected(config: dict[str, Any]) -> None:
    config["NetworkDisabled"] = False
    # The bench makes a network with its node's name, as for any container.
    config["HostConfig"]["NetworkMode"] = config["Labels"][NODE_LABEL]


def _dockers_message_queues(config: dict[str, Any]) -> None:
    del config["HostConfig"]["Tmpfs"]["/dev/mqueue"]


def _dockers_terminals(config: dict[str, Any]) -> None:
    mounts = config["HostConfig"]["Mounts"]
    config["HostConfig"]["Mounts"] = [each for each in mounts if each["Target"] != "/dev/pts"]


def _unsized(config: dict[str, Any]) -> None:
    places = config["HostConfig"]["Tmpfs"]
    for place, options in places.items():
        kept = [o for o in options.split(",") if not o.startswith(("size=", "nr_inodes="))]
        # Four times the permitted amount, not the host's memory.
        places[place] = ",".join([*kept, "size=512m", "nr_inodes=100000"])


def unmasked(config: dict[str, Any]) -> None:
    """Take away the masks, whether the runtime makes them or we mount them."""
    host = config["HostConfig"]
    host["MaskedPaths"] = []
    host["Mounts"] = [each for each in host["Mounts"] if each["Target"] not in MASKED]
    host["Tmpfs"] = {place: o for place, o in host["Tmpfs"].items() if place not in MASKED}


CONTROLS: Mapping[str, Control] = {
    "capabilities": Control("all capabilities dropped", all_capabilities, root),
    "user": Control("an unprivileged user", root),
    "groups": Control("no supplementary groups", host(GroupAdd=["1234"])),
    # Without no_new_privs, runc loads a filter earlier, and ours refuses what runc does after that.
    "no-new-privileges": Control("no_new_privs", new_privileges, unfiltered),
    "seccomp": Control("the system call filter", unfiltered),
    "seccomp, for root": Control(
        "the system call filter, with every capability given",
        unfiltered,
        both(root, all_capabilities),
    ),
    "non-dumpable supervisor": Control(
        "PR_SET_DUMPABLE 0 of the supervisor",
        supervisor("import processes; processes.set_dumpable = lambda value: None"),
        unfiltered,
    ),
    "read-only root": Control("a read-only root file system", host(ReadonlyRootfs=False), root),
    "device list": Control(
        "no devices given",
        host(
            Devices=[
                {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"}
                for path in ("/dev/kmsg", "/dev/fuse")
            ]
        ),
    ),
    "nosuid": Control("writable places mounted nosuid", tmpfs("nosuid", "suid")),
    "nodev": Control("writable places mounted nodev", tmpfs("nodev", "dev")),
    "noexec": Control("shared memory mounted noexec", tmpfs("noexec", "exec")),
    "sized places": Control("writable places limited in bytes and files", _unsized),
    "message queues": Control(
        "the message queue file system made read-only",
        both(_dockers_message_queues, ulimit("msgqueue", 819200)),
    ),
    "terminals": Control("a limit on pseudo-terminals", _dockers_terminals),
    "masked paths": Control("kernel files masked", unmasked, root),
    # The kernel opens /proc/kcore for CAP_SYS_RAWIO alone (capabilities(7)).
    "masked paths, for root": Control(
        "kernel files masked, with every capability given",
        unmasked,
        both(root, all_capabilities),
    ),
    "read-only paths": Control("kernel settings mounted read-only", host(ReadonlyPaths=[]), root),
    "no interface": Control("no network interface", _connected),
    "host network": Control("a network namespace of its own", _host_network),
    "ipc namespace": Control("an IPC namespace of its own", host(IpcMode="host")),
    "uts namespace": Control(
        "a UTS namespace of its own", both(without_name, host(UTSMode="host"))
    ),
    "cgroup namespace": Control("a cgroup namespace of its own", host(CgroupnsMode="host")),
    "pids limit": Control("the pids limit", host(PidsLimit=200)),
    "memory limit": Control("the memory limit", host(Memory=2**30, MemorySwap=2**30)),
    "socket memory": Control(
        # Version 1 counts sockets separately, version 2 as memory.
        "a limit on what sockets hold",
        host(KernelMemoryTCP=0, Memory=2**30, MemorySwap=2**30),
    ),
    "swap limit": Control("no swap beyond memory", host(MemorySwap=-1)),
    "cpu limit": Control("the CPU quota", host(NanoCpus=0)),
    "ulimit nofile": Control(
        "a limit on descriptors", own_ulimit("nofile", resource.RLIMIT_NOFILE)
    ),
    "ulimit core": Control("no core dumps", ulimit("core", -1)),
    "ulimit fsize": Control("a limit on a file's size", ulimit("fsize", -1)),
    "ulimit memlock": Control(
        "a limit on locked memory", own_ulimit("memlock", resource.RLIMIT_MEMLOCK)
    ),
    "whole clean-up": Control(
        "SIGKILL to every process once the program has ended",
        supervisor("import processes; processes.kill_all = lambda: None"),
    ),
}
