"""Reports changes below a folder, by inotify(7)."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections import deque
from itertools import islice

from filing import Filing, readable
from libc import call
from loop import IN
from places import BENEATH

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterator
    from typing import Any

    from loop import Loop
    from places import Places
    from streams import Streams

EVENT = struct.Struct("iIII")
IN_ATTRIB, IN_CLOSE_WRITE, IN_MODIFY = 0x4, 0x8, 0x2
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_DELETE_SELF = 0x40, 0x80, 0x100, 0x200, 0x400
IN_Q_OVERFLOW, IN_IGNORED, IN_ONLYDIR, IN_ISDIR = 0x4000, 0x8000, 0x1000000, 0x40000000
KINDS = (
    (IN_CREATE, "made"),
    (IN_MODIFY | IN_CLOSE_WRITE, "written"),
    (IN_DELETE, "removed"),
    (IN_MOVED_FROM, "moved_from"),
    (IN_MOVED_TO, "moved_to"),
    (IN_ATTRIB, "attributes"),
)
WANTED = IN_ONLYDIR | sum(mask for mask, _ in KINDS)
APPEARED = IN_CREATE | IN_MOVED_TO
BUFFER = 16 * 1024
"""How many bytes of events one turn reads: there may be many short ones."""
AT_ONCE = 64
"""How many folders are released, or files looked at, before others have a turn."""
MAX_CHANGES = 256
MAX_WAITING = 4096
"""How many changes may wait; further ones are lost, and the loss is reported."""
MAX_FOLDERS = 8192
MAX_NAME = 16 * 1024
TOGETHER_S = 0.01
"""Changes within this time of another are reported together with it."""


class Folder:
    """A watched folder, and the watched folders in it."""

    __slots__ = ("above", "inner", "name", "path", "watch")

    def __init__(self, path: str, above: Folder | None, watch: int) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.above = above
        self.watch = watch
        self.inner: dict[str, Folder] = {}


class Watch(Filing):
    """A watch on a folder, and on those below it if the command is recursive."""

    def __init__(
        self,
        streams: Streams,
        number: int,
        places: Places,
        loop: Loop,
        command: dict[str, Any],
    ) -> None:
        super().__init__(streams, number, places, command)
        self._loop = loop
        self._inotify = -1
        self._recursive: bool = command["recursive"]
        self._root: Folder | None = None
        self._folders: dict[int, Folder] = {}
        """The folder of each watch."""
        self._leaving: deque[Folder] = deque()
        """Folders that were moved away, with those in them: their watches are removed soon."""
        self._changes: dict[tuple[str, str, bool], None] = {}
        self._new: deque[tuple[Folder, str, bool]] = deque()
        """Folders still to be watched, and whether what is in them counts as new."""
        self._lost = False
        self._soon = False

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Watch, and report."""
        self._inotify = call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.closing(self.places.find(command["path"], follow=True)) as place:
            root = place.path
        self._root = self._add(root, None)
        if self._recursive:
            yield from self._look(self._root, news=False)
            yield from self._look_at_new()
        self._loop.watch(self._inotify, IN, self._happened)
        self.say("watching")
        while True:
            yield from self._leave()
            yield from self._look_at_new()
            if (self._changes or self._lost) and not self._soon and self.window > 0:
                self._tell()
                yield bool(self._changes)
            else:
                yield False

    def release(self) -> None:
        """Remove all watches."""
        super().release()
        if self._inotify >= 0:
            self._loop.ignore(self._inotify)
            os.close(self._inotify)
            self._inotify = -1

    def _tell(self) -> None:
        told = list(islice(self._changes, MAX_CHANGES))
        for each in told:
            del self._changes[each]
        lost = self._lost and not self._changes
        self._lost = self._lost and not lost
        changes = [
            {"kind": kind, "path": readable(path), "folder": folder} for kind, path, folder in told
        ]
        self.tell("changed", changes=changes, lost=lost)

    def _happened(self, _: int) -> None:
        try:
            data = os.read(self._inotify, BUFFER)
        except OSError:
            return
        at = 0
        while at < len(data):
            watch, mask, _cookie, length = EVENT.unpack_from(data, at)
            at += EVENT.size + length
            name = os.fsdecode(data[at - length : at].rstrip(b"\0"))
            self._take(watch, mask, name)
        if not self._soon:
            self._soon = True
            self._loop.after(TOGETHER_S, self._now)

    def _now(self) -> None:
        self._soon = False
        if self._inotify >= 0:
            self.streams.wake(self)

    def _take(self, watch: int, mask: int, name: str) -> None:
        if mask & IN_Q_OVERFLOW:
            self._lost = True
        folder = self._folders.get(watch)
        if folder is not None and mask & IN_IGNORED:
            self._drop(folder)
        if folder is None or not name or (self._leaving and not self._within(folder)):
            return
        path, is_folder = os.path.join(folder.path, name), bool(mask & IN_ISDIR)
        for wanted, kind in KINDS:
            if mask & wanted:
                self._note(kind, path, folder=is_folder)
        if is_folder and self._recursive:
            if mask & IN_MOVED_FROM and name in folder.inner:
                moved = folder.inner.pop(name)
                moved.above = None
                self._leaving.append(moved)
            if mask & APPEARED:
                self._await(folder, name, news=bool(mask & IN_CREATE))

    def _await(self, above: Folder, name: str, *, news: bool) -> None:
        if len(self._new) >= MAX_FOLDERS:
            self._lost = True
        else:
            self._new.append((above, name, news))

    def _note(self, kind: str, path: str, *, folder: bool) -> None:
        if len(self._changes) >= MAX_WAITING or len(path) > MAX_NAME:
            self._lost = True
        else:
            self._changes[kind, path, folder] = None

    def _within(self, folder: Folder) -> bool:
        """Return whether it is still where it was found: once moved away, it may be anywhere."""
        while folder.above is not None:
            folder = folder.above
        return folder is self._root

    def _leave(self) -> Iterator[bool]:
        """Stop watching what was moved away."""
        count = 0
        while self._leaving:
            folder = self._leaving[0]
            if folder.inner:
                self._leaving.append(folder.inner.popitem()[1])
                continue
            self._leaving.popleft()
            if self._folders.get(folder.watch) is folder:  # not found again elsewhere
                del self._folders[folder.watch]
                # Its watch may have ended with it.
                with contextlib.suppress(OSError):
                    call("inotify_rm_watch", self._inotify, folder.watch)
            count += 1
            if count % AT_ONCE == 0:
                yield True

    def _drop(self, folder: Folder) -> None:
        """Forget a folder that no longer exists."""
        del self._folders[folder.watch]
        if folder.above is not None and folder.above.inner.get(folder.name) is folder:
            del folder.above.inner[folder.name]

    def _add(self, path: str, above: Folder | None) -> Folder:
        """Watch a folder. Raises OSError."""
        if len(self._folders) >= MAX_FOLDERS:
            raise OSError(errno.ENOSPC, "too many folders")
        with contextlib.closing(self.places.find(path, follow=above is None)) as place:
            folder = os.open(place.name, BENEATH | os.O_DIRECTORY, dir_fd=place.folder)
        try:
            self.places.check(os.fstat(folder))
            # Through its descriptor: the name could lead elsewhere by now.
            by = os.fsencode(f"/proc/self/fd/{folder}")
            watch = call("inotify_add_watch", self._inotify, by, WANTED)
        finally:
            os.close(folder)
        known = self._folders.get(watch)
        if known is not None and known.above is above and known.path == path:
            return known
        self._folders[watch] = added = Folder(path, above, watch)
        if above is not None:
            above.inner[added.name] = added
        return added

    def _look_at_new(self) -> Iterator[bool]:
        while self._new:
            above, name, news = self._new.popleft()
            if not self._within(above):
                continue
            try:
                added = self._add(os.path.join(above.path, name), above)
                yield from self._look(added, news=news)
            except OSError as error:
                # It has gone, or cannot be watched; with too many, some changes are lost.
                self._lost = self._lost or error.errno == errno.ENOSPC

    def _look(self, folder: Folder, *, news: bool) -> Iterator[bool]:
        """Find the folders in one; with `news`, report everything there as new."""
        follow = folder is self._root
        with contextlib.closing(self.places.find(folder.path, follow=follow)) as place:
            opened, _ = self.places.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(opened) as children:
                for count, child in enumerate(children, 1):
                    below = child.is_dir(follow_symlinks=False)
                    if news:
                        self._note("made", os.path.join(folder.path, child.name), folder=below)
                    if below:
                        self._await(folder, child.name, news=news)
                    if count % AT_ONCE == 0:
                        yield True
        finally:
            os.close(opened)
        yield True
