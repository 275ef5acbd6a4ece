"""Paths in the sandbox, walked part by part, so that no link leads to anything not the client's.

Through /proc and the links in it, PID 1 could read and write itself. So a path that reaches such a
file system, by whatever links, is refused.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import cache

from files import WORKSPACE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterable

NOT_FILES = frozenset({"proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"})
MOUNTS = "/proc/self/mountinfo"
MAX_LINKS = 40
"""The kernel's own limit (path_resolution(7))."""
BENEATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
SAFELY = os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A name in an open folder. Must be closed."""

    def __init__(self, folder: int, name: str, path: str) -> None:
        self.folder = folder
        self.name = name
        self.path = path
        """The path as it was asked for, from the root on."""

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self.folder)

    def status(self) -> os.stat_result:
        """Return the status of what is there; of a link itself, not its target."""
        return os.lstat(self.name, dir_fd=self.folder)


class Places:
    """Finds places, and knows which file systems hold no files of the client's."""

    def __init__(self) -> None:
        self._refused = refused()

    def find(self, path: str, *, follow: bool, make: bool = False) -> Place:
        """Return where a path leads; with `follow`, also through a link at its end.

        With `make`, folders on the way are made. Raises OSError.
        """
        path = os.path.join(WORKSPACE, path)
        if "\0" in path:
            raise OSError(errno.EINVAL, path)
        parts = path.split("/")[::-1]
        folder = os.open("/", BENEATH | os.O_DIRECTORY)
        links = 0
        try:
            while True:
                name = _next(parts)
                if not parts and not follow:
                    return Place(folder, name, os.path.normpath(path))
                target = self._link(folder, name)
                if target is not None:
                    links += 1
                    self._count(links, path)
                    if target.startswith("/"):
                        folder = _instead(folder, os.open("/", BENEATH | os.O_DIRECTORY))
                    parts += target.split("/")[::-1]
                elif not parts:
                    return Place(folder, name, os.path.normpath(path))
                else:
                    folder = _instead(folder, self._enter(folder, name, make=make))
        except BaseException:
            os.close(folder)
            raise

    def open(self, place: Place, flags: int, mode: int = 0) -> tuple[int, os.stat_result]:
        """Open a regular file or a folder, never through a link; return its status, too."""
        file = os.open(place.name, flags | SAFELY, mode, dir_fd=place.folder)
        try:
            status = os.fstat(file)
            self.check(status)
            _only_file_or_folder(status)
        except BaseException:
            os.close(file)
            raise
        return file, status

    def check(self, status: os.stat_result) -> None:
        """Refuse what is on a file system without files of the client's."""
        if status.st_dev in self._refused:
            raise OSError(errno.EACCES, "not a file system for files")

    @staticmethod
    def _count(links: int, path: str) -> None:
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, path)

    def _link(self, folder: int, name: str) -> str | None:
        """Return where the link of that name leads; None if no link has that name."""
        try:
            if stat.S_ISLNK(os.lstat(name, dir_fd=folder).st_mode):
                return os.readlink(name, dir_fd=folder)
        except FileNotFoundError:
            pass
        return None

    def _enter(self, folder: int, name: str, *, make: bool) -> int:
        try:
            entered = os.open(name, BENEATH | os.O_DIRECTORY, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(name, 0o755, dir_fd=folder)
            entered = os.open(name, BENEATH | os.O_DIRECTORY, dir_fd=folder)
        try:
            self.check(os.fstat(entered))
        except OSError:
            os.close(entered)
            raise
        return entered


def _only_file_or_folder(status: os.stat_result) -> None:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "neither a regular file nor a folder")


def _next(parts: list[str]) -> str:
    """Take the next part of a path; `.` if nothing is left."""
    while parts:
        part = parts.pop()
        # Skip empty parts and `.` from extra separators.
        while parts and parts[-1] in {"", "."}:
            parts.pop()
        if part not in {"", "."}:
            return part
    return "."


def _instead(before: int, folder: int) -> int:
    os.close(before)
    return folder


@cache
def refused() -> frozenset[int]:
    """Return the device numbers of file systems that hold no files. Nobody can mount another."""
    return frozenset(_devices())


def _devices() -> Iterable[int]:
    """Yield the device number of each file system that holds no files (proc_pid_mountinfo(5))."""
    with open(MOUNTS) as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] in NOT_FILES:
                point = before.split(" ")[4].encode().decode("unicode_escape")
                try:
                    yield os.stat(point).st_dev
                except OSError:
                    continue
