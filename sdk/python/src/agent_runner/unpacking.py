"""Unpacks a folder that came from a sandbox: a program that nobody has read decides what is in it.

Nothing is written outside of the target, through whatever links. Folders are entered one by one,
never through a link; links are made last, and only such as stay inside; devices and pipes are not
made at all. `tarfile` reads the archive and extracts nothing, because its own safe way of doing so
(PEP 706) is not in every Python that this client runs on. Memory, bytes and names are bounded.
"""

import os
import re
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from agent_runner.errors import UnsafeArchive

PIECE = 256 * 1024
MOST_BYTES = 16 * 2**30
"""How many bytes an archive may have, unless its reader permits more."""
MOST_NAMES = 2_000_000
"""How many parts the names of all files and folders may have together: each may be a new folder."""
MOST_HEADER = 2**20
"""How many bytes may describe one file: `tarfile` keeps them in memory, whatever they say."""
MOST_FACTS = 100
"""How many facts an archive may have that hold for all of its files."""
MOST_DIGITS = 255
"""How many digits in a row facts may have: Linux takes no longer name of a file."""
MOST_OF_LINKS = 64 * 2**20
"""How many characters the links may have that are kept until the end."""
MOST_OF_NAME = 4096
"""Linux takes no longer path."""
MOST_TOLD = 5
_FACTS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_DIGITS = re.compile(rb"\d+")
_LENGTH = re.compile(rb"(\d{1,9}) ")
_LINK = 256
"""The bytes of a link besides its name and its target."""
_SHOWN = 100
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(pieces: Iterator[bytes], folder: Path, *, most_bytes: int = MOST_BYTES) -> None:
    """Write what is in an archive into a folder, which is made if it is missing.

    Files of the same names are replaced. Raises OSError, and UnsafeArchive: at once for bytes that
    are no archive or too many, and after everything else was written for what was left out.
    """
    left_out, count = list[str](), 0
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for each in _unpacked(_Pieces(pieces, most_bytes), root):
            count += 1
            if count <= MOST_TOLD:
                left_out.append(each)
    except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
        raise UnsafeArchive(f"the sandbox sent no whole archive: {error}") from None
    finally:
        os.close(root)
    if left_out:
        told = "; ".join(left_out)
        more = count - MOST_TOLD
        rest = f", and {more} more" if more > 0 else ""
        raise UnsafeArchive(f"everything was written but what is not safe: {told}{rest}")


def _unpacked(source: "_Pieces", root: int) -> Iterator[str]:
    """Write what is safe; yield what is not, and why."""
    links: list[tuple[list[str], str]] = []
    kept = 0
    file = cast("IO[bytes]", source)
    with tarfile.open(
        fileobj=file,
        mode="r:",
        tarinfo=_Member,
        encoding="utf-8",
        errors="surrogateescape",
    ) as archive:
        for member in _members(archive, source):
            parts = [each for each in member.name.split("/") if each not in {"", "."}]
            if not parts:
                continue
            if max(len(member.name), len(member.linkname)) > MOST_OF_NAME:
                yield f"{member.name[:_SHOWN]!r}… has a name or target that is too long"
            elif member.name.startswith("/") or ".." in parts:
                yield f"{member.name!r} is a name outside of the folder"
            elif member.issym():
                kept += len(member.name) + len(member.linkname) + _LINK
                if kept > MOST_OF_LINKS:
                    raise tarfile.ReadError("it has too many links")
                links.append((parts, member.linkname))
            elif why := _written(root, parts, archive, member):
                yield f"{member.name!r} {why}"
    for parts, target in links:
        if why := _linked(root, parts, target):
            yield f"{'/'.join(parts)!r} {why}"


