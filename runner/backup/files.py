"""Files that are copied and hashed, and folders that appear whole or not at all."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from runner.backup.manifest import BackedFile
from runner.words.errors import SetupError

CHUNK = 1024 * 1024
PARTIAL = ".partial"


def described(folder: Path, path: str) -> BackedFile:
    """Return a file's size and hash, as they are on the disk. Raises OSError."""
    size, sha256 = hashed(folder / path)
    return BackedFile(path=path, bytes=size, sha256=sha256)


def hashed(path: Path) -> tuple[int, str]:
    """Return a file's bytes and the SHA-256 of its content. Raises OSError."""
    with path.open("rb") as file:
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


@contextmanager
def appearing(target: Path) -> Iterator[Path]:
    """Yield a folder to fill beside `target`, which gets its name once the context ends well.

    What an earlier attempt left there is still in it. Raises SetupError if `target` exists, or if
    somebody else fills the folder.
    """
    if target.exists():
        raise SetupError(f"{target} exists already: name a folder that does not exist yet")
    partial = target.with_name(target.name + PARTIAL)
    made(partial)
    # Only its owner may open the folder, so nobody else can lock it.
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another backup is being written to {partial}") from None
        yield partial
        os.sync()
        partial.rename(target)
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


def _opened(path: Path, mode: int) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")
