"""The choice of files that are a program's work, and of those that are kept if not all can be.

A run may name its artifacts by patterns. If it does not, everything counts but what tools keep for
themselves: installed packages, repositories, caches. Only a pattern that spells out the name of
such a folder reaches into it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterable

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
"""Files that `npm install` writes beside the program's own: kept, but after them."""
ANY_FOLDERS = "**"


def made_by_tools(name: str, within: Iterable[str]) -> bool:
    """Return whether a folder of this name, with these names in it, is a tool's own."""
    return name in TOOL_FOLDERS or VENV_MARK in within


class Patterns:
    """The patterns that name a run's artifacts: `*` and `?` within a name, `**` for any folders.

    A path is followed part by part, so that a folder in which nothing can match is not entered.

    All patterns together are one automaton, and how far a path has come in them is a number in
    which each bit is a place: before a character of a pattern, before a `**`, or at a pattern's
    end. A character of a name moves all places at once, so that the work grows with the length of
    the names and with that of the patterns, whatever these hold.
    """

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns
        self.met: set[int] = set()
        """The patterns that a file was found for."""
        self._size = 0
        self._any_folders = self._stars = self._any_character = self._part_ends = 0
        self._characters: dict[str, int] = {}
        self._parts: dict[str, tuple[int, int]] = {}
        """The places where each part begins, and how far on its name leads: past `**`, nowhere."""
        self._ends: dict[int, int] = {}
        """The pattern that ends at a place."""
        starts = 0
        for number, pattern in enumerate(patterns):
            starts |= 1 << self._size
            self._add(pattern.split("/"))
            self._ends[self._place()] = number
        for character in self._characters:
            self._characters[character] |= self._any_character
        self._all_ends = sum(self._ends)
        self.start = self._without_folders(starts)

    def step(self, places: int, name: str, *, literally: bool = False) -> int:
        """Return how far the patterns come with one more part of the path.

        `literally` leaves out what would match by a wildcard.
        """
        if literally:
            begin, size = self._parts.get(name, (0, 0))
            return self._without_folders((places & begin) << size)
        stars, characters, other = self._stars, self._characters, self._any_character
        here = places
        for character in name:
            here |= (here & stars) << 1  # a star also stands for nothing
            here = (here & stars) | (here & characters.get(character, other)) << 1
            if not here:
                break
        here |= (here & stars) << 1
        return self._without_folders((places & self._any_folders) | (here & self._part_ends) << 1)

    def first(self, places: int) -> int | None:
        """Return which pattern names the file that was reached, or None."""
        ended = places & self._all_ends
        numbers = []
        while ended:
            end = ended & -ended
            numbers.append(self._ends[end])
            ended ^= end
        self.met.update(numbers)
        return numbers[0] if numbers else None

    def unmet(self) -> list[str]:
        """Return the patterns that no file was found for."""
        return [each for number, each in enumerate(self.patterns) if number not in self.met]

    def _add(self, parts: list[str]) -> None:
        """Give places to the parts of a pattern. Neighbouring `**` are one, as stars in a name."""
        before = ""
        for part in parts:
            if part == before == ANY_FOLDERS:
                continue
            begin, size = self._size, 0
            if part == ANY_FOLDERS:
                self._any_folders |= self._place()
            else:
                self._add_name(part)
                size = self._size - begin
            begins, _ = self._parts.get(part, (0, size))
            self._parts[part] = (begins | 1 << begin, size)
            before = part

    def _add_name(self, part: str) -> None:
        """Give places to the characters of a part, and to its end."""
        for at, character in enumerate(part):
            if character == "?":
                self._any_character |= self._place()
            elif character != "*":
                known = self._characters.get(character, 0)
                self._characters[character] = known | self._place()
            elif at == 0 or part[at - 1] != "*":
                self._stars |= self._place()
        self._part_ends |= self._place()

    def _place(self) -> int:
        """Return the next place."""
        self._size += 1
        return 1 << (self._size - 1)

    def _without_folders(self, places: int) -> int:
        """Add what is reached without a further part: `**` also stands for no folder at all."""
        return places | (places & self._any_folders) << 1


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
