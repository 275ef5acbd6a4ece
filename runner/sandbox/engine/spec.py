"""The container of a sandbox: every hardening flag, in one pure function.

The result is the Docker Engine API's own `POST /containers/create` body, so nothing between here
and the daemon adds or drops a field. Nothing else in the package writes Docker arguments.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.base.seccomp import SeccompProfile
from runner.sandbox.engine.masks import RUNTIMES_OWN, Masks
from runner.words.errors import IsolationMissing
from runner.words.resources import Resources
from runner.words.sandbox import (
    AGENT,
    PACKAGES,
    RUNC,
    RUNSC,
    Isolation,
    UnixAccount,
    search_path,
)

SUPERVISOR = "/opt/supervisor"
CONTEXTS = "/opt/contexts"
"""The programs of code contexts."""
SOCKET_DIR = "/run/sandbox"
MB = 2**20
SOCKETS_SHARE = 16
"""One part in so many of the memory limit may be held by sockets beyond it (cgroup version 1)."""

GVISOR_ARGUMENTS = ("--host-uds=open", "--network=none", "--oci-seccomp")
"""Arguments that `runsc` needs: the supervisor's socket, no network, and our profile."""
LIMITLESS = "--ignore-cgroups"
"""An argument that `runsc` must not have: no limit would hold."""

BUILDING = "/mnt"
"""The place where a template is built: in memory, so that its limits hold for all it writes."""
ROOTS_CAPABILITIES = (
    # What a package manager needs.
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "SETFCAP", "SETGID", "SETUID"),
    # To lay a writable root over the image's, and to enter it. Steps do without the first.
    *("SYS_ADMIN", "SYS_CHROOT"),
    # To drop that one.
    "SETPCAP",
)
"""Capabilities of root inside gVisor, in the sandbox of a build. gVisor's kernel checks them. On
the host, the process runs as nobody and has none."""

PTYS = 16
"""Pseudo-terminals a sandbox may have at once. All of a host's share `kernel.pty.max` (pty(7))."""

_BASE_ENVIRONMENT = (
    "LANG=C.UTF-8",
    "PIP_DISABLE_PIP_VERSION_CHECK=1",
    # What npm asks its registry beside the packages: rules for egress need not permit it.
    "NPM_CONFIG_AUDIT=false",
    "NPM_CONFIG_FUND=false",
    "NPM_CONFIG_UPDATE_NOTIFIER=false",
    # Caches are nobody's work: outside the workspace they are not taken for artifacts.
    "NPM_CONFIG_CACHE=/tmp/.cache/npm",
    "XDG_CACHE_HOME=/tmp/.cache",
    "MPLCONFIGDIR=/tmp/.cache/matplotlib",
    "MPLBACKEND=Agg",
    "PYTHONDONTWRITEBYTECODE=1",
)

_READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger")

# Docker mounts a devpts without a limit of its own, and has no option for one; a volume has. It is
# unnamed: made with this container, and removed with it.
_PTS = {
    "Type": "volume",
    "Target": "/dev/pts",
    "VolumeOptions": {
        "NoCopy": True,
        "DriverConfig": {
            "Name": "local",
            "Options": {
                "type": "devpts",
                "device": "devpts",
                # Docker's own options (runc requires ptmxmode), and the limit.
                "o": f"newinstance,nosuid,noexec,ptmxmode=0666,mode=0620,gid=5,max={PTYS}",
            },
        },
    },
}


@dataclass(frozen=True, slots=True)
class Host:
    """The facts about the daemon's host that the spec needs."""

    cpus: int
    cgroup_parent: str
    runtime: str = RUNC
    """Docker's name for the runtime of the isolation `container`."""
    masks: Masks = RUNTIMES_OWN
    """The masks that this runtime needs."""

    def runtime_of(self, isolation: Isolation) -> str:
        """Return Docker's name, which is always given: its default may change."""
        return RUNSC if isolation is Isolation.GVISOR else self.runtime


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of one sandbox: its image, its socket directory, user, labels and wall."""

    image_id: str
    socket_dir: Path
    uid: int
    labels: Mapping[str, str]
    isolation: Isolation = Isolation.CONTAINER
    account: UnixAccount = AGENT
    builds: bool = False
    """Whether a template is built in it, by root."""


def container_config(
    placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
) -> dict[str, Any]:
    """Return the configuration of one sandbox's container."""
    config = _config(placement, resources, profile, host)
    return _by_root(config, placement, resources, profile) if placement.builds else config


def _by_root(
    config: dict[str, Any], placement: Placement, resources: Resources, profile: SeccompProfile
) -> dict[str, Any]:
    """Return the configuration with a root who may build a template.

    Raises IsolationMissing where that root would be the host's.
    """
    if placement.isolation is not Isolation.GVISOR:
        raise IsolationMissing("a template is built by root, which only gVisor keeps off the host")
    host = config["HostConfig"]
    return {
        **config,
        "User": "0:0",
        "HostConfig": {
            **host,
            "CapAdd": list(ROOTS_CAPABILITIES),
            "SecurityOpt": ["no-new-privileges", f"seccomp={profile.for_building()}"],
            "Tmpfs": {
                **host["Tmpfs"],
                BUILDING: _tmpfs("exec,mode=0700", resources.disk_mb * MB),
            },
        },
    }


