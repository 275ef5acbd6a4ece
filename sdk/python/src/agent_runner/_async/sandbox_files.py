"""The files in a sandbox: `sandbox.files`."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx

from agent_runner._async.calls import call, delete, opened_events, order, stream
from agent_runner._async.local import Content, packed, sendable, unpacked
from agent_runner.errors import FileTooLarge, NotFound
from agent_runner.living import FileChanges, FileEntry, SignedUrl
from agent_runner.living_answers import CHANGES, ENTRY, FOLDER, SIGNED
from agent_runner.transport import params
from agent_runner.unpacking import MOST_BYTES

WORKSPACE = "/workspace"
MOST_READ = 256 * 2**20
"""Bytes of a file that `read` holds unless its caller wants more."""
TAR = "application/x-tar"


class AsyncSandboxFiles:
    """Files in a sandbox. Paths are absolute, or relative to `/workspace`. All raise ApiError."""

    def __init__(self, http: httpx.AsyncClient, path: str) -> None:
        self._http = http
        self._path = path

    async def write(
        self,
        path: str,
        content: Content | str,
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> FileEntry:
        """Write a file, and replace one of that name, which stays until the new one is complete.

        Anything but bytes or text is streamed.
        """
        raw = content.encode() if isinstance(content, str) else sendable(content)
        asked = {"path": path, "mode": f"{mode:04o}", "parents": str(parents).lower()}
        headers = {"Content-Type": "application/octet-stream"}
        target = f"{self._path}/content"
        return await call(
            self._http, ENTRY, "PUT", target, content=raw, params=asked, headers=headers
        )

    def open(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield a file's bytes in pieces."""
        return stream(self._http, f"{self._path}/content", params={"path": path})

    async def read(self, path: str, *, most_bytes: int = MOST_READ) -> bytes:
        """Return a file's bytes.

        Raises ApiError, and FileTooLarge if there are more than `most_bytes`: a program in the
        sandbox decides how large it is. `open` yields it in pieces, however large.
        """
        read = bytearray()
        async with self.open(path) as pieces:
            async for each in pieces:
                read += each
                if len(read) > most_bytes:
                    raise FileTooLarge(path, most_bytes)
        return bytes(read)

    async def signed_url(
        self, path: str, operation: Literal["read", "write"] = "read", *, expires_s: float = 3600
    ) -> SignedUrl:
        """Return an address by which anybody reads the file (GET) or writes it (PUT).

        It needs no key. It ends after `expires_s` seconds, with the sandbox, and with your key.
        """
        made = await call(
            self._http,
            SIGNED,
            "POST",
            f"{self._path}/signed",
            json={"path": path, "operation": operation, "expires_s": expires_s},
        )
        return replace(made, url=str(self._http.base_url).rstrip("/") + made.url)

    def open_archive(
        self, path: str = WORKSPACE
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield a folder as a tar archive, in pieces.

        A program in the sandbox decides what it holds; `download_folder` unpacks it safely.
        """
        return stream(self._http, f"{self._path}/archive", kind=TAR, params={"path": path})

    async def write_archive(self, path: str, archive: Content, *, parents: bool = True) -> None:
        """Unpack a tar archive, which is not compressed, into a folder in the sandbox."""
        asked = {"path": path, "parents": str(parents).lower()}
        headers = {"Content-Type": TAR}
        target, content = f"{self._path}/archive", sendable(archive)
        await order(self._http, "PUT", target, content=content, params=asked, headers=headers)

    async def download_folder(
        self, path: str, local: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES
    ) -> None:
        """Write what is in a folder of the sandbox into a folder here, made if it is missing.

        Raises ApiError, OSError, and UnsafeArchive if some of it was left out: links that leave the
        folder, for instance, or pipes; also if its archive has more than `most_bytes`.
        """
        async with self.open_archive(path) as pieces:
            await unpacked(pieces, Path(local), most_bytes=most_bytes)

    async def upload_folder(
        self, local: str | os.PathLike[str], path: str = WORKSPACE, *, parents: bool = True
    ) -> None:
        """Write what is in a folder here into a folder of the sandbox. Links stay links.

        Raises ApiError and OSError.
        """
        await self.write_archive(path, packed(Path(local)), parents=parents)

    async def list(
        self, path: str = WORKSPACE, *, depth: int = 1, limit: int = 1000
    ) -> tuple[list[FileEntry], bool]:
        """Return what is in a folder, and whether there is more."""
        asked = {"path": path, "depth": depth, "limit": limit}
        return await call(self._http, FOLDER, "GET", self._path, params=asked)

    async def stat(self, path: str) -> FileEntry:
        """Describe a file, folder or link. A link is not followed."""
        return await call(self._http, ENTRY, "GET", f"{self._path}/stat", params={"path": path})

    async def exists(self, path: str) -> bool:
        """Return whether something has that name."""
        try:
            await self.stat(path)
        except NotFound as error:
            if error.reason is None:
                raise
            return False
        return True

    async def make_folder(self, path: str, *, parents: bool = True) -> FileEntry:
        """Make a folder; with `parents`, it may exist already."""
        body = {"path": path, "parents": parents}
        return await call(self._http, ENTRY, "POST", f"{self._path}/folders", json=body)

    async def move(self, source: str, target: str, *, replace: bool = False) -> FileEntry:
        """Rename a file, folder or link."""
        body = {"source": source, "target": target, "replace": replace}
        return await call(self._http, ENTRY, "POST", f"{self._path}/move", json=body)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, a link or a folder."""
        asked = params(path=path, recursive="true" if recursive else None)
        await delete(self._http, self._path, params=asked)

    async def watch(self, path: str = WORKSPACE, *, recursive: bool = True) -> "AsyncFileWatch":
        """Watch a folder: whatever changes below it after this has returned is told.

        Iterate over the watch, and use it in a `with` statement, or close it.
        """
        asked = {"path": path, "recursive": str(recursive).lower()}
        opening = opened_events(self._http, CHANGES, f"{self._path}/watch", params=asked)
        async with AsyncExitStack() as stack:
            changes = await stack.enter_async_context(opening)
            return AsyncFileWatch(changes, stack.pop_all())


class AsyncFileWatch(AsyncIterator[FileChanges]):
    """Yields what changes below a folder, until it is closed or its sandbox ends.

    Raises ApiError.
    """

    def __init__(self, changes: AsyncIterator[FileChanges], closing: AsyncExitStack) -> None:
        self._changes = changes
        self._closing = closing
        self._closed = False

    async def __anext__(self) -> FileChanges:
        """Wait for the next changes, and return them."""
        if self._closed:
            raise StopAsyncIteration
        try:
            return await anext(self._changes)
        except BaseException:
            await self.aclose()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop watching."""
        self._closed = True
        await self._closing.aclose()