class _Member(tarfile.TarInfo):
    """A member whose facts (POSIX.1-2017, pax) are checked before `tarfile` takes them apart.

    Before Python 3.11.10 and 3.12.6, `tarfile` takes hours or all memory for facts of a megabyte
    that are made for it (CVE-2024-6232).
    """

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the rest of a header: `tarfile` calls this once its first block was read."""
        if self.type in _FACTS:
            cast("_Pieces", archive.fileobj).facts_follow()
        read: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return read


def _require_facts(raw: bytes) -> None:
    """Raise ReadError for what are no records, each with its length, key and value."""
    if any(len(each[0]) > MOST_DIGITS for each in _DIGITS.finditer(raw)):
        raise tarfile.ReadError(f"its facts have more than {MOST_DIGITS} digits in a row")
    at = 0
    while at < len(raw) and raw[at]:
        if (length := _LENGTH.match(raw, at)) is None:
            raise tarfile.ReadError("a record of its facts has no length")
        key, end = length.end(), at + int(length[1])
        if raw.find(b"=", key, end) <= key or raw[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a record of its facts is not as long as it says")
        at = end


def _members(archive: tarfile.TarFile, source: "_Pieces") -> Iterator[tarfile.TarInfo]:
    """Yield each member. Raises ReadError where all of them describe too much."""
    names = 0
    while (member := archive.next()) is not None:
        source.header_ends()
        # Otherwise all of them would be kept in memory until the end.
        archive.members.clear()  # type: ignore[attr-defined]
        facts = archive.pax_headers
        if len(facts) > MOST_FACTS or sum(map(len, facts.values())) > MOST_HEADER:
            raise tarfile.ReadError("it has too many facts about all of its files")
        names += member.name.count("/") + 1
        if names > MOST_NAMES:
            raise tarfile.ReadError(f"it has more than {MOST_NAMES} names")
        yield member
        source.header_begins()


def _written(
    root: int, parts: list[str], archive: tarfile.TarFile, member: tarfile.TarInfo
) -> str | None:
    """Make a file or folder; return why not."""
    if not (member.isreg() or member.isdir() or member.islnk()):
        return "is neither a file nor a folder nor a link"
    try:
        if member.isdir():
            with _entered(root, parts):
                return None
        with _entered(root, parts[:-1]) as above:
            if member.islnk():
                return _link_hard(root, above, parts[-1], member.linkname)
            _make_file(above, parts[-1], archive, member)
    except (NotADirectoryError, IsADirectoryError):
        return "has the place of something else"
    return None


def _make_file(above: int, name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    content = archive.extractfile(member)
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=above)
    # Never for others to write, and never with the rights of its owner.
    mode = member.mode & 0o755 | 0o600
    with os.fdopen(os.open(name, _NEW, mode, dir_fd=above), "wb") as file:
        if content is not None:
            # Not through the buffer around it, which reads ahead.
            source = cast("IO[bytes]", content.raw)  # type: ignore[attr-defined]
            sparse = cast("list[tuple[int, int]] | None", getattr(member, "sparse", None))
            for offset, size in [(0, member.size)] if sparse is None else sparse:
                source.seek(offset)
                file.seek(offset)
                _copy(source, file, size)
        # A hole takes no space here either.
        file.truncate(member.size)
        file.flush()
        os.utime(file.fileno(), (member.mtime, member.mtime))


def _copy(content: IO[bytes], file: IO[bytes], size: int) -> None:
    while size:
        if not (piece := content.read(min(size, PIECE))):
            raise EOFError("it ends within a file")
        size -= len(piece)
        file.write(piece)


def _link_hard(root: int, above: int, name: str, target: str) -> str | None:
    """Make a second name for a file that was written before."""
    parts = [each for each in target.split("/") if each not in {"", "."}]
    if target.startswith("/") or ".." in parts or not parts:
        return "is a link that leaves the folder"
    with _entered(root, parts[:-1]) as folder:
        try:
            status = os.lstat(parts[-1], dir_fd=folder)
            if not stat.S_ISREG(status.st_mode):
                return "is a link to something else than a file"
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=above)
            os.link(parts[-1], name, src_dir_fd=folder, dst_dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            return "is a link to nothing"
    return None


def _linked(root: int, parts: list[str], target: str) -> str | None:
    """Make a symbolic link; return why not.

    Its way up is through folders that are no links, and after that it goes only down: so it stays
    inside whatever other links it meets, because these do, too.
    """
    ways = [each for each in target.split("/") if each not in {"", "."}]
    ups = next((n for n, each in enumerate(ways) if each != ".."), len(ways))
    if target.startswith("/") or ups > len(parts) - 1 or ".." in ways[ups:] or not target:
        return "is a link that leaves the folder"
    try:
        with _entered(root, parts[:-1]) as above:
            with suppress(FileNotFoundError):
                if stat.S_ISLNK(os.lstat(parts[-1], dir_fd=above).st_mode):
                    os.unlink(parts[-1], dir_fd=above)
            os.symlink(target, parts[-1], dir_fd=above)
    except (NotADirectoryError, FileExistsError):
        return "has the place of something else"
    return None


@contextmanager
def _entered(root: int, parts: list[str]) -> Iterator[int]:
    """Enter folders below the root, which are made if they are missing; none may be a link."""
    folder = os.dup(root)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            inner = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


class _Pieces:
    """A file that consists of pieces, to read once and forwards."""

    def __init__(self, pieces: Iterator[bytes], most: int) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0
        """The position of the next byte in the piece."""
        self._position = 0
        self._most = most
        self._header: int | None = MOST_HEADER
        """How many more bytes the header may have that is being read."""
        self._facts_follow = False

    def header_begins(self) -> None:
        """Permit only as many bytes from here on as a header may have; what is skipped is free."""
        self._header = MOST_HEADER

    def header_ends(self) -> None:
        """Permit any number of bytes."""
        self._header = None

    def facts_follow(self) -> None:
        """Check what is read next as facts."""
        self._facts_follow = True

    def tell(self) -> int:
        """Return how many bytes were read or skipped."""
        return self._position

    def seek(self, position: int) -> int:
        """Skip bytes up to a position. Raises StreamError if that is behind."""
        if position < self._position:
            raise tarfile.StreamError("it leads backwards")
        while self._position < position and self._next(position - self._position):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """Return this many bytes; fewer at the end. Raises ReadError for what is refused."""
        if self._header is not None:
            if not 0 <= size <= self._header:
                raise tarfile.ReadError(f"a file is described by more than {MOST_HEADER} bytes")
            self._header -= size
        parts = []
        while size > 0 and (part := self._next(size)):
            parts.append(part)
            size -= len(part)
        raw = b"".join(parts)
        if self._facts_follow:
            self._facts_follow = False
            _require_facts(raw)
        return raw

    def _next(self, most: int) -> bytes:
        """Return bytes, at most that many; none at the end."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        part = self._piece[self._at : self._at + most]
        self._at += len(part)
        self._position += len(part)
        if self._position > self._most:
            raise tarfile.ReadError(f"it has more than {self._most} bytes; permit more of them")
        return part
