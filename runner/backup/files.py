"""Files that are copied and hashed, and folders that appear whole or not at all."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.backup.manifest import BackedFile
from runner.words.errors import SetupError

CHUNK = 1024 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
PARTIAL = ".partial"


def described(folder: Path, path: str) -> BackedFile:
    """Return a file's size and hash, as they are on the disk. Raises OSError."""
    size, sha256 = hashed(folder / path)
    return BackedFile(path=path, bytes=size, sha256=sha256)


def hashed(path: Path) -> tuple[int, str]:
    """Return a file's bytes and the SHA-256 of its content.

    Raises OSError, also for what is no regular file: a pipe or a device might have no end.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), sha256


def copied(source: Path, target: Path, mode: int) -> None:
    """Copy a file; the copy has its name once it is whole. Raises OSError."""
    made(target.parent)
    draft = target.with_name(f".{target.name}{PARTIAL}")
    draft.unlink(missing_ok=True)
    with source.open("rb") as file, _opened(draft, mode) as copy:
        shutil.copyfileobj(file, copy, CHUNK)
    draft.rename(target)


def written(target: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file that has its name once it is whole. Raises OSError."""
    made(target.parent)
    draft = target.with_name(f".{target.name}{PARTIAL}")
    draft.unlink(missing_ok=True)
    with _opened(draft, mode) as file:
        file.write(content)
    draft.rename(target)


def made(folder: Path) -> None:
    """Make a folder and those above it, closed to other users."""
    for each in reversed((folder, *folder.parents)):
        if not each.exists():
            each.mkdir(mode=0o700, exist_ok=True)


def partial(target: Path) -> Path:
    """Return the folder that becomes `target` once it is whole."""
    return target.with_name(target.name + PARTIAL)


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a folder to fill beside `target`, which gets its name once the context ends well.

    What an earlier attempt left there is still in it. Raises SetupError if `target` exists, if
    somebody else fills the folder, or if other users may read or fill it.
    """
    if target.exists():
        raise SetupError(f"{target} exists already: name a folder that does not exist yet")
    filled = partial(target)
    made(filled)
    descriptor = os.open(filled, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        # Where others may write, such as in /tmp, somebody may have made it beforehand.
        if status.st_uid != os.geteuid() or status.st_mode & _OTHERS:
            raise SetupError(f"{filled} is another user's, or open to others: remove it first")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another backup is being written to {filled}") from None
        yield filled
        os.sync()
        filled.rename(target)
    finally:
        os.close(descriptor)


def present(folder: Path) -> Iterator[str]:
    """Yield the path of each file in a folder, whatever it is, relative to the folder."""
    for above, _, names in os.walk(folder):
        for name in names:
            yield str((Path(above) / name).relative_to(folder))


def remove_others(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Remove the files that are not wanted: an earlier attempt left them."""
    for path in list(present(folder)):
        if not wanted(path):
            (folder / path).unlink()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _opened(path: Path, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
