"""The capabilities of this host and its lacks: the findings of `runner doctor`.

Docker's facts are passed in, so that nothing here needs access to the daemon.
"""

import os
import platform
import pwd
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from runner.base.seccomp import load_profile
from runner.base.settings import Settings
from runner.cli.credentials import weaknesses
from runner.quotas.sizes import load_sizes
from runner.sandbox.engine.spec import GVISOR_ARGUMENTS, LIMITLESS, PTYS
from runner.words.errors import SetupError

GIB = 2**30
MIN_DISK_GIB = 5
MIN_MEMORY_GIB = 2
FIXED_RUNC = ((1, 2, 8), (1, 3, 3))
"""First release of each line without CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881."""
OLDEST_ENGINE_MAJOR = 25
UNPACKING_APART = {"overlay2", "overlayfs"}
"""Storage drivers that unpack each layer of an image into a folder of its own, so no link of
another layer is followed."""


class Status(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact, and what to do about it if it is not fine."""

    name: str
    status: Status
    value: str
    advice: str = ""


def examine(settings: Settings, docker: Mapping[str, Any] | None) -> list[Finding]:
    """Return all findings; `docker` holds `info` and `version`, or is None if no daemon answers."""
    return [
        *_kernel(),
        *(_docker(docker) if docker else [_no_docker(settings)]),
        *_programs(),
        *_profiles(settings),
        _users(settings),
        _terminals(settings),
        _null(),
        _swap(docker, psutil.swap_memory().total),
        *_resources(settings),
        *_credentials(settings),
    ]


def _credentials(settings: Settings) -> Iterator[Finding]:
    found = weaknesses(settings)
    if not found:
        yield Finding("platform secrets", Status.OK, "no weakness in those that are visible here")
    for weak in found:
        status = Status.MISSING if weak.fatal else Status.WARN
        yield Finding("platform secrets", status, f"{weak.where} {weak.what}", weak.advice)


def _kernel(root: Path = Path("/")) -> Iterator[Finding]:
    yield Finding("kernel", Status.OK, platform.release())
    unified = (root / "sys/fs/cgroup/cgroup.controllers").exists()
    yield Finding("cgroup version", Status.OK, "2" if unified else "1")
    actions = root / "proc/sys/kernel/seccomp/actions_avail"
    if actions.exists():
        yield Finding("seccomp", Status.OK, "in the kernel")
    else:
        yield Finding("seccomp", Status.MISSING, "none", "use a kernel with CONFIG_SECCOMP_FILTER")
    if not unified:
        # The worker's own process decides; Docker's runc does not set this limit.
        may = os.access(root / "sys/fs/cgroup/memory", os.W_OK)
        yield Finding(
            "memory of sockets",
            Status.OK if may else Status.WARN,
            "limited by the worker" if may else "not limited",
            ""
            if may
            else "cgroup version 1 counts it apart: run the worker as root with /sys/fs/cgroup "
            "writable, or start the host with cgroup version 2",
        )
    yield _weight(root / "sys/fs/cgroup" / ("" if unified else "cpu"))
    modules = root / "sys/kernel/security/lsm"
    names = modules.read_text("ascii").split(",") if modules.exists() else []
    found = [name for name in names if name in {"apparmor", "selinux"}]
    if found:
        yield Finding("mandatory access control", Status.OK, ", ".join(found))
    else:
        yield Finding(
            "mandatory access control",
            Status.WARN,
            "none",
            "AppArmor or SELinux would be a further wall around each container",
        )


def _weight(groups: Path) -> Finding:
    """Return whether this user may set the weight of sandboxes, as the worker does."""
    name = "weight of sandboxes"
    if os.access(groups, os.W_OK):
        return Finding(name, Status.OK, "set by the worker")
    return Finding(
        name,
        Status.WARN,
        "left as it is",
        f"this user may not write to {groups}: when processors are short, tenants' programs slow "
        "down the API, deadlines and leases; run the worker as root with that folder writable",
    )


def _no_docker(settings: Settings) -> Finding:
    return Finding(
        "Docker",
        Status.MISSING,
        f"no answer at {settings.docker_url}",
        "`apt-get install docker.io` and start dockerd, or set RUNNER_DOCKER_URL",
    )


def _docker(facts: Mapping[str, Any]) -> Iterator[Finding]:
    info, version = facts["info"], facts["version"]
    engine = str(version.get("Version", "unknown"))
    recent = _numbers(engine)[:1] >= (OLDEST_ENGINE_MAJOR,)
    yield Finding(
        "Docker Engine",
        Status.OK if recent else Status.WARN,
        f"{engine}, API {version.get('ApiVersion')}",
        "" if recent else "no longer maintained upstream: rely on your distribution's fixes",
    )
    yield _runc(version)
    apart = info.get("Driver") in UNPACKING_APART
    yield Finding(
        "storage, cgroups",
        Status.OK if apart else Status.WARN,
        f"{info.get('Driver')}, {info.get('CgroupDriver')} v{info.get('CgroupVersion', '1')}",
        ""
        if apart
        else "a template that is built on another one could change what starts in its sandboxes: "
        "use the storage driver overlay2",
    )
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    enforced = any("seccomp" in option for option in options)
    yield Finding(
        "seccomp in Docker",
        Status.OK if enforced else Status.MISSING,
        "on" if enforced else "off",
        "" if enforced else "use a Docker Engine built with seccomp",
    )
    for limit, name in (
        ("MemoryLimit", "memory limit"),
        ("SwapLimit", "swap limit"),
        ("PidsLimit", "pids limit"),
        ("CpuCfsQuota", "CPU limit"),
    ):
        if not info.get(limit):
            yield Finding(name, Status.WARN, "not enforced", "enable the cgroup controller at boot")
    yield _gvisor((info.get("Runtimes") or {}).get("runsc"))


def _gvisor(runtime: Mapping[str, Any] | None) -> Finding:
    if runtime is None:
        return Finding(
            "gVisor",
            Status.WARN,
            "no runtime runsc",
            'isolation "gvisor" is refused. `apt-get install runsc` (or a newer one from '
            "gvisor.dev), register it in /etc/docker/daemon.json as docs/operations/install.md "
            "shows, and reload dockerd",
        )
    given = set(runtime.get("runtimeArgs") or ())
    if LIMITLESS in given:
        return Finding(
            "gVisor",
            Status.WARN,
            f"runtime runsc with {LIMITLESS}",
            'isolation "gvisor" is refused: no limit of memory, processes or CPU would hold. '
            "Take the argument out of the daemon's configuration and reload dockerd",
        )
    lacking = [argument for argument in GVISOR_ARGUMENTS if argument not in given]
    return Finding(
        "gVisor",
        Status.WARN if lacking else Status.OK,
        "runtime runsc",
        f"give it {' '.join(lacking)} in the daemon's configuration: see docs/operations/install.md"
        if lacking
        else "",
    )


def _runc(version: Mapping[str, Any]) -> Finding:
    components = {part["Name"]: part for part in version.get("Components") or ()}
    found = str(components.get("runc", {}).get("Version", "unknown"))
    numbers = _numbers(found)
    fixed = any(numbers[:2] == first[:2] and numbers >= first for first in FIXED_RUNC) or (
        numbers[:2] > FIXED_RUNC[-1][:2]
    )
    return Finding(
        "runc",
        Status.OK if fixed else Status.WARN,
        found,
        ""
        if fixed
        else "older than 1.2.8 and 1.3.3 (CVE-2025-31133, 52565, 52881): see whether your "
        "distribution's package carries the fixes",
    )


def _programs() -> Iterator[Finding]:
    for names, package in (
        (("mmdebstrap",), "mmdebstrap"),
        (("valkey-server", "redis-server"), "redis-server"),
    ):
        found = next((path for name in names if (path := shutil.which(name))), None)
        yield Finding(
            names[-1],
            Status.OK if found else Status.WARN,
            found or "not found",
            "" if found else f"`apt-get install {package}`",
        )


def _profiles(settings: Settings) -> Iterator[Finding]:
    folder = settings.profiles_path
    advice = "fix or remove it: `runner profile check FILE` names what is wrong"
    try:
        allowed = len(load_profile(folder).allowed)
        yield Finding("seccomp profile", Status.OK, f"{allowed} system calls, from {folder}")
    except SetupError as error:
        yield Finding("seccomp profile", Status.MISSING, error.detail, advice)
    try:
        sizes = sorted(load_sizes(folder).items(), key=lambda size: size[1].memory_mb)
        yield Finding("sizes", Status.OK, ", ".join(name for name, _ in sizes))
    except SetupError as error:
        yield Finding("sizes", Status.MISSING, error.detail, "fix the file, or remove it")


def _users(settings: Settings, root: Path = Path("/")) -> Finding:
    """Return whether anybody else on this host has user ids of the sandboxes."""
    uids = settings.sandbox_uid_range
    value = f"{uids[0]} to {uids[-1]}"
    others = {user.pw_name for user in pwd.getpwall() if user.pw_uid in uids}
    subordinate = root / "etc/subuid"
    for line in subordinate.read_text().splitlines() if subordinate.exists() else []:
        name, first, count = line.split(":")
        theirs = range(int(first), int(first) + int(count))
        if uids[0] < theirs.stop and theirs.start < uids.stop:
            others.add(f"{name} (subuid)")
    return Finding(
        "sandbox users",
        Status.WARN if others else Status.OK,
        f"{value}, shared with {', '.join(sorted(others))}" if others else value,
        "give sandboxes ids of their own: RUNNER_SANDBOX_UIDS" if others else "",
    )


def _terminals(settings: Settings, root: Path = Path("/")) -> Finding:
    kernel = root / "proc/sys/kernel/pty"
    # The kernel reserves some for the host itself (filesystems/devpts.rst).
    reserved = int((kernel / "reserve").read_text())
    free = int((kernel / "max").read_text()) - reserved
    wanted = settings.most_sandboxes * PTYS
    return Finding(
        "pseudo-terminals",
        Status.OK if wanted <= free else Status.WARN,
        f"{free} for sandboxes",
        ""
        if wanted <= free
        else f"{settings.most_sandboxes} sandboxes may take {wanted}: "
        f"run `sysctl -w kernel.pty.max={wanted + reserved}`, and write it to /etc/sysctl.d",
    )


def _null(null: Path = Path("/dev/null")) -> Finding:
    if null.stat().st_uid == 0:
        return Finding(str(null), Status.OK, "root's")
    # gVisor makes its standard input nobody's; sandboxes give it a pipe.
    advice = f"run `chown root:root {null}`: gVisor's processes are nobody's, and could take it"
    return Finding(str(null), Status.WARN, "not root's", advice)


def _swap(docker: Mapping[str, Any] | None, total: int) -> Finding:
    if total == 0:
        return Finding("swap", Status.OK, "off")
    advice = "turn it off (swapoff): what a sandbox held could reach the disk"
    if docker is not None and docker["info"].get("CgroupDriver") == "systemd":
        advice += ", and `systemctl daemon-reload` lifts the limit of swap for up to a second"
    return Finding("swap", Status.WARN, f"{total / GIB:.1f} GiB", advice)


def _resources(settings: Settings) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    enough = memory.available >= MIN_MEMORY_GIB * GIB
    yield Finding(
        "memory",
        Status.OK if enough else Status.WARN,
        f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB available",
        "" if enough else "a sandbox may take its whole size at once",
    )
    yield Finding("processors", Status.OK, str(os.cpu_count()))
    existing = next(
        path for path in (settings.state_dir, *settings.state_dir.parents) if path.exists()
    )
    free = psutil.disk_usage(str(existing)).free
    enough = free >= MIN_DISK_GIB * GIB
    yield Finding(
        "disk",
        Status.OK if enough else Status.WARN,
        f"{free / GIB:.0f} GiB free below {settings.state_dir}",
        "" if enough else f"leave {MIN_DISK_GIB} GiB for images, artifacts and the database",
    )
    if settings.run_dir.exists():
        mode = stat.S_IMODE(settings.run_dir.stat().st_mode)
        private = not mode & 0o022
        yield Finding(
            "state folder",
            Status.OK if private else Status.WARN,
            f"{settings.run_dir} has mode {mode:04o}",
            "" if private else f"`chmod go-w {settings.run_dir}`",
        )


def _numbers(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.replace("+", ".").replace("~", ".").replace("-", ".").split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)
