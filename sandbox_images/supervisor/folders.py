"""Folders and names of a sandbox that lives: list, make, move and remove them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections import deque

from filing import Filing, entry
from libc import call
from places import SAFELY

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterator
    from typing import Any

    from places import Place

MAX_ENTRIES = 256
MAX_NAME = 16 * 1024
"""The most characters that a reported path may have."""
MAX_EVENT = 64 * 1024
"""An event with entries that is this long gets no further ones."""
AT_ONCE = 64
"""How many files are looked at before others have a turn."""
NO_REPLACE = 1
"""RENAME_NOREPLACE (rename(2))."""


class Stat(Filing):
    """One file, folder or link."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Report it."""
        with contextlib.closing(self.places.find(command["path"], follow=False)) as place:
            self.places.check(place.status())
            self.described(place)
        yield from ()


class MakeFolder(Filing):
    """A new folder."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Make it."""
        parents = command["parents"]
        place = self.places.find(command["path"], follow=parents, make=parents)
        with contextlib.closing(place):
            try:
                os.mkdir(place.name, 0o700, dir_fd=place.folder)
            except FileExistsError:
                if not (parents and stat.S_ISDIR(place.status().st_mode)):
                    raise
            else:
                folder, _ = self.places.open(place, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fchmod(folder, command["mode"])
                finally:
                    os.close(folder)
            self.described(place)
        yield from ()


class Move(Filing):
    """A new name for something."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Rename it."""
        with (
            contextlib.closing(self.places.find(command["source"], follow=False)) as source,
            contextlib.closing(self.places.find(command["target"], follow=False)) as target,
        ):
            self.places.check(source.status())
            rename(source, target, replace=command["replace"])
            self.described(target)
        yield from ()


def rename(source: Place, target: Place, *, replace: bool) -> None:
    """Rename; replace what is there only with `replace`."""
    if replace:
        os.rename(source.name, target.name, src_dir_fd=source.folder, dst_dir_fd=target.folder)
        return
    old, new = os.fsencode(source.name), os.fsencode(target.name)
    call("renameat2", source.folder, old, target.folder, new, NO_REPLACE)


class Remove(Filing):
    """The removal of a file or folder."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Remove it."""
        with contextlib.closing(self.places.find(command["path"], follow=False)) as place:
            status = place.status()
            self.places.check(status)
            if not stat.S_ISDIR(status.st_mode):
                os.unlink(place.name, dir_fd=place.folder)
                return
            if command["recursive"]:
                yield from self._empty(place)
            os.rmdir(place.name, dir_fd=place.folder)

    def _empty(self, place: Place) -> Iterator[bool]:
        """Empty a folder, the deepest first. Follow no link, even one made meanwhile."""
        way: list[tuple[str, tuple[int, int]]] = []
        """The name of each folder that was entered, and the identity of the one above it."""
        folder = self._enter(place.folder, place.name)
        try:
            while True:
                deeper = None
                with os.scandir(folder) as children:
                    for count, child in enumerate(children, 1):
                        if child.is_dir(follow_symlinks=False):
                            deeper = child.name
                            break
                        os.unlink(child.name, dir_fd=folder)
                        if count % AT_ONCE == 0:
                            yield True
                if deeper is not None:
                    inner = self._enter(folder, deeper)
                    way.append((deeper, _which(folder)))
                    folder = _instead(folder, inner)
                elif not way:
                    return
                else:
                    name, above = way.pop()
                    folder = _instead(folder, self._enter(folder, ".."))
                    if _which(folder) != above:
                        raise OSError(errno.EBUSY, "it is moved while it is removed")
                    os.rmdir(name, dir_fd=folder)
                yield True
        finally:
            os.close(folder)

    def _enter(self, folder: int, name: str) -> int:
        """Open a folder in another one, or the one above it, but never through a link."""
        entered = os.open(name, os.O_RDONLY | os.O_DIRECTORY | SAFELY, dir_fd=folder)
        try:
            self.places.check(os.fstat(entered))
        except OSError:
            os.close(entered)
            raise
        return entered


def _instead(before: int, folder: int) -> int:
    os.close(before)
    return folder


def _which(folder: int) -> tuple[int, int]:
    """Return a folder's identity."""
    status = os.fstat(folder)
    return status.st_dev, status.st_ino


class List(Filing):
    """The entries of a folder, and of those below it, the nearest first."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Report it."""
        told = Entries(self)
        left = command["most"]
        below = deque([(command["path"], command["depth"])])
        while below:
            asked, depth = below.popleft()
            try:
                folder, path = self._open(asked, follow=asked is command["path"])
            except OSError:
                if asked is command["path"]:
                    raise
                continue  # it has gone meanwhile, or we may not read it
            try:
                with os.scandir(folder) as children:
                    for count, child in enumerate(children, 1):
                        if left == 0:
                            self.more = True
                            below.clear()
                            break
                        if (each := _described(folder, path, child)) is None:
                            continue
                        left -= 1
                        if depth > 1 and each["kind"] == "folder":
                            below.append((os.path.join(path, child.name), depth - 1))
                        yield from told.add(each)
                        if count % AT_ONCE == 0:
                            yield True
            finally:
                os.close(folder)
            yield True
        yield from told.flush()

    def _open(self, path: str, *, follow: bool) -> tuple[int, str]:
        with contextlib.closing(self.places.find(path, follow=follow)) as place:
            folder, _ = self.places.open(place, os.O_RDONLY | os.O_DIRECTORY)
            return folder, place.path


class Entries:
    """Collects entries, and sends as many as fit into each event."""

    def __init__(self, filing: Filing) -> None:
        self._filing = filing
        self._entries: list[dict[str, object]] = []
        self._length = 0

    def add(self, each: dict[str, object]) -> Iterator[bool]:
        """Add one."""
        self._entries.append(each)
        self._length += len(json.dumps(each))
        if len(self._entries) == MAX_ENTRIES or self._length >= MAX_EVENT:
            yield from self.flush()

    def flush(self) -> Iterator[bool]:
        """Report the waiting entries as soon as the window permits."""
        while self._entries and self._filing.window <= 0:
            yield False
        if self._entries:
            self._filing.tell("entries", entries=self._entries)
            self._entries = []
            self._length = 0
            yield True


def _described(folder: int, path: str, child: os.DirEntry[str]) -> dict[str, object] | None:
    """Return a child's description; None if it is gone, hidden, or its path is too long."""
    whole = os.path.join(path, child.name)
    try:
        status = child.stat(follow_symlinks=False)
        target = os.readlink(child.name, dir_fd=folder) if child.is_symlink() else ""
    except OSError:
        return None
    return entry(whole, status, target) if len(whole) <= MAX_NAME else None
