"""The real walls of a running sandbox, read back from the kernel, not from our wishes.

The first process of the container is looked at from the host: what holds for it holds for
everything it starts, which can give up more and gain nothing. Under gVisor that process is
gVisor's own, which the program is one wall further away from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.sandbox.observe.kernel import link, number, read, told
from runner.words.sandbox import RUNC

_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
_CAPABILITIES = {
    "ambient": "CapAmb",
    "bounding": "CapBnd",
    "effective": "CapEff",
    "inheritable": "CapInh",
    "permitted": "CapPrm",
}
_LIMITS = {
    "core_bytes": "Max core file size",
    "file_bytes": "Max file size",
    "locked_bytes": "Max locked memory",
    "message_queue_bytes": "Max msgqueue size",
    "open_files": "Max open files",
}


@dataclass(frozen=True, slots=True)
class EffectiveIsolation:
    """Effective isolation. Capabilities are hexadecimal masks; limits None where not read."""

    runtime: str
    capabilities: Mapping[str, str]
    no_new_privileges: bool
    seccomp_mode: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    own_namespaces: tuple[str, ...]
    """Those that differ from the host's."""
    interfaces: tuple[str, ...]
    mounts: tuple[str, ...]
    """Each as `target type options`."""
    read_only_root: bool
    resource_limits: Mapping[str, str]
    memory_bytes: int | None
    swap_bytes: int | None
    """Beyond memory; None also where there is no limit."""
    socket_bytes: int | None
    """The most bytes that the internet's sockets may hold beyond memory (cgroup version 1)."""
    processes: int | None
    cpus: float | None
    security_label: str | None


def read_isolation(
    facts: Mapping[str, Any], proc: Path = Path("/proc")
) -> EffectiveIsolation | None:
    """Return the isolation of the container that Docker describes so; None when it has ended."""
    process = f"{proc}/{facts['State']['Pid']}"
    try:
        status = dict(
            line.split(":\t", 1) for line in read(f"{process}/status").splitlines() if ":\t" in line
        )
        mounts = tuple(_mounts(read(f"{process}/mountinfo")))
        return EffectiveIsolation(
            runtime=str(facts["HostConfig"].get("Runtime") or RUNC),
            capabilities={name: status[key].strip() for name, key in _CAPABILITIES.items()},
            no_new_privileges=status["NoNewPrivs"].strip() == "1",
            seccomp_mode=int(status["Seccomp"]),
            uid=int(status["Uid"].split()[1]),
            gid=int(status["Gid"].split()[1]),
            groups=tuple(int(group) for group in status["Groups"].split()),
            own_namespaces=tuple(
                name for name in _NAMESPACES if _own(process, f"{proc}/self", name)
            ),
            interfaces=_interfaces(read(f"{process}/net/dev")),
            mounts=mounts,
            read_only_root=any(
                mount.startswith("/ ") and mount.split(" ")[2].split(",")[0] == "ro"
                for mount in mounts
            ),
            resource_limits=_limits(read(f"{process}/limits")),
            security_label=_label(process),
            **_cgroup_limits(process),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def _own(process: str, ours: str, name: str) -> bool:
    return link(f"{process}/ns/{name}") != link(f"{ours}/ns/{name}")


def _interfaces(text: str) -> tuple[str, ...]:
    return tuple(sorted(line.partition(":")[0].strip() for line in text.splitlines()[2:]))


def _mounts(text: str) -> list[str]:
    """Return `target type options` of each mount (proc_pid_mountinfo(5))."""
    found = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        _, _, _, _, target, options = fields.split(" ")[:6]
        found.append(f"{target} {rest.split(' ')[0]} {options}")
    return sorted(found)


def _limits(text: str) -> dict[str, str]:
    return {
        name: line[len(title) :].split()[1]
        for name, title in _LIMITS.items()
        for line in text.splitlines()
        if line.startswith(title)
    }


def _label(process: str) -> str | None:
    # A kernel without any security module has no label to tell.
    return (told(f"{process}/attr/current") or "").strip("\0\n") or None


def _cgroup_limits(process: str, root: str = "/sys/fs/cgroup") -> dict[str, Any]:
    """Return memory, processes and CPUs as the control groups have them, of either version."""
    groups = {}
    for line in read(f"{process}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path.lstrip("/")
    if "memory" in groups:
        folder = f"{root}/memory/{groups['memory']}"
        memory = number(f"{folder}/memory.limit_in_bytes")
        both = number(f"{folder}/memory.memsw.limit_in_bytes")
        cpu = f"{root}/cpu/{groups.get('cpu', '')}"
        quota, period = number(f"{cpu}/cpu.cfs_quota_us"), number(f"{cpu}/cpu.cfs_period_us")
        return {
            "memory_bytes": memory,
            "swap_bytes": None if memory is None or both is None else both - memory,
            "socket_bytes": number(f"{folder}/memory.kmem.tcp.limit_in_bytes"),
            "processes": number(f"{root}/pids/{groups.get('pids', '')}/pids.max"),
            "cpus": quota / period if quota and period else None,
        }
    folder = f"{root}/{groups.get('', '')}"
    quota_text, _, period_text = (told(f"{folder}/cpu.max") or "").partition(" ")
    both = quota_text.isdigit() and period_text.isdigit()
    return {
        "memory_bytes": number(f"{folder}/memory.max"),
        "swap_bytes": number(f"{folder}/memory.swap.max"),
        "socket_bytes": None,
        "processes": number(f"{folder}/pids.max"),
        "cpus": int(quota_text) / int(period_text) if both else None,
    }
