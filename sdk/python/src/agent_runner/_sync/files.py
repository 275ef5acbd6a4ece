# Written by scripts/make-sync from _async/files.py: change that.
"""The tenant's stored files: `client.files`."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import IO
from urllib.parse import quote

import httpx

from agent_runner._sync.calls import call, delete, stream
from agent_runner._sync.local import sendable, size_header
from agent_runner.answers import FILE, FILES
from agent_runner.transport import params
from agent_runner.types import StoredFile

_FILES = "/v1/files"


class Files:
    """Files by name, which an execution may take and leave."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def put(
        self,
        path: str,
        content: bytes | IO[bytes],
        *,
        media_type: str = "application/octet-stream",
        only_new: bool = False,
        if_match: str | None = None,
        expires_at: datetime | None = None,
    ) -> StoredFile:
        """Store a file, in place of one of that name, and return it. Raises ApiError.

        `only_new` refuses to take a place, `if_match` (an etag) to take any but that file's. What
        is not bytes must be a file with a size; it is streamed.
        """
        headers = {"Content-Type": media_type, **size_header(content)}
        if isinstance(content, bytes):
            sum_ = base64.b64encode(hashlib.sha256(content).digest()).decode()
            headers["Content-Digest"] = f"sha-256=:{sum_}:"
        if only_new:
            headers["If-None-Match"] = "*"
        if if_match is not None:
            headers["If-Match"] = if_match
        asked = params(expires_at=expires_at and expires_at.isoformat())
        body = sendable(content)
        return call(
            self._http, FILE, "PUT", _path(path), content=body, headers=headers, params=asked
        )

    def open(self, path: str) -> AbstractContextManager[Iterator[bytes]]:
        """Yield a file's bytes in pieces. Raises ApiError."""
        return stream(self._http, _path(path))

    def read(self, path: str) -> bytes:
        """Return a file's bytes. Raises ApiError."""
        with self.open(path) as pieces:
            return b"".join([each for each in pieces])

    def list(self, prefix: str = "") -> Iterator[StoredFile]:
        """Yield every file whose name begins with `prefix`, by name."""
        cursor = None
        while True:
            asked = params(prefix=prefix, cursor=cursor, limit=1000)
            found, cursor = call(self._http, FILES, "GET", _FILES, params=asked)
            for each in found:
                yield each
            if cursor is None:
                return

    def delete(self, path: str) -> None:
        """Forget a file. Raises ApiError when there is none."""
        delete(self._http, _path(path))


def _path(path: str) -> str:
    # Dots spelled out: httpx would take `..` for a way up, and ask for something else.
    parts = ("%2E" * len(part) if part in {".", ".."} else quote(part) for part in path.split("/"))
    return f"{_FILES}/{'/'.join(parts)}"
