"""Where gVisor's kernel answers otherwise than the host's would, and why that is acceptable.

A probe counts as breached as soon as some kernel lets it through. Behind gVisor that kernel is
the sandbox's own: what a program gains there it gains over itself. Each difference is named, so
that a new one is found. As of release 20221219, Debian 12's.
"""

from collections.abc import Mapping

_READABLE = (
    "this release does not heed PR_SET_DUMPABLE; the supervisor holds nothing but its connection, "
    "and the worker believes nothing that comes over it"
)
_SILENT = "gVisor's /proc does not tell; the container's configuration is the same"
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
    "resources.threads": "threads are gVisor's; the host's limit is 192 + 3 for each asked for",
    "resources.cpu": "the program's own accounting is gVisor's; the host's quota binds all of it",
}
