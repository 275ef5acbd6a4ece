"""The usage of a run and the limits that it met, as the kernel counts them (cgroup v1 and v2).

Read from the host's files while the container lives: its groups go with it. What a kernel does
not offer is None. See Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
"""

import contextlib
import dataclasses
import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.sandbox.observe.kernel import number, read, told
from runner.words.errors import SetupError

ROOT = Path("/sys/fs/cgroup")
UNIFIED = 2
_GONE = {errno.ENOENT, errno.ENODEV}
_NOT_PERMITTED = {errno.EACCES, errno.EPERM, errno.EROFS}
_DYING_S = 1.0
_LOOK_S = 0.005
_MEMORY_V1 = "memory/memory.limit_in_bytes"
_SOCKETS_V1 = "memory/memory.kmem.tcp.limit_in_bytes"
_USUAL_SHARES = 1024
_USUAL_WEIGHT = 100
_LESS = 4
"""All sandboxes together have a quarter of the weight that a service of the host has: what answers
clients and keeps deadlines comes before what tenants run, and nobody waits for an idle processor.
"""


@dataclass(frozen=True, slots=True)
class Counters:
    """One reading. None where this host does not tell.

    `pids_peak` counts the few threads of the container runtime before the program, too.
    """

    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None
    oom_kills: int | None = None
    pids_refused: int | None = None
    """How often a new process or thread was refused for the pids limit."""

    def since(self, earlier: "Counters", *, first: bool = True) -> "Counters":
        """Return this reading with what an earlier one counted already taken off.

        A peak that an earlier run of the same sandbox reached is unknown, not this run's.
        """
        counted = {
            name: now - before
            for name in ("cpu_s", "oom_kills", "pids_refused")
            if (now := getattr(self, name)) is not None
            and (before := getattr(earlier, name)) is not None
        }
        peaks = {
            name: None
            for name in ("memory_peak_bytes", "pids_peak")
            if not first and (getattr(self, name) or 0) <= (getattr(earlier, name) or 0)
        }
        return dataclasses.replace(self, **counted, **peaks)


