"""A workspace of Pydantic AI: commands and files of a run, in a sandbox.

`RunnerWorkspace` fulfils Pydantic AI's protocols `WorkspaceBackend`, `SupportsCommands`,
`SupportsFilesystem` and `SupportsRealpath`.
"""

import asyncio
import errno
import math
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic_ai.workspaces import (
    CommandResult,
    FileEntry,
    WorkspaceOutputLimitError,
    WorkspaceRef,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

from agent_runner import ApiError, AsyncClient, AsyncSandbox, living
from agent_runner.integrations.commands import (
    KEPT_MODE,
    MOST_KIB,
    NEW_FILE,
    finished,
    is_whole,
    not_started,
)
from agent_runner.integrations.refusals import is_gone, kernel_errors

PROVIDER = "agent-runner"
WORKSPACE = "/workspace"
MOST_ENTRIES = 10_000
LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class RunnerWorkspace:
    """A sandbox as a workspace, made on first use, or the one that `ref` names.

    `options` are those of `client.sandboxes.create`. As a context manager, it kills the sandbox at
    the end. Nothing else here does: the sandbox lives until its `timeout_s` has passed, or until
    you kill it by `ref.id`.
    """

    def __init__(
        self, client: AsyncClient, *, ref: WorkspaceRef | None = None, **options: Any
    ) -> None:
        if ref is not None and ref.provider != PROVIDER:
            raise ValueError(f"{ref.provider!r} has made the workspace {ref.id!r}, not {PROVIDER}")
        self._client = client
        self._options = options
        self._ref = ref
        self._opening: asyncio.Future[_Opened] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opening is None:
            return
        await asyncio.wait({self._opening})
        if self._ref is not None:
            await (await self._client.sandboxes.get(self._ref.id)).kill()

    @property
    def ref(self) -> WorkspaceRef | None:
        """Its sandbox's id; None until there is one."""
        return self._ref

    async def working_dir(self) -> str:
        """Return the folder where commands start."""
        return (await self._opened()).folder

    async def run(
        self,
        command: str | Sequence[str],
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the protocol's parameter
    ) -> CommandResult:
        """Run a command to its end, and kill it if this is cancelled."""
        if isinstance(command, str) is not shell:
            raise TypeError("a command is a string with shell=True, and a sequence without it")
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise ValueError(f"timeout is {timeout}: give a positive number of seconds, or None")
        sandbox = (await self._opened()).sandbox
        with _unavailable():
            try:
                ran = await finished(sandbox, command, env=env, timeout_s=timeout)
            except ApiError as error:
                code = not_started(error)
                if code is None:
                    await self._check_lives(sandbox)
                    raise
                return CommandResult(exit_code=code, stdout="", stderr=f"{error}\n")
            if ran.signal is not None:
                await self._check_lives(sandbox)
        said = {"stdout": ran.stdout.text, "stderr": ran.stderr.text}
        if ran.timed_out:
            raise WorkspaceTimeoutError(f"the command took longer than {timeout} s", **said)
        if not is_whole(ran):
            limit = MOST_KIB * 1024
            why = f"the command wrote more than {limit} bytes to its stdout or stderr"
            raise WorkspaceOutputLimitError(why, limit=limit, **said)
        return CommandResult(exit_code=ran.status, **said)

    async def read_bytes(self, path: str) -> bytes:
        """Return a file's bytes."""
        with _unavailable(), kernel_errors(path):
            return await (await self._opened()).sandbox.files.read(path)

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file, through a link if there is one. It keeps the mode that it had."""
        files = (await self._opened()).sandbox.files
        with _unavailable(), kernel_errors(path):
            mode = await self._mode(path)
            if not mode & stat.S_IWUSR:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            await files.write(path, data, mode=mode)

    async def stat(self, path: str) -> FileEntry:
        """Describe what a path leads to."""
        return _entry(path, await self._target(path))

    async def list_dir(self, path: str) -> Sequence[FileEntry]:
        """Describe what is in a folder."""
        sandbox = (await self._opened()).sandbox
        with _unavailable(), kernel_errors(path):
            found, more = await sandbox.files.list(path, limit=MOST_ENTRIES)
        if more:
            raise WorkspaceOutputLimitError(
                f"{path} holds more than {MOST_ENTRIES} files: list it with a command",
                limit=MOST_ENTRIES,
            )
        has_links = any(each.kind == "link" for each in found)
        folders = await self._linked_folders(path) if has_links else frozenset()
        return [
            FileEntry(
                name=posixpath.basename(each.path),
                path=posixpath.join(path, posixpath.basename(each.path)),
                is_dir=each.kind == "folder" or posixpath.basename(each.path) in folders,
                size=each.size if each.kind == "file" else None,
            )
            for each in found
        ]

    async def make_dir(self, path: str) -> None:
        """Make a folder, and those above it; it may exist already."""
        with _unavailable(), kernel_errors(path):
            await (await self._opened()).sandbox.files.make_folder(path)

    async def remove(self, path: str) -> None:
        """Remove a file, a link, or a folder with all that is in it."""
        opened = await self._opened()
        above, name = posixpath.split(posixpath.normpath(path))
        target = posixpath.join(await self.realpath(above), name)
        if f"{opened.folder}/".startswith(f"{target.rstrip('/')}/"):
            raise ValueError(f"{path} is the working folder or above it, and may not be removed")
        with _unavailable(), kernel_errors(path):
            await opened.sandbox.files.remove(target, recursive=True)

    async def exists(self, path: str) -> bool:
        """Return whether a path leads to anything."""
        try:
            await self.stat(path)
        except OSError as error:
            if error.errno not in LEADS_NOWHERE:
                raise
            return False
        return True

    async def realpath(self, path: str) -> str:
        """Return the path without links, whether or not there is anything."""
        resolved = await self.run(["realpath", "--canonicalize-missing", "-z", "--", path])
        if resolved.exit_code:
            raise OSError(resolved.stderr.strip())
        return resolved.stdout.removesuffix("\0")

    async def _opened(self) -> "_Opened":
        """Return the sandbox; all who wait for it share one, even if one of them is cancelled."""
        if self._opening is None or _failed(self._opening):
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> "_Opened":
        with _unavailable():
            if self._ref is None:
                sandbox = await self._client.sandboxes.create(**self._options)
                self._ref = WorkspaceRef(provider=PROVIDER, id=sandbox.id)
            else:
                sandbox = await self._client.sandboxes.get(self._ref.id)
            folder = await sandbox.files.stat(WORKSPACE)
        return _Opened(sandbox, folder.target or folder.path)

    async def _target(self, path: str) -> living.FileEntry:
        """Describe what a path leads to, through links."""
        files = (await self._opened()).sandbox.files
        with _unavailable(), kernel_errors(path):
            found = await files.stat(path)
            if found.kind == "link":
                found = await files.stat(await self.realpath(path))
        if found.kind == "link":
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        return found

    async def _mode(self, path: str) -> int:
        try:
            found = await self._target(path)
        except FileNotFoundError:
            return NEW_FILE
        return int(found.mode, 8) & KEPT_MODE

    async def _linked_folders(self, path: str) -> frozenset[str]:
        """Return the names of links in a folder that lead to folders."""
        here = ("-mindepth", "1", "-maxdepth", "1")
        found = await self.run(
            ["find", "-H", path, *here, "-type", "l", "-xtype", "d", "-printf", "%f\\0"]
        )
        return frozenset(found.stdout.split("\0"))

    @staticmethod
    async def _check_lives(sandbox: AsyncSandbox) -> None:
        """Raise WorkspaceUnavailableError if a command may have failed because its sandbox ends."""
        if (await sandbox.refresh()).state in {"stopping", "ended"}:
            raise WorkspaceUnavailableError(f"sandbox {sandbox.id} has ended")


@dataclass(frozen=True, slots=True)
class _Opened:
    sandbox: AsyncSandbox
    folder: str


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if not is_gone(error):
            raise
        raise WorkspaceUnavailableError(f"the sandbox is gone: {error}") from error


def _failed(opening: "asyncio.Future[_Opened]") -> bool:
    return opening.done() and (opening.cancelled() or opening.exception() is not None)


def _entry(path: str, found: living.FileEntry) -> FileEntry:
    return FileEntry(
        name=posixpath.basename(posixpath.normpath(path)),
        path=path,
        is_dir=found.kind == "folder",
        size=found.size if found.kind == "file" else None,
    )
