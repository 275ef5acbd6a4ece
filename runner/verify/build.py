"""Rights of a template's build that no other program has, and why that is acceptable.

A build's root is gVisor's: the kernel that permits it something is the sandbox's own, and what it
changes is a root in the sandbox's memory. On the host it is nobody, which
`tests/security/test_builds.py` shows. Each difference is listed, so that a new one is noticed.
"""

from collections.abc import Mapping

from runner.verify.gvisor import DIFFERENCES

_ROOT = "root of a build may do that in gVisor's kernel; on the host it is nobody"
_OVER = "goes to a root in the sandbox's memory; the image below it stays as it is"
_DEV = "gVisor's own /dev, in the sandbox's memory, which is bounded"
_SUPERVISOR = (
    "root reads the supervisor of its own sandbox, which holds only its connection; the worker "
    "distrusts everything that comes over it"
)
_NO_TERMINAL = "the probe needs a terminal, which a step has not"

BUILD_DIFFERENCES: Mapping[str, str] = {
    **DIFFERENCES,
    "privileges.capabilities.effective": _ROOT,
    "privileges.capabilities.permitted": _ROOT,
    "privileges.capabilities.bounding": _ROOT,
    "privileges.chown": _ROOT,
    "privileges.setuid": _ROOT,
    "privileges.setgid": _ROOT,
    "privileges.setgroups": _ROOT,
    "privileges.foreign-files": _ROOT,
    "privileges.user": _ROOT,
    "privileges.supervisor.io": _SUPERVISOR,
    "namespaces.processes": "a step sees the supervisor and the step before it, as root",
    "syscalls.chroot": _ROOT,
    "syscalls.ioctl.tiocsti": _NO_TERMINAL,
    "syscalls.ioctl.tiocsti-high": _NO_TERMINAL,
    "syscalls.ioctl.tioclinux": _NO_TERMINAL,
    "files.write.etc": _OVER,
    "files.write.usr-bin": _OVER,
    "files.write.usr-lib": _OVER,
    "files.write.opt-supervisor": "as below /usr; and no template changes the supervisor's folder",
    "files.write.var-tmp": _OVER,
    "files.write.root": _OVER,
    "files.write.run": _OVER,
    "files.socket-directory": "a folder of that name in the build's own root, not the node's",
    "files.noexec.shm": _DEV,
    "files.mqueue": _DEV,
    "resources.bytes.shm": _DEV,
    "proc.read-only.sys-vm-overcommit_memory": "gVisor's own number, for its own kernel",
}
