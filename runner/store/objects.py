"""Object storage in a local folder: artifacts' bytes, under keys that only we compose.

A key is made of ids and numbers of ours; nothing a sandbox or a client sent is part of it, so no
name can lead out of the folder. Writing is atomic: a reader sees the whole object or none.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

from runner.errors import StoreUnavailable

CHUNK = 256 * 1024
_KEY = re.compile(r"tenants/[0-9a-f-]{36}/[0-9a-zA-Z/_-]{1,200}")


def artifact_key(tenant_id: UUID, execution_id: UUID, attempt: int, number: int) -> str:
    """Return the key of an attempt's artifact: the tenant first, so that a prefix bounds it."""
    return f"tenants/{tenant_id}/executions/{execution_id}/{attempt}/{number}"


class ObjectWriter:
    """An object being written; it appears under its key only when the context ends well."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def write(self, chunk: bytes) -> None:
        """Append a piece."""
        await asyncio.to_thread(self._file.write, chunk)


class ObjectStore:
    """A folder of objects. Raises StoreUnavailable when the file system refuses."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not an object key of ours: {key!r}")
        return self._root / key

    @asynccontextmanager
    async def create(self, key: str) -> AsyncIterator[ObjectWriter]:
        """Open a new object for writing; on an error nothing of it stays."""
        path = self._path(key)
        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with open(partial, "wb", opener=_private) as file:  # noqa: ASYNC230 - Path.open has no opener; local, short
                yield ObjectWriter(file)
            partial.rename(path)
        except OSError as error:
            raise StoreUnavailable(f"object store: {error.strerror} ({self._root})") from error
        finally:
            partial.unlink(missing_ok=True)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's bytes in pieces."""
        try:
            with self._path(key).open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk
        except OSError as error:
            raise StoreUnavailable(f"object store: {error.strerror} ({self._root})") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
