"""Processes and files of a running sandbox, through its node's door.

Each method calls the door's method of the same name, for a caller instead of a grant. It raises
NotFound, Gone, Conflict and NodeAway for the sandbox, and otherwise what the door raises.

A method that acts in a sandbox wakes it: if the sandbox is paused and was made to be resumed by its
use, its node resumes it first. If the tenant's quota does not permit that, the method raises
QuotaExceeded. A method that only looks at processes or metrics wakes nothing.
"""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from runner.auth.caller import Caller
from runner.door.client import Door
from runner.door.grants import Knock
from runner.door.replies import SeriesReply
from runner.door.streams import (
    ArchiveStream,
    FileListing,
    FileStream,
    PortStream,
    ProcessStream,
    RunStream,
    WatchStream,
)
from runner.sandboxes.place import Asleep, SandboxPlaces
from runner.words.errors import Conflict, NotFound, SandboxEnded
from runner.words.living import (
    ContextInfo,
    FileEntry,
    Language,
    Launch,
    ProcessInfo,
    SandboxMetrics,
    TerminalSize,
)


@dataclass(frozen=True, slots=True)
class Using:
    """Use cases in running sandboxes."""

    door: Door
    places: SandboxPlaces
    may_resume: Callable[[Caller, UUID], Awaitable[None]]
    """Raises QuotaExceeded if the caller's tenant may not resume the sandbox."""

    @asynccontextmanager
    async def _at(
        self, caller: Caller, sandbox_id: UUID, *, wakes: bool = True
    ) -> AsyncIterator[Knock]:
        """Yield the knock. If the node says that the sandbox has ended, raise what its row says."""
        try:
            found = await self.places.locate(caller, sandbox_id)
        except Asleep:
            if not wakes:
                raise
            await self.may_resume(caller, sandbox_id)
            found = await self.places.knock(caller, sandbox_id)
        try:
            yield found
        except SandboxEnded:
            self.places.forget(caller.tenant_id, sandbox_id)
            await self.places.locate(caller, sandbox_id)
            raise
        except (NotFound, Conflict):
            # A process is missing, or the sandbox does not run: the next call reads the row first.
            self.places.forget(caller.tenant_id, sandbox_id)
            raise

    @asynccontextmanager
    async def start(
        self, caller: Caller, sandbox_id: UUID, launch: Launch, *, attach: bool = True
    ) -> AsyncIterator[ProcessStream]:
        """Start a process; with `attach`, get its output from the first byte on.

        When the context ends, the process goes on.
        """
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.start(knock, launch, attach=attach) as stream,
        ):
            yield stream

    @asynccontextmanager
    async def attach(
        self,
        caller: Caller,
        sandbox_id: UUID,
        process: int,
        *,
        offset: int = 0,
        follow: bool = True,
        wakes: bool = False,
    ) -> AsyncIterator[ProcessStream]:
        """Get a process's output from the byte at `offset` on; with `follow`, until it ends."""
        async with (
            self._at(caller, sandbox_id, wakes=wakes) as knock,
            self.door.attach(knock, process, offset=offset, follow=follow, wakes=wakes) as stream,
        ):
            yield stream

    async def write_stdin(
        self,
        caller: Caller,
        sandbox_id: UUID,
        process: int,
        chunks: AsyncIterable[bytes],
        *,
        close: bool = False,
    ) -> None:
        """Write to a process's stdin as fast as the process reads; then close it, if asked to."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.write_stdin(knock, process, chunks, close=close)

    async def signal(self, caller: Caller, sandbox_id: UUID, process: int, number: int) -> None:
        """Signal a process and its group; one that has ended stays as it is."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.signal(knock, process, number)

    async def resize(
        self, caller: Caller, sandbox_id: UUID, process: int, size: TerminalSize
    ) -> None:
        """Give a process's terminal another size."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.resize(knock, process, size)

    async def forget(self, caller: Caller, sandbox_id: UUID, process: int) -> None:
        """Kill a process if it still runs, and discard it with its output."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.forget(knock, process)

    async def processes(
        self, caller: Caller, sandbox_id: UUID, *, wakes: bool = False
    ) -> tuple[ProcessInfo, ...]:
        """Return every process that was not forgotten, in order of start.

        With `wakes`, for what acts on them next, a sandbox that its use resumes may be paused.
        """
        async with self._at(caller, sandbox_id, wakes=wakes) as knock:
            return await self.door.processes(knock)

    async def process(
        self,
        caller: Caller,
        sandbox_id: UUID,
        process: int,
        *,
        wait: bool = False,
        wakes: bool = False,
    ) -> ProcessInfo:
        """Return one process; with `wait`, once it has ended. `wakes` is as for `processes`."""
        async with self._at(caller, sandbox_id, wakes=wakes) as knock:
            return await self.door.process(knock, process, wait=wait)

    async def open_context(
        self,
        caller: Caller,
        sandbox_id: UUID,
        language: Language,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        shared: bool = False,
    ) -> ContextInfo:
        """Begin a context, or find its language's shared one; return once it takes code."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.contexts.open(knock, language, cwd=cwd, env=env, shared=shared)

    async def contexts(self, caller: Caller, sandbox_id: UUID) -> tuple[ContextInfo, ...]:
        """Return every context, in order of its beginning."""
        async with self._at(caller, sandbox_id, wakes=False) as knock:
            return await self.door.contexts.list(knock)

    async def context(self, caller: Caller, sandbox_id: UUID, context: int) -> ContextInfo:
        """Return one context."""
        async with self._at(caller, sandbox_id, wakes=False) as knock:
            return await self.door.contexts.get(knock, context)

    @asynccontextmanager
    async def run_code(
        self,
        caller: Caller,
        sandbox_id: UUID,
        context: int,
        code: str,
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RunStream]:
        """Run code in a context, once it is its turn; interrupt it if this ends early."""
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.contexts.run(knock, context, code, env=env, timeout_s=timeout_s) as stream,
        ):
            yield stream

    async def interrupt(self, caller: Caller, sandbox_id: UUID, context: int) -> None:
        """Interrupt what runs in a context."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.contexts.interrupt(knock, context)

    async def restart(self, caller: Caller, sandbox_id: UUID, context: int) -> ContextInfo:
        """Give a context a new interpreter; return once that takes code."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.contexts.restart(knock, context)

    async def close_context(self, caller: Caller, sandbox_id: UUID, context: int) -> None:
        """End a context with everything that it has started."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.contexts.close(knock, context)

    async def metrics(self, caller: Caller, sandbox_id: UUID) -> SandboxMetrics:
        """Return what the sandbox uses now."""
        async with self._at(caller, sandbox_id, wakes=False) as knock:
            return await self.door.metrics(knock)

    async def series(self, caller: Caller, sandbox_id: UUID) -> SeriesReply:
        """Return what the sandbox has used for the last hour, a sample each few seconds."""
        async with self._at(caller, sandbox_id, wakes=False) as knock:
            return await self.door.series(knock)

    @asynccontextmanager
    async def read_file(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> AsyncIterator[FileStream]:
        """Read a regular file, or a part of it."""
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.read_file(knock, path, offset=offset, length=length) as stream,
        ):
            yield stream

    async def write_file(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        chunks: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> FileEntry:
        """Write a file as a whole: until all bytes are there, it stays as it was."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.write_file(knock, path, chunks, mode=mode, parents=parents)

    async def list_files(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        *,
        depth: int = 1,
        most: int = 10_000,
    ) -> FileListing:
        """Return what is in a folder, and below it down to `depth`."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.list_files(knock, path, depth=depth, most=most)

    async def stat_file(self, caller: Caller, sandbox_id: UUID, path: str) -> FileEntry:
        """Return a file, folder or link as it is now."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.stat_file(knock, path)

    async def make_folder(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        *,
        mode: int = 0o755,
        parents: bool = True,
    ) -> FileEntry:
        """Make a folder; with `parents`, it may exist already."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.make_folder(knock, path, mode=mode, parents=parents)

    async def move_file(
        self,
        caller: Caller,
        sandbox_id: UUID,
        source: str,
        target: str,
        *,
        replace: bool = False,
    ) -> FileEntry:
        """Rename a file, folder or link."""
        async with self._at(caller, sandbox_id) as knock:
            return await self.door.move_file(knock, source, target, replace=replace)

    async def remove_file(
        self, caller: Caller, sandbox_id: UUID, path: str, *, recursive: bool = False
    ) -> None:
        """Remove a file, link or folder."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.remove_file(knock, path, recursive=recursive)

    @asynccontextmanager
    async def watch_files(
        self, caller: Caller, sandbox_id: UUID, path: str, *, recursive: bool = True
    ) -> AsyncIterator[WatchStream]:
        """Watch a folder: reports what changes from the beginning of the context on."""
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.watch_files(knock, path, recursive=recursive) as stream,
        ):
            yield stream

    @asynccontextmanager
    async def pack_folder(
        self, caller: Caller, sandbox_id: UUID, path: str
    ) -> AsyncIterator[ArchiveStream]:
        """Read a folder as a tar archive."""
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.pack_folder(knock, path) as stream,
        ):
            yield stream

    async def unpack_folder(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        chunks: AsyncIterable[bytes],
        *,
        parents: bool = True,
    ) -> None:
        """Write what is in a tar archive into a folder."""
        async with self._at(caller, sandbox_id) as knock:
            await self.door.unpack_folder(knock, path, chunks, parents=parents)

    @asynccontextmanager
    async def dial(self, caller: Caller, sandbox_id: UUID, port: int) -> AsyncIterator[PortStream]:
        """Connect to a port of the sandbox's loopback."""
        async with (
            self._at(caller, sandbox_id) as knock,
            self.door.dial(knock, port) as stream,
        ):
            yield stream
