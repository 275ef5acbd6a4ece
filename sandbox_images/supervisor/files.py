"""Files into the workspace before the program. Every step goes through a directory's descriptor."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterable

WORKSPACE = os.path.realpath("/workspace")
"""An image that has it elsewhere has a link there, on its read-only root."""
MAIN_FILES = ("main.py", "main.sh", "main.js")
"""Names of a program that is given as text."""


class Placed:
    """The input files, so that what the program left unchanged is not taken for its work.

    Kept in a file in memory: one process places them, another collects.
    """

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._known: dict[str, list[int]] = {}
        self._begun: set[str] = set()
        """What the template has put there. An input file of the same name takes its place."""
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

    def begin_with(self, path: str, status: os.stat_result) -> None:
        """Note what the template has put below the workspace."""
        self._begun.add(path)
        self._known[path] = mark(status)

    def place(self, path: str, pieces: Iterable[bytes]) -> None:
        """Write a new file below the workspace; never through a link, never over an input file."""
        *folders, name = path.split("/")
        folder = os.open(WORKSPACE, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in folders:
                outer, folder = folder, self._enter(folder, part)
                os.close(outer)
            if path in self._begun:
                self._begun.remove(path)
                os.unlink(name, dir_fd=folder)
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
        """Return whether this was there before the program, and nobody wrote to it since."""
        return self._known.get(path) == mark(status)

    def held(self, path: str) -> bool:
        """Return whether something of this name was there before the program."""
        return path in self._known

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
