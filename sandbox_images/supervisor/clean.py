"""Between two runs of one tenant: every writable place emptied, and a check that nothing is left.

Done when no other process is left, in a child of PID 1, which must not read what a run has left;
where that is nothing, by PID 1 itself. What is found is named by kind alone, and ends the sandbox.
The worker looks from outside as well.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from collections.abc import Iterator

from files import WORKSPACE, MainFile

PLACES = {WORKSPACE: 0o700, "/tmp": 0o1777, "/dev/shm": 0o1777}  # noqa: S108 - the sandbox's own
"""Every place that a program can write to, with its mode."""
SOCKETS = ("/proc/net/sockstat", "/proc/net/sockstat6")
"""Of this network alone, but for what `ELSEWHERE` says. Closed connections count, too (`tw`)."""
TABLES = ("tcp", "tcp6", "udp", "udp6", "unix")
"""Tables of a kernel that lacks those: each has a line for each socket."""
ELSEWHERE = ("orphan", "alloc", "mem", "memory")
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
IPC = ("shm", "sem", "msg")
HEADING = 1
ENTRY = 20
"""By how much a folder of a tmpfs grows with each name in it (mm/shmem.c, BOGO_DIRENT_SIZE)."""


class Baseline:
    """The state of PID 1 before any program has run, which each inherits."""

    def __init__(self) -> None:
        self.before = list(inherited())
        self.empty = {place: os.stat(place).st_size for place in PLACES}

    def changed(self) -> bool:
        """Return whether any of it is different now."""
        return self.before != list(inherited())

    def holds_only(self, file: MainFile) -> bool:
        """Return whether the writable places are as they were, but for an untouched main file.

        Their sizes tell, so that no name has to be read. Where a size tells nothing, the answer
        is no.
        """
        expected = {**self.empty, WORKSPACE: self.empty[WORKSPACE] + ENTRY}
        for place, mode in PLACES.items():
            status = os.stat(place)
            if (status.st_size, stat.S_IMODE(status.st_mode)) != (expected[place], mode):
                return False
        return file.untouched()


def inherited() -> Iterator[object]:
    """Yield what a program could change of PID 1's and so hand on: it is of the same user."""
    yield sorted(os.sched_getaffinity(0))
    yield os.getpriority(os.PRIO_PROCESS, 0)
    for limit in LIMITS:
        yield resource.getrlimit(limit)
    yield content("/proc/self/mountinfo")
    yield from sockets()


def attributes(place: str) -> list[str]:
    """Return the names of what a folder's owner may give it, of which new files inherit some.

    Extended attributes and access lists (xattr(7), acl(5)), which a tmpfs has with
    CONFIG_TMPFS_XATTR. Those of `security` are the host's.
    """
    try:
        names = os.listxattr(place)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [name for name in names if not name.startswith("security.")]


def sockets() -> Iterator[object]:
    """Yield how many sockets there are, of each kind, open or closed a moment ago."""
    for path in SOCKETS:
        with contextlib.suppress(FileNotFoundError):
            for line in content(path).decode().splitlines():
                words = line.split()
                yield {
                    (words[0], name): number
                    for name, number in zip(words[1::2], words[2::2], strict=True)
                    if name not in ELSEWHERE
                }
    if not os.path.exists(SOCKETS[0]):
        for table in TABLES:
            yield lines(f"/proc/net/{table}")


def clean(baseline: Baseline) -> str:
    """Empty every writable place; return the kinds of what is left all the same, one a line."""
    left = []
    for place, mode in PLACES.items():
        try:
            empty(place, mode)
        except OSError:
            left.append(f"files in {place}")
    return "\n".join(left + leftovers(baseline, processes=2))


def empty(place: str, mode: int) -> None:
    """Remove everything in a folder, at any depth, and give it its mode back.

    A folder that is not empty hands its entries up and goes: no recursion, no path of any length.
    """
    if os.stat(place).st_uid == os.geteuid():
        os.chmod(place, 0o700)
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while names := os.listdir(top):
            for name in names:
                if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                # A folder that is moved must be writable: its `..` changes.
                os.chmod(name, 0o700, dir_fd=top)
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=top)
                try:
                    for inner in os.listdir(folder):
                        if stat.S_ISDIR(os.lstat(inner, dir_fd=folder).st_mode):
                            os.chmod(inner, 0o700, dir_fd=folder)
                            os.rename(inner, _unused(), src_dir_fd=folder, dst_dir_fd=top)
                        else:
                            os.unlink(inner, dir_fd=folder)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
        if os.fstat(top).st_uid == os.geteuid():
            os.fchmod(top, mode)
    finally:
        os.close(top)


def _unused() -> str:
    return f".{os.urandom(8).hex()}"


def clean_of(file: MainFile, baseline: Baseline) -> list[str]:
    """Remove the only thing there is; return the kinds of what is left all the same."""
    os.unlink(file.path)
    return leftovers(baseline, processes=1)


def leftovers(baseline: Baseline, processes: int) -> list[str]:
    """Return the kinds of what is left of a program, as far as can be seen from inside.

    `processes` is how many there are of ours.
    """
    left = []
    for place, mode in PLACES.items():
        if os.listdir(place) or stat.S_IMODE(os.stat(place).st_mode) != mode:
            left.append(f"files in {place}")
        if attributes(place):
            left.append(f"attributes of {place}")
    if sum(name.isdigit() for name in os.listdir("/proc")) != processes:
        left.append("processes")
    if any(lines(f"/proc/sysvipc/{kind}") > HEADING for kind in IPC):
        left.append("System V IPC")
    if os.path.isdir("/dev/mqueue") and os.listdir("/dev/mqueue"):
        left.append("message queues")
    if baseline.changed():
        left.append("sockets, or settings of processes")
    return left


def lines(path: str) -> int:
    """Return how many lines a file has; a kernel without it has nothing of its kind."""
    with contextlib.suppress(FileNotFoundError):
        return content(path).count(b"\n")
    return 0


def content(path: str) -> bytes:
    """Return what the kernel tells in a file, by system calls alone: this is done for every run."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(file, 65536), b""))
    finally:
        os.close(file)
