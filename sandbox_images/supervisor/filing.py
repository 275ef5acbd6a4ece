"""Files of a sandbox that lives: read and written, a small piece at a time.

Each is a stream whose `work` is a generator. It yields to give others a turn, and waits for its
window before it sends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque

from streams import OVERHEAD, Stream
from wire import PIECE

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only a checker needs is not loaded into every sandbox
    from collections.abc import Iterator
    from typing import Any

    from places import Place, Places
    from streams import Streams

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
MAX_SIZE = 2**53 - 1
MAX_TIME = 2**63 - 1


def entry(path: str, status: os.stat_result, target: str = "") -> dict[str, object]:
    """Return a file's description. A name that is not UTF-8 is given as closely as possible."""
    return {
        "path": readable(path),
        "kind": KINDS.get(stat.S_IFMT(status.st_mode), "other"),
        "size": min(status.st_size, MAX_SIZE),
        "mode": stat.S_IMODE(status.st_mode),
        "modified_ns": max(-MAX_TIME, min(status.st_mtime_ns, MAX_TIME)),
        "target": readable(target),
    }


def readable(path: str) -> str:
    """Return a name as characters, whatever its bytes are."""
    return os.fsencode(path).decode("utf-8", "replace")


class Filing(Stream):
    """An action on files."""

    def __init__(
        self, streams: Streams, number: int, places: Places, command: dict[str, Any]
    ) -> None:
        super().__init__(streams, number)
        self.places = places
        self.more = False
        self._work = self.work(command)

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Do it; yield False to be asked again only after an event."""
        raise NotImplementedError

    def step(self) -> bool:
        """Do a piece of it."""
        try:
            return next(self._work)
        except StopIteration:
            self.end("done", more=self.more)
        except OSError as error:
            self.end("failed", error=errno.errorcode.get(error.errno or 0, "EIO"))
        except ValueError:  # a name that no file can have
            self.end("failed", error="EINVAL")
        return False

    def release(self) -> None:
        """Close what is open, and undo what is half done."""
        self._work.close()

    def found(self, path: str, status: os.stat_result, target: str = "") -> None:
        """Report a file."""
        self.say("found", entry=entry(path, status, target))

    def described(self, place: Place) -> None:
        """Report what is in a place."""
        status = place.status()
        target = ""
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(place.name, dir_fd=place.folder)
        self.found(place.path, status, target)


class Read(Filing):
    """A regular file's bytes."""

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Send them as the window permits."""
        with contextlib.closing(self.places.find(command["path"], follow=True)) as place:
            file, status = self.places.open(place, os.O_RDONLY)
        try:
            if stat.S_ISDIR(status.st_mode):
                raise OSError(errno.EISDIR, command["path"])
            self.found(place.path, status)
            at, left = command["offset"], command["length"]
            while left:
                while self.window <= 0:
                    yield False
                data = os.pread(file, PIECE if left < 0 else min(left, PIECE), at)
                if not data:
                    return
                self.send(b"D", data)
                at += len(data)
                left = left if left < 0 else left - len(data)
                yield True
        finally:
            os.close(file)


class Write(Filing):
    """A file that is written beside its place, and moved there once it is whole."""

    def __init__(
        self, streams: Streams, number: int, places: Places, command: dict[str, Any]
    ) -> None:
        super().__init__(streams, number, places, command)
        self._pieces: deque[bytes] = deque()
        self._finished = False

    def take(self, payload: bytes) -> None:
        """Take a piece of it."""
        self._pieces.append(payload)
        self.streams.wake(self)

    def obey(self, command: dict[str, Any]) -> None:
        """Learn that it is whole."""
        if command["do"] != "finish":
            super().obey(command)
        self._finished = True
        self.streams.wake(self)

    def work(self, command: dict[str, Any]) -> Iterator[bool]:
        """Write it as it comes."""
        place = self.places.find(command["path"], follow=True, make=command["parents"])
        with contextlib.closing(place):
            self._may_be_written(place)
            beside = f".{os.urandom(8).hex()}.part"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(beside, flags, 0o600, dir_fd=place.folder)
            try:
                while self._pieces or not self._finished:
                    if not self._pieces:
                        yield False
                        continue
                    payload = self._pieces.popleft()
                    with memoryview(payload) as view:
                        written = 0
                        while written < len(payload):
                            written += _append(file, view[written:])
                    self.took(len(payload) + OVERHEAD)
                    yield True
                os.fchmod(file, command["mode"])
                os.rename(beside, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside, dir_fd=place.folder)
                raise
            finally:
                os.close(file)
            self.described(place)

    def _may_be_written(self, place: Place) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = place.status()
            self.places.check(status)
            if stat.S_ISDIR(status.st_mode):
                raise OSError(errno.EISDIR, place.path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, place.path)


def _append(file: int, content: memoryview) -> int:
    try:
        return os.write(file, content)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        # A file cannot be larger than the disk: to tell the two errors apart would help nobody.
        raise OSError(errno.ENOSPC, "the disk is smaller") from error
