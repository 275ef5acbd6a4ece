"""Answers of gVisor's kernel that differ from the host's, and why that is acceptable.

A probe counts as breached as soon as some kernel lets it through. Behind gVisor, that kernel
belongs to the sandbox, so the program gains power only over itself. Each difference is listed, so
that a new one is noticed. The list is for release 20221219, which Debian 12 has.
"""

from collections.abc import Mapping

_READABLE = (
    "this release ignores PR_SET_DUMPABLE; the supervisor holds only its connection, "
    "and the worker distrusts everything that comes over it"
)
_SILENT = "gVisor's /proc does not show it; the container's configuration is the same"
_MOUNTS = "gVisor does not show the flag; programs cannot gain privileges by a file (no_new_privs)"
_DEVICES = "gVisor's own device, within its own kernel"

DIFFERENCES: Mapping[str, str] = {
    "privileges.capabilities.ambient": _SILENT,
    "privileges.no-new-privileges": _SILENT,
    "privileges.nice": "gVisor's own scheduler; the host's CPU limit binds all of it",
    "privileges.oom-score": "gVisor's own number; the host sees one process",
    "privileges.supervisor.environ": _READABLE,
    "privileges.supervisor.maps": _READABLE,
    "privileges.supervisor.fd": _READABLE,
    "privileges.supervisor.auxv": _READABLE,
    "namespaces.mnt": _SILENT,
    "namespaces.ipc": _SILENT,
    "namespaces.uts": _SILENT,
    "namespaces.cgroup": _SILENT,
    "namespaces.ipc-objects": _SILENT,
    "syscalls.ia32": "gVisor's own table of 32-bit calls, not the host's",
    "files.nosuid.workspace": _MOUNTS,
    "files.nosuid.tmp": _MOUNTS,
    "files.nosuid.shm": _MOUNTS,
    "files.nodev.workspace": _MOUNTS,
    "files.nodev.tmp": _MOUNTS,
    "files.nodev.shm": _MOUNTS,
    "files.device.fuse": _DEVICES,
    "files.devices": _DEVICES,
    "files.mknod": _DEVICES,
    "proc.masked.proc-cmdline": "gVisor's own invention, the same on every host",
    "resources.shared.terminals": "gVisor's own terminals, which are none of the host's",
    "resources.threads": (
        "threads belong to gVisor; the host's limit is 192 + 3 for each requested one"
    ),
    "resources.cpu": "the program's own accounting is gVisor's; the host's quota binds all of it",
}
