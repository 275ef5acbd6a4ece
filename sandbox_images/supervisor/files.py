"""Files into the workspace before the program, and out of it after.

By the time files are handed back no other process is left, so nothing changes under the walk;
links are refused all the same, and every step goes through a directory's descriptor.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable
from io import FileIO

from wire import PIECE, Disconnected, Wire

WORKSPACE = "/workspace"
MAIN_FILES = ("main.py", "main.sh")
"""What a program that is given as text is named."""
MAX_DEPTH = 32
MAX_ENTRIES = 10_000
MAX_REFUSED = 50
MAX_NAME = 200
MAX_PATH = 1024


class Placed:
    """The input files, so that what the program left unchanged is not taken for its work.

    Kept in a file in memory: one process places them, another collects.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._known: dict[str, list[int]] = {}
        # A write by the program, however soon, gives a later time than this.
        self._stamp = time.time_ns() - 10**9

    @classmethod
    def remembered(cls, memory: int) -> Placed:
        """Return what another process placed and remembered there."""
        placed = cls(memory)
        size = os.fstat(memory).st_size
        placed._known = json.loads(os.pread(memory, size, 0) or b"{}")
        return placed

    def remember(self) -> None:
        """Leave word of all that was placed."""
        os.pwrite(self._memory, json.dumps(self._known).encode(), 0)

    def place(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a new file below the workspace; never through a link, never over a file."""
        *folders, name = path.split("/")
        folder = os.open(WORKSPACE, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in folders:
                outer, folder = folder, self._enter(folder, part)
                os.close(outer)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, 0o644, dir_fd=folder)
        finally:
            os.close(folder)
        with os.fdopen(file, "wb", buffering=0) as out:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[out.write(view) :]
            os.utime(file, ns=(self._stamp, self._stamp))
            self._known[path] = mark(os.fstat(file))

    @staticmethod
    def _enter(folder: int, name: str) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)
        return os.open(name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)

    def unchanged(self, path: str, status: os.stat_result) -> bool:
        """Return whether this is an input file that nobody wrote to since."""
        return self._known.get(path) == mark(status)

    def main_file(self) -> tuple[str, list[int]] | None:
        """Return name and mark of a program that was given as text, if nothing else was placed."""
        match list(self._known.items()):
            case [(name, known)] if name in MAIN_FILES:
                return name, known
        return None


class MainFile:
    """A program that was given as text, where that is the only file its run was given."""

    def __init__(self, name: str, known: list[int]) -> None:
        self.path = f"{WORKSPACE}/{name}"
        self._known = known

    def untouched(self) -> bool:
        """Return whether it is still there, and nobody wrote to it."""
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            return False
        return stat.S_ISREG(status.st_mode) and mark(status) == self._known


def mark(status: os.stat_result) -> list[int]:
    """Return what tells a file from another, and from itself after it was written to."""
    return [status.st_ino, status.st_size, status.st_mtime_ns]


def collect(wire: Wire, memory: int, max_files: int, max_bytes: int) -> None:
    """Hand back what the program left, which is not what was placed and remembered."""
    if not os.access(WORKSPACE, os.R_OK | os.X_OK):
        # The program has closed it, and may open it: its files are still its work.
        os.chmod(WORKSPACE, 0o700)
    Collector(wire, Placed.remembered(memory), max_files, max_bytes).collect()


class Collector:
    """Hands back regular files below the workspace, within bounds, and names what it refuses."""

    def __init__(self, wire: Wire, placed: Placed, max_files: int, max_bytes: int) -> None:
        self.wire = wire
        self.placed = placed
        self.files_left = max_files
        self.bytes_left = max_bytes
        self.entries_left = MAX_ENTRIES
        self.refused: list[tuple[str, str]] = []
        self.refused_total = 0

    def collect(self) -> None:
        """Walk the workspace and report every file in it, or why not."""
        self._walk(os.open(WORKSPACE, os.O_DIRECTORY | os.O_CLOEXEC), "", 0)
        self.wire.say("collected", refused=self.refused, refused_total=self.refused_total)

    def _refuse(self, path: str, why: str) -> None:
        self.refused_total += 1
        if len(self.refused) < MAX_REFUSED:
            name = path.encode("utf-8", "backslashreplace").decode()[:MAX_NAME]
            self.refused.append((name, why))

    def _walk(self, folder: int, prefix: str, depth: int) -> None:
        try:
            with os.scandir(folder) as entries:
                names = [e.name for e in itertools.islice(entries, self.entries_left + 1)]
            if len(names) > self.entries_left:
                self._refuse(prefix + names.pop(), "too_many_entries")
            self.entries_left -= len(names)
            for name in sorted(names):
                path = prefix + name
                if not printable(path):
                    self._refuse(path, "name")
                elif why := self._visit(folder, name, path, depth):
                    self._refuse(path, why)
        finally:
            os.close(folder)

    def _visit(self, folder: int, name: str, path: str, depth: int) -> str | None:
        """Handle one entry; return why it is refused, or None."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if depth == MAX_DEPTH:
                    return "too_deep"
                flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self._walk(os.open(name, flags, dir_fd=folder), path + "/", depth + 1)
                return None
            if not stat.S_ISREG(status.st_mode):
                return "not_a_regular_file"
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            file = os.open(name, flags, dir_fd=folder)
        except OSError:
            return "unreadable"
        with os.fdopen(file, "rb", buffering=0) as source:
            return self._hand_back(source, path)

    def _hand_back(self, source: FileIO, path: str) -> str | None:
        status = os.fstat(source.fileno())
        if self.placed.unchanged(path, status):
            return None
        if status.st_nlink != 1:
            return "hard_link"
        if status.st_blocks * 512 < status.st_size:
            return "sparse"
        if self.files_left == 0:
            return "too_many_files"
        if status.st_size > self.bytes_left:
            return "too_large"
        self.files_left -= 1
        self.bytes_left -= status.st_size
        self.wire.say("artifact", path=path, size=status.st_size)
        left = status.st_size
        while left:
            piece = source.read(min(PIECE, left))
            if not piece:
                raise Disconnected
            left -= len(piece)
            self.wire.send(b"D", piece)
        return None


def printable(path: str) -> bool:
    """Return whether a path is UTF-8 without control characters."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return len(path.encode()) <= MAX_PATH and path.isprintable()