def _config(
    placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
) -> dict[str, Any]:
    return {
        "Image": placement.image_id,
        # As a program's own interpreter is started, which this one becomes when it is forked.
        "Entrypoint": ["/usr/bin/python3", f"{SUPERVISOR}/__main__.py"],
        "Cmd": [],
        "User": f"{placement.uid}:{placement.uid}",
        "WorkingDir": placement.account.home,
        "Env": [*_home_environment(placement.account.home), *_BASE_ENVIRONMENT],
        "Hostname": "sandbox",
        "Domainname": "",
        "Labels": dict(placement.labels),
        "Tty": False,
        # crun makes the sandbox's user the owner of the standard input, and gVisor makes it nobody.
        # If that were /dev/null, a program could change its rights for all that use the sandbox
        # later, and gVisor's processes those of the host's own. So it is a pipe; runc passes over
        # /dev/null.
        "OpenStdin": host.runtime_of(placement.isolation) != RUNC,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "NetworkDisabled": True,
        "HostConfig": _host_config(placement, resources, profile, host),
    }


def _home_environment(home: str) -> tuple[str, ...]:
    return (
        f"PATH={search_path(home)}",
        f"HOME={home}",
        f"NPM_CONFIG_PREFIX={home}/{PACKAGES}",
    )


def _host_config(
    placement: Placement, resources: Resources, profile: SeccompProfile, host: Host
) -> dict[str, Any]:
    gvisor = placement.isolation is Isolation.GVISOR
    memory = resources.memory_mb * MB
    disk = resources.disk_mb * MB
    masks = RUNTIMES_OWN if gvisor else host.masks
    return {
        "Runtime": host.runtime_of(placement.isolation),
        # Privileges.
        "Privileged": False,
        "CapDrop": ["ALL"],
        "CapAdd": [],
        "GroupAdd": [],
        "SecurityOpt": [
            "no-new-privileges",
            f"seccomp={profile.for_gvisor() if gvisor else profile.json}",
        ],
        "Devices": [],
        "MaskedPaths": list(masks.by_runtime),
        "ReadonlyPaths": list(_READ_ONLY),
        # Namespaces: each sandbox its own, and a network with nothing but lo.
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        # Files: nothing is writable but these; each is limited in bytes and in number of files.
        "ReadonlyRootfs": True,
        "Tmpfs": {
            placement.account.home: _tmpfs(
                f"exec,mode=0700,uid={placement.uid},gid={placement.uid}", disk
            ),
            "/tmp": _tmpfs("exec,mode=1777", disk),  # noqa: S108 - the sandbox's own
            "/dev/shm": _tmpfs("noexec,mode=1777", min(disk, 64 * MB)),  # noqa: S108 - as above
            # Docker mounts a message queue file system here that anybody may fill.
            "/dev/mqueue": "ro,noexec,nosuid,nodev,size=4k,nr_inodes=1,mode=0555",
            **masks.tmpfs(),
        },
        # gVisor has pseudo-terminals of its own, which are none of the host's.
        "Mounts": [
            _sockets(placement.socket_dir),
            *([] if gvisor else [_PTS]),
            *masks.mounts(placement.socket_dir),
        ],
        # Amounts. Memory counts tmpfs pages; no swap beyond it. cgroup version 1 counts the buffers
        # of the internet's sockets apart, UDP's included; runc leaves that limit to us to set.
        "Memory": memory,
        "MemorySwap": memory,
        "KernelMemoryTCP": memory // SOCKETS_SHARE,
        "NanoCpus": int(min(resources.cpu, host.cpus) * 10**9),
        "PidsLimit": _host_pids(resources.pids, placement.isolation),
        "OomKillDisable": False,
        "Ulimits": [
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": disk, "Hard": disk},
            {"Name": "memlock", "Soft": 64 * 1024, "Hard": 64 * 1024},
            {"Name": "msgqueue", "Soft": 0, "Hard": 0},
            {"Name": "nofile", "Soft": 1024, "Hard": 4096},
        ],
        # Accounting, and nothing written by the daemon on the program's behalf.
        "CgroupParent": host.cgroup_parent,
        "LogConfig": {"Type": "none", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "Init": False,
    }


def _sockets(folder: Path) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(folder),
        "Target": SOCKET_DIR,
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _host_pids(pids: int, isolation: Isolation) -> int:
    """Return how many tasks of the host the sandbox may be."""
    # One more than asked for: the supervisor is not the program's.
    if isolation is Isolation.CONTAINER:
        return pids + 1
    # gVisor's own threads, and for each thread inside a few of the host's.
    return 192 + 3 * (pids + 1)


def _tmpfs(options: str, size: int) -> str:
    # An inode costs the kernel about 1 KiB that no byte limit counts.
    inodes = max(1024, size // 16384)
    return f"rw,nosuid,nodev,{options},size={size},nr_inodes={inodes}"
