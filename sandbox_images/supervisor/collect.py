"""Files out of the workspace after the program, within bounds.

They are looked through first, and those to keep chosen; then each is handed back. By that time no
other process is left, so nothing changes in between; links are refused all the same, and every step
goes through a directory's descriptor.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import time

from choose import Patterns, made_by_tools, rank
from files import WORKSPACE, Placed
from wire import PIECE, Disconnected, Wire

MAX_DEPTH = 32
MAX_ENTRIES = 10_000
MAX_LOOKING_S = 20.0
"""Well within what the worker waits for all files, so that it gets those that were found."""
MAX_REFUSED = 50
MAX_NAME = 200
MAX_PATH = 1024
FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Bounds:
    """The bounds of a run's artifacts: their number, their bytes, their names (none: any).

    The names themselves follow, for the process that collects: they belong to the run.
    """

    def __init__(self, files: int, size: int, names_bytes: int) -> None:
        self.files = files
        self.size = size
        self.names_bytes = names_bytes


def collect(wire: Wire, memory: int, bounds: Bounds) -> None:
    """Hand back what the program left, which is not what was placed and remembered."""
    names = json.loads(b"".join(wire.pieces(bounds.names_bytes)) or b"[]")
    if not os.access(WORKSPACE, os.R_OK | os.X_OK):
        # The program has closed it, and may open it: its files are still its work.
        os.chmod(WORKSPACE, 0o700)
    Collector(wire, Placed.remembered(memory), bounds, names).collect()


class Collector:
    """Hands back regular files below the workspace, within bounds, and names what it refuses."""

    def __init__(self, wire: Wire, placed: Placed, bounds: Bounds, names: list[str]) -> None:
        self.wire = wire
        self.placed = placed
        self.patterns = Patterns(names) if names else None
        self.max_files = bounds.files
        self.bytes_left = bounds.size
        self.entries_left = MAX_ENTRIES
        self.look_until = time.monotonic() + MAX_LOOKING_S
        self.chosen: list[tuple[tuple[int, bool, bool, int, int, str], str]] = []
        self.refused: list[tuple[str, str]] = []
        self.refused_total = 0

    def collect(self) -> None:
        """Walk the workspace and report every file in it, or why not."""
        start = self.patterns.start if self.patterns else 0
        self._walk(os.open(WORKSPACE, FOLDER), "", 0, start, in_tools=False)
        unmet = "out_of_time" if self._out_of_time() else "not_found"
        self._drop_surplus()
        for _, path in self.chosen:
            if why := self._hand_back(path):
                self._refuse(path, why)
        for pattern in self.patterns.unmet() if self.patterns else ():
            self._refuse(pattern, unmet)
        self.wire.say("collected", refused=self.refused, refused_total=self.refused_total)

    def _refuse(self, path: str, why: str) -> None:
        self.refused_total += 1
        if len(self.refused) < MAX_REFUSED:
            self.refused.append((told(path)[:MAX_NAME], why))

    def _out_of_time(self) -> bool:
        return time.monotonic() > self.look_until

    def _walk(self, folder: int, path: str, depth: int, above: int, *, in_tools: bool) -> None:
        """Look at everything in a folder. `above` is how far the patterns came in the one above."""
        try:
            with os.scandir(folder) as entries:
                names = [e.name for e in itertools.islice(entries, self.entries_left + 1)]
            places = above
            if path:
                name = path.rpartition("/")[2]
                tools = not in_tools and made_by_tools(name, names)
                if self.patterns:
                    places = self.patterns.step(above, name, literally=tools)
                    if not places:
                        return
                elif tools:
                    if not self.placed.held(path):
                        self._refuse(path + "/", "made_by_tools")
                    return
                in_tools = in_tools or tools
            prefix = path and path + "/"
            if len(names) > self.entries_left:
                self._refuse(prefix + names.pop(), "too_many_entries")
            self.entries_left -= len(names)
            for name in sorted(names):
                inner = prefix + name
                why = name_fault(inner)
                why = why or self._visit(folder, inner, depth, places, in_tools=in_tools)
                if why:
                    self._refuse(inner, why)
        finally:
            os.close(folder)

    def _visit(
        self, folder: int, path: str, depth: int, places: int, *, in_tools: bool
    ) -> str | None:
        """Look at one entry; return why it is refused, or None."""
        if self._out_of_time():
            return "out_of_time"
        name = path.rpartition("/")[2]
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if depth == MAX_DEPTH:
                    return "too_deep"
                inner = os.open(name, FOLDER, dir_fd=folder)
                self._walk(inner, path, depth + 1, places, in_tools=in_tools)
                return None
        except OSError:
            return "unreadable"
        pattern: int | None = 0
        if self.patterns:
            pattern = self.patterns.first(self.patterns.step(places, name))
        return None if pattern is None else self._consider(path, status, pattern)

    def _consider(self, path: str, status: os.stat_result, pattern: int) -> str | None:
        """Note a file to hand back; return why it is refused, or None."""
        if self.placed.unchanged(path, status):
            return None
        if not stat.S_ISREG(status.st_mode):
            return "not_a_regular_file"
        if status.st_nlink != 1:
            return "hard_link"
        if status.st_size > self.bytes_left:
            return "too_large"
        self.chosen.append((rank(path, status, pattern), path))
        if len(self.chosen) > 2 * (self.max_files + MAX_REFUSED):
            self._drop_surplus()
        return None

    def _drop_surplus(self) -> None:
        """Keep as many of the files as may be handed back, the first by their rank."""
        self.chosen.sort()
        for _, path in self.chosen[self.max_files :]:
            self._refuse(path, "too_many_files")
        del self.chosen[self.max_files :]

    def _hand_back(self, path: str) -> str | None:
        """Send a file; return why it is refused, or None."""
        try:
            file = _open(path)
        except OSError:
            return "unreadable"
        with os.fdopen(file, "rb", buffering=0) as source:
            left = os.fstat(file).st_size
            if left > self.bytes_left:
                return "too_large"
            self.bytes_left -= left
            self.wire.say("artifact", path=told(path), size=left)
            while left:
                piece = source.read(min(PIECE, left))
                if not piece:
                    raise Disconnected
                left -= len(piece)
                self.wire.send(b"D", piece)
        return None


def _open(path: str) -> int:
    """Return a descriptor of a file below the workspace."""
    *folders, name = path.split("/")
    folder = os.open(WORKSPACE, FOLDER)
    try:
        for part in folders:
            outer, folder = folder, os.open(part, FOLDER, dir_fd=folder)
            os.close(outer)
        return os.open(name, FILE, dir_fd=folder)
    finally:
        os.close(folder)


def name_fault(path: str) -> str | None:
    """Return why nothing can be kept under this path, or None."""
    if len(told(path).encode()) > MAX_PATH:
        return "name_too_long"
    return "control_characters_in_name" if any(map(_controls, path)) else None


def _controls(character: str) -> bool:
    """Return whether it is a control character (Unicode's category Cc)."""
    return character < " " or "\x7f" <= character <= "\x9f"


def told(path: str) -> str:
    r"""Return a path as it is told: byte for byte, and bytes that are not UTF-8 as `\xff`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
