"""Which of the files that a program left are its work, and which are kept first if not all can be.

A run may name its artifacts by patterns. If it does not, everything counts but what tools keep for
themselves: installed packages, repositories, caches. Only a pattern that spells out the name of
such a folder reaches into it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterable
    from typing import TypeAlias

    Places: TypeAlias = frozenset[tuple[int, int]]
    """How far a path has come: pairs of a pattern's number and how many of its parts are used."""

TOOL_FOLDERS = frozenset(
    {
        ".cache",
        ".git",
        ".hg",
        ".ipynb_checkpoints",
        ".local",
        ".mypy_cache",
        ".npm",
        ".nox",
        ".pytest_cache",
        ".ruff_cache",
        ".svn",
        ".tox",
        "__pycache__",
        "node_modules",
    }
)
VENV_MARK = "pyvenv.cfg"
TOOL_FILES = frozenset({"package.json", "package-lock.json"})
"""What `npm install` writes beside the program's own files: kept, but after them."""
ANY_FOLDERS = "**"


def made_by_tools(name: str, within: Iterable[str]) -> bool:
    """Return whether a folder of this name, with these names in it, is a tool's own."""
    return name in TOOL_FOLDERS or VENV_MARK in within


class Patterns:
    """The patterns that name a run's artifacts: `*` and `?` within a name, `**` for any folders.

    A path is followed part by part, so that a folder in which nothing can match is not entered.
    """

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns
        self._parts = [pattern.split("/") for pattern in patterns]
        self.start = self._opened((number, 0) for number in range(len(patterns)))
        self.met: set[int] = set()
        """The patterns that a file was found for."""

    def step(self, places: Places, name: str, *, literally: bool = False) -> Places:
        """Return how far the patterns come with one more part of the path.

        `literally` leaves out what would match by a wildcard.
        """
        return self._opened(
            (number, used if part == ANY_FOLDERS else used + 1)
            for number, used in places
            if used < len(self._parts[number])
            for part in [self._parts[number][used]]
            if part == name or (not literally and (part == ANY_FOLDERS or like(name, part)))
        )

    def first(self, places: Places) -> int | None:
        """Return which pattern names the file that was reached, or None."""
        ended = {number for number, used in places if used == len(self._parts[number])}
        self.met |= ended
        return min(ended, default=None)

    def unmet(self) -> list[str]:
        """Return the patterns that no file was found for."""
        return [each for number, each in enumerate(self.patterns) if number not in self.met]

    def _opened(self, places: Iterable[tuple[int, int]]) -> Places:
        """Add what is reached without a further part: `**` also stands for no folder at all."""
        opened = set()
        for number, used in places:
            parts = self._parts[number]
            last = used
            while last < len(parts) and parts[last] == ANY_FOLDERS:
                last += 1
            opened.update((number, each) for each in range(used, last + 1))
        return frozenset(opened)


def like(name: str, pattern: str) -> bool:
    """Return whether a name matches a pattern in which `*` and `?` are wildcards.

    Only the last `*` has to be tried again, so that this takes at most as many steps as the two
    lengths multiplied.
    """
    at = place = 0
    star, resume = -1, 0
    while at < len(name):
        if place < len(pattern) and pattern[place] == "*":
            star, resume = place, at
            place += 1
        elif place < len(pattern) and pattern[place] in ("?", name[at]):
            at, place = at + 1, place + 1
        elif star >= 0:
            resume += 1
            at, place = resume, star + 1
        else:
            return False
    return not pattern[place:].strip("*")


def rank(path: str, status: os.stat_result, pattern: int) -> tuple[int, bool, bool, int, int, str]:
    """Return what files are sorted by, the first to keep first.

    In the order of the patterns; the program's own before a tool's; at the top level before those
    in folders; the last written first. Files of one tick of the clock are told by their numbers,
    which a tmpfs counts up.
    """
    folder, _, name = path.rpartition("/")
    return (
        pattern,
        name in TOOL_FILES,
        bool(folder),
        -status.st_mtime_ns,
        -status.st_ino,
        path,
    )
