"""A folder here as a tar archive, made as it is sent."""

import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

PIECE = 256 * 1024
_ERRORS = "surrogateescape"
"""Names that are not UTF-8 keep their bytes."""


def packed(folder: Path) -> Iterator[bytes]:
    """Yield what is in a folder as a tar archive. Links stay links; sockets and such are left out.

    Raises OSError, also if a file becomes shorter meanwhile.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder")
    for above, names, files in os.walk(folder, onerror=_raise):
        for name in (*names, *files):
            path = Path(above, name)
            yield from _member(path, str(path.relative_to(folder)))
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(path: Path, name: str) -> Iterator[bytes]:
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode = stat.S_IMODE(status.st_mode)
    info.mtime = int(status.st_mtime)
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif not stat.S_ISREG(status.st_mode):
        return
    else:
        info.size = status.st_size
    yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", _ERRORS)
    if info.isreg():
        yield from _content(path, info.size)


def _content(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left:
            if not (piece := file.read(min(left, PIECE))):
                raise OSError(f"{path} became shorter while it was read")
            left -= len(piece)
            yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def _raise(error: OSError) -> None:
    raise error
