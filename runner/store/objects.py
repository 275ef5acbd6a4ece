"""Object storage in a local folder: artifacts' bytes, under keys that only we compose.

A key is made of ids and numbers of ours; nothing a sandbox or a client sent is part of it, so no
name can lead out of the folder. Writing is atomic: a reader sees the whole object or none.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, ParamSpec, TypeVar
from uuid import UUID

from runner.errors import StoreUnavailable

P = ParamSpec("P")
R = TypeVar("R")

CHUNK = 256 * 1024
_KEY = re.compile(r"tenants/[0-9a-f-]{36}/[0-9a-zA-Z/_-]{1,200}")


def artifact_key(tenant_id: UUID, execution_id: UUID, attempt: int, number: int) -> str:
    """Return the key of an attempt's artifact: the tenant first, so that a prefix bounds it."""
    return f"tenants/{tenant_id}/executions/{execution_id}/{attempt}/{number}"


class ObjectWriter:
    """An object being written; it appears under its key only when it is kept."""

    def __init__(self, file: IO[bytes], partial: Path, final: Path) -> None:
        self._file = file
        self._partial = partial
        self._final = final

    async def write(self, chunk: bytes) -> None:
        """Append a piece. Raises StoreUnavailable, such as when the disk is full."""
        await _translated(self._file.write, chunk)

    async def keep(self) -> None:
        """Finish the object and put it under its key."""
        await _translated(self._keep)

    async def drop(self) -> None:
        """Forget it; nothing of it stays."""
        await _translated(self._drop)

    def _keep(self) -> None:
        self._file.close()
        self._partial.rename(self._final)

    def _drop(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._file.close()


class ObjectStore:
    """A folder of objects. Raises StoreUnavailable when the file system refuses."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not an object key of ours: {key!r}")
        return self._root / key

    async def create(self, key: str) -> ObjectWriter:
        """Open a new object for writing."""
        return await _translated(self._create, self._path(key))

    @staticmethod
    def _create(path: Path) -> ObjectWriter:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        partial = path.with_name(path.name + ".partial")
        return ObjectWriter(open(partial, "wb", opener=_private), partial, path)

    async def remove_tenant(self, tenant_id: UUID) -> int:
        """Remove every object of a tenant; return how many there were."""
        return await _translated(_remove_tree, self._root / "tenants" / str(tenant_id))

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's bytes in pieces."""
        file = await _translated(self._path(key).open, "rb")
        with file:
            while chunk := await _translated(file.read, CHUNK):
                yield chunk


async def _translated(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except OSError as error:
        raise StoreUnavailable(f"object store: {error.strerror}") from error


def _remove_tree(folder: Path) -> int:
    if not folder.exists():
        return 0
    files = sum(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder)
    return files


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