@dataclass(frozen=True, slots=True)
class InUse:
    """The resources that a container holds now. None where this host does not tell."""

    memory_bytes: int | None
    """The page cache included."""
    pids: int | None


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The folders in which this daemon keeps its containers' control groups."""

    version: int
    parent: str
    systemd: bool
    root: Path = ROOT

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "Cgroups":
        """Tell from `docker info`. Raises SetupError for a driver without limits."""
        driver = str(info.get("CgroupDriver", ""))
        if driver not in {"cgroupfs", "systemd"}:
            raise SetupError(f"Docker's cgroup driver is {driver!r}: limits would not be enforced")
        systemd = driver == "systemd"
        return cls(
            version=int(info.get("CgroupVersion", "1")),
            parent="agentrunner.slice" if systemd else "/agentrunner",
            systemd=systemd,
        )

    def read(self, container_id: str) -> Counters:
        """Read the container's counters."""
        group, cpu_s = self.group(container_id), self.cpu_s(container_id)
        if self.version == UNIFIED:
            return self._read_v2(group, cpu_s)
        return self._read_v1(group, cpu_s)

    def in_use(self, container_id: str) -> InUse:
        """Read what the container holds now."""
        group = self.group(container_id)
        if self.version == UNIFIED:
            memory, pids = f"{group}/memory.current", f"{group}/pids.current"
        else:
            memory = f"memory/{group}/memory.usage_in_bytes"
            pids = f"pids/{group}/pids.current"
        return InUse(number(f"{self.root}/{memory}"), number(f"{self.root}/{pids}"))

    def processes(self, container_id: str) -> tuple[int, ...]:
        """Return the host's ids of the processes in the container; none once it is gone.

        Raises OSError when nobody can tell, as without a free file descriptor.
        """
        controller = "" if self.version == UNIFIED else "pids"
        try:
            text = read(f"{self.root}/{controller}/{self.group(container_id)}/cgroup.procs")
        except OSError as error:
            if error.errno in _GONE:
                return ()
            raise
        return tuple(map(int, text.split()))

    def limits(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return the limits of a container of this `HostConfig`, by the files that hold them.

        The CPU quota is not here: nobody changes it, and systemd rounds it.
        """
        return dict(self._limits(config))

    def _limits(self, config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        unified = self.version == UNIFIED
        memory, both, pids = config["Memory"], config["MemorySwap"], config["PidsLimit"]
        if memory > 0:
            yield ("memory.max" if unified else _MEMORY_V1), memory
            # Version 1 counts memory and swap together, version 2 swap alone.
            if both >= memory and unified:
                yield "memory.swap.max", both - memory
            elif both >= memory:
                yield "memory/memory.memsw.limit_in_bytes", both
        if pids > 0:
            yield ("pids.max" if unified else "pids/pids.max"), pids
        # Version 2 counts sockets as memory. A worker without the right to set this limit starts
        # sandboxes without it, the one thing that is not refused: `runner doctor` tells of it.
        sockets = config.get("KernelMemoryTCP", 0)
        if sockets > 0 and not unified and may_set(self.root):
            yield _SOCKETS_V1, sockets

    def lives(self, container_id: str) -> bool:
        """Return whether the container's control group is there."""
        controller = "" if self.version == UNIFIED else "pids"
        return (self.root / controller / self.group(container_id)).is_dir()

    def set_limits(self, container_id: str, limits: Mapping[str, int]) -> list[str]:
        """Set those that are not what they shall be; return their files' names.

        What the kernel lacks is passed over, and a container that is gone. Raises OSError.
        """
        group = self.group(container_id)
        changed = []
        for place, wanted in limits.items():
            controller, _, name = place.rpartition("/")
            path = f"{self.root}/{controller}/{group}/{name}"
            if _set(path, wanted):
                changed.append(name)
        return changed

    def weigh(self) -> bool:
        """Let the parts of a deployment come before all sandboxes when processors are short.

        Returns whether the weight had to be set. Without sandboxes there is no group, and without
        the right to set it, it stays as it is.
        """
        return self._weigh(self.parent.lstrip("/"), _LESS)

    def set_weight(self, container_id: str, parts: int) -> bool:
        """Give a container one of so many parts of the usual weight; return whether that is new.

        A container that is gone is passed over, and so is a weight that this worker may not set.
        """
        return self._weigh(self.group(container_id), parts)

    def _weigh(self, group: str, parts: int) -> bool:
        if self.version == UNIFIED:
            path, usual, least = f"{self.root}/{group}/cpu.weight", _USUAL_WEIGHT, 1
        else:
            path, usual, least = f"{self.root}/cpu/{group}/cpu.shares", _USUAL_SHARES, 2
        try:
            return _set(path, max(least, usual // parts))
        except OSError as error:
            if error.errno in _NOT_PERMITTED:
                return False
            raise

    def cpu_s(self, container_id: str) -> float | None:
        """Return the processor time that the container has used; None once it is gone."""
        group = self.group(container_id)
        if self.version == UNIFIED:
            cpu_us = _entry(f"{self.root}/{group}/cpu.stat", "usage_usec")
            return None if cpu_us is None else cpu_us / 1e6
        cpu_ns = number(f"{self.root}/cpuacct/{group}/cpuacct.usage")
        return None if cpu_ns is None else cpu_ns / 1e9

    def holds_too_much(self, container_id: str, limits: Mapping[str, int]) -> bool:
        """Return whether memory and sockets are together more than may be (version 1)."""
        if not limits.keys() >= {_MEMORY_V1, _SOCKETS_V1}:
            return False
        folder = f"{self.root}/memory/{self.group(container_id)}"
        sockets = number(f"{folder}/memory.kmem.tcp.usage_in_bytes") or 0
        if sockets <= limits[_SOCKETS_V1]:
            return False
        # Not the page cache, which the kernel takes back by itself.
        own = sum(_entry(f"{folder}/memory.stat", key) or 0 for key in ("rss", "shmem"))
        own += number(f"{folder}/memory.kmem.usage_in_bytes") or 0
        return own + sockets > limits[_MEMORY_V1] + limits[_SOCKETS_V1]

    def kill(self, container_id: str) -> bool:
        """SIGKILL the container's processes, as far as this worker may, without asking Docker.

        Return whether there were some, and it may kill all of them. Raises OSError.
        """
        pids = self.processes(container_id)
        # 0 is a process that this worker's namespace does not show.
        permitted = [pid != 0 and self._kill(pid, container_id) for pid in pids]
        return bool(pids) and all(permitted)

    def end(self, container_id: str) -> bool:
        """Kill the container's processes, and return whether that has left none. Raises OSError."""
        if not self.kill(container_id):
            return False
        until = time.monotonic() + _DYING_S
        while self.processes(container_id):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_S)
        return True

    def _kill(self, pid: int, container_id: str) -> bool:
        """SIGKILL one; False if this worker may not."""
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            # Held now; if it is still listed, it is not another one with the same number.
            if pid in self.processes(container_id):
                signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        finally:
            os.close(process)
        return True

    def forget_peak(self, container_id: str) -> None:
        """Let the peak of memory begin anew where the kernel can (version 1)."""
        if self.version != UNIFIED:
            peak = self.root / "memory" / self.group(container_id) / "memory.max_usage_in_bytes"
            with contextlib.suppress(OSError):
                # Without the right to it the peak stays, and is then not told (`Counters.since`).
                peak.write_text("0")

    def group(self, container_id: str) -> str:
        """Return the container's group, below the root or below a controller."""
        scope = f"docker-{container_id}.scope" if self.systemd else container_id
        return f"{self.parent.lstrip('/')}/{scope}"

    def _read_v2(self, group: str, cpu_s: float | None) -> Counters:
        folder = f"{self.root}/{group}"
        return Counters(
            cpu_s=cpu_s,
            memory_peak_bytes=number(f"{folder}/memory.peak"),
            pids_peak=number(f"{folder}/pids.peak"),
            oom_kills=_entry(f"{folder}/memory.events", "oom_kill"),
            pids_refused=_entry(f"{folder}/pids.events", "max"),
        )

    def _read_v1(self, group: str, cpu_s: float | None) -> Counters:
        memory = f"{self.root}/memory/{group}"
        pids = f"{self.root}/pids/{group}"
        return Counters(
            cpu_s=cpu_s,
            memory_peak_bytes=number(f"{memory}/memory.max_usage_in_bytes"),
            pids_peak=number(f"{pids}/pids.peak"),
            oom_kills=_entry(f"{memory}/memory.oom_control", "oom_kill"),
            pids_refused=_entry(f"{pids}/pids.events", "max"),
        )


def may_set(root: Path = ROOT) -> bool:
    """Return whether this process may set limits that Docker does not set (version 1)."""
    return os.access(root / "memory", os.W_OK)


def _set(path: str, wanted: int) -> bool:
    """Write a value that is another one now; False if nothing was written. Raises OSError.

    What the kernel lacks is passed over, and a group that is gone.
    """
    if told(path) in {None, str(wanted)}:
        return False
    try:
        with open(path, "w") as file:  # noqa: PTH123 - no path object around each of many
            file.write(str(wanted))
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise
    return True


def _entry(path: str, key: str) -> int | None:
    """Return the number beside `key` in a flat keyed file."""
    for line in (told(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return None
