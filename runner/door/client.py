"""The API's end of the door: an asynchronous method for each call, one connection for each use."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from runner.door import calls
from runner.door.call import AskedEnd, DoorCall, EndCall
from runner.door.calls import KnockCall
from runner.door.contexts import ContextsDoor
from runner.door.creation import Creation
from runner.door.grants import GOOD_FOR_S, Knock
from runner.door.reaching import DoorWays, Reached
from runner.door.replies import (
    AdmittedReply,
    ConnectedReply,
    DoneReply,
    FileReply,
    FilesReply,
    MetricsReply,
    ProcessReply,
    SeriesReply,
    StartedReply,
    WatchingReply,
)
from runner.door.streams import (
    ArchiveStream,
    FileListing,
    FileStream,
    OpenCall,
    PortStream,
    ProcessStream,
    WatchStream,
)
from runner.door.wire import Hung
from runner.protocol.living import Terminal
from runner.words.errors import NodeAway, NotPermitted
from runner.words.living import (
    FileEntry,
    Launch,
    ProcessInfo,
    SandboxMetrics,
    TerminalSize,
)
from runner.words.sandbox import SandboxSpec

_SILENT = "the node of this sandbox does not answer at its door"
AWAY_S = 2.0
"""A node that does not admit a call within this time counts as away, unless its host is slow."""

MAX_LISTED_BYTES = 4 * 2**20
"""Characters of all paths of one listing. Deep folders have long paths in every entry."""


class Door:
    """The doors of all nodes; a knock that names none is at the node of this host, in `folder`.

    Each method raises NodeAway if the node does not answer within `away_s` seconds, NotFound or
    SandboxEnded if the sandbox does not live there, and any other failure that the node reports.
    """

    def __init__(
        self, folder: Path, *, away_s: float = AWAY_S, certificates: Path | None = None
    ) -> None:
        """Take the folder, and where that is by which nodes on other hosts know this process."""
        self._ways = DoorWays(folder, certificates)
        self._away_s = away_s
        self.contexts = ContextsDoor(self._call)

    # ---- Life --------------------------------------------------------------------------------

    async def create(self, knock: Knock) -> datetime:
        """Have the node make the sandbox of a `starting` row; return since when it lives."""
        async with self._call(knock, calls.CreateCall()) as call:
            return (await call.expect(StartedReply)).started_at

    def create_ahead(self, knocking: Coroutine[Any, Any, Knock], spec: SandboxSpec) -> Creation:
        """Have a node make a sandbox ready whose row is about to be stored. Close the result."""
        return Creation(self._call, knocking, spec)

    async def end(self, knock: Knock, reason: AskedEnd = "killed", detail: str = "") -> None:
        """End it, whatever it is doing; return once nothing of it runs and its row is `ended`."""
        await self._short(knock, EndCall(reason, detail))

    async def refresh(self, knock: Knock) -> None:
        """Have the node read its row again."""
        await self._short(knock, calls.RefreshCall())

    async def pause(self, knock: Knock) -> None:
        """Freeze its processes."""
        await self._short(knock, calls.PauseCall())

    async def resume(self, knock: Knock) -> None:
        """Let its processes go on."""
        await self._short(knock, calls.ResumeCall())

    async def metrics(self, knock: Knock) -> SandboxMetrics:
        """Return what it uses now."""
        async with self._call(knock, calls.MetricsCall()) as call:
            return (await call.expect(MetricsReply)).metrics

    async def series(self, knock: Knock) -> SeriesReply:
        """Return what it has used for the last hour."""
        async with self._call(knock, calls.SeriesCall()) as call:
            return await call.expect(SeriesReply)

    # ---- Processes ---------------------------------------------------------------------------

    @asynccontextmanager
    async def start(
        self, knock: Knock, launch: Launch, *, attach: bool = True
    ) -> AsyncIterator[ProcessStream]:
        """Start a process. Without `attach`, `output` is empty.

        Raises FileRefused if its program cannot be executed.
        """
        asked = calls.StartCall(
            argv=launch.argv,
            env=launch.env,
            cwd=launch.cwd,
            stdin=launch.stdin,
            terminal=_terminal(launch.terminal),
            timeout_s=launch.timeout_s,
            tag=launch.tag,
            keep_bytes=launch.keep_bytes,
            attach=attach,
        )
        async with self._call(knock, asked) as call:
            started = await call.expect(ProcessReply)
            yield ProcessStream(call, started.process, 0)

    @asynccontextmanager
    async def attach(
        self,
        knock: Knock,
        process: int,
        *,
        offset: int = 0,
        follow: bool = True,
        wakes: bool = False,
    ) -> AsyncIterator[ProcessStream]:
        """Get a process's output from the byte at `offset` on; with `follow`, until it has ended.

        A gap stands for output that is no longer kept.
        """
        async with self._call(knock, calls.AttachCall(process, offset, follow, wakes)) as call:
            known = await call.expect(ProcessReply)
            yield ProcessStream(call, known.process, offset)

    async def write_stdin(
        self, knock: Knock, process: int, chunks: AsyncIterable[bytes], *, close: bool = False
    ) -> None:
        """Write to a process's stdin as fast as the process reads it."""
        async with self._call(knock, calls.InputCall(process, close)) as call:
            await call.answered(chunks, DoneReply)

    async def signal(self, knock: Knock, process: int, number: int) -> None:
        """Signal a process and its group; one that has ended stays as it is."""
        await self._short(knock, calls.SignalCall(process, number))

    async def resize(self, knock: Knock, process: int, size: TerminalSize) -> None:
        """Give a process's terminal another size."""
        await self._short(knock, calls.ResizeCall(process, Terminal(size.rows, size.columns)))

    async def forget(self, knock: Knock, process: int) -> None:
        """Kill a process if it still runs, and discard it with its output."""
        await self._short(knock, calls.ForgetCall(process))

    async def processes(self, knock: Knock) -> tuple[ProcessInfo, ...]:
        """Return every process that was not forgotten, in order of start."""
        found = []
        async with self._call(knock, calls.ProcessesCall()) as call:
            while isinstance(reply := await call.hear(), ProcessReply):
                found.append(reply.process)
        return tuple(found)

    async def process(self, knock: Knock, process: int, *, wait: bool = False) -> ProcessInfo:
        """Return one process; with `wait`, once it has ended."""
        async with self._call(knock, calls.ProcessCall(process, wait)) as call:
            return (await call.expect(ProcessReply)).process

    # ---- Files: paths are absolute, or relative to the workspace -----------------------------

    @asynccontextmanager
    async def read_file(
        self, knock: Knock, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[FileStream]:
        """Read a regular file, or a part of it. Raises FileRefused."""
        async with self._call(knock, calls.ReadCall(path, offset, length)) as call:
            found = await call.expect(FileReply)
            yield FileStream(call, found.file)

    async def write_file(
        self,
        knock: Knock,
        path: str,
        chunks: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> FileEntry:
        """Write a file as a whole: until it is all there, the old one stays. Raises FileRefused."""
        async with self._call(knock, calls.WriteCall(path, mode, parents)) as call:
            return (await call.answered(chunks, FileReply)).file

    async def list_files(
        self, knock: Knock, path: str, *, depth: int = 1, most: int = 10_000
    ) -> FileListing:
        """Return what is in a folder, and below it down to `depth`. Raises FileRefused.

        There is more than is returned, too, once its names and paths exceed MAX_LISTED_BYTES.
        """
        found: list[FileEntry] = []
        size = 0
        async with self._call(knock, calls.ListCall(path, depth, most)) as call:
            while isinstance(reply := await call.hear(), FilesReply):
                found.extend(reply.files)
                size += sum(len(each.path) + len(each.target or "") for each in reply.files)
                if size > MAX_LISTED_BYTES:
                    return FileListing(tuple(found), more=True)
        return FileListing(tuple(found), isinstance(reply, DoneReply) and reply.more)

    async def stat_file(self, knock: Knock, path: str) -> FileEntry:
        """Return a file, folder or link as it is now. Raises FileRefused."""
        return await self._file(knock, calls.StatCall(path))

    async def make_folder(
        self, knock: Knock, path: str, *, mode: int = 0o755, parents: bool = True
    ) -> FileEntry:
        """Make a folder; with `parents`, it may exist already."""
        return await self._file(knock, calls.FolderCall(path, mode, parents))

    async def move_file(
        self, knock: Knock, source: str, target: str, *, replace: bool = False
    ) -> FileEntry:
        """Rename a file, folder or link. Raises FileRefused."""
        return await self._file(knock, calls.MoveCall(source, target, replace))

    async def remove_file(self, knock: Knock, path: str, *, recursive: bool = False) -> None:
        """Remove a file, link or folder. Raises FileRefused."""
        await self._short(knock, calls.RemoveCall(path, recursive))

    @asynccontextmanager
    async def watch_files(
        self, knock: Knock, path: str, *, recursive: bool = True
    ) -> AsyncIterator[WatchStream]:
        """Watch a folder: reports what changes from the beginning of the context on."""
        async with self._call(knock, calls.WatchCall(path, recursive)) as call:
            await call.expect(WatchingReply)
            yield WatchStream(call)

    # ---- Folders as tar archives -------------------------------------------------------------

    @asynccontextmanager
    async def pack_folder(self, knock: Knock, path: str) -> AsyncIterator[ArchiveStream]:
        """Read a folder as a tar archive, which is as hostile as the sandbox. Raises FileRefused.

        Processes go on meanwhile, so that it may hold a file before and one after their changes.
        """
        async with self._call(knock, calls.PackCall(path)) as call:
            await call.expect(FileReply)
            yield ArchiveStream(call)

    async def unpack_folder(
        self, knock: Knock, path: str, chunks: AsyncIterable[bytes], *, parents: bool = True
    ) -> None:
        """Write what is in a tar archive into a folder; what was written stays if this fails.

        Raises FileRefused, and Invalid for bytes that are no archive.
        """
        async with self._call(knock, calls.UnpackCall(path, parents)) as call:
            await call.answered(chunks, DoneReply)

    # ---- Ports -------------------------------------------------------------------------------

    @asynccontextmanager
    async def dial(self, knock: Knock, port: int) -> AsyncIterator[PortStream]:
        """Connect to a port of its loopback. Raises FileRefused, for instance if nobody listens."""
        async with self._call(knock, calls.DialCall(port)) as call:
            await call.expect(ConnectedReply)
            yield PortStream(call)

    # ---- One call ----------------------------------------------------------------------------

    async def _short(self, knock: Knock, asked: DoorCall) -> None:
        async with self._call(knock, asked) as call:
            await call.expect(DoneReply)

    async def _file(self, knock: Knock, asked: DoorCall) -> FileEntry:
        async with self._call(knock, asked) as call:
            return (await call.expect(FileReply)).file

    @asynccontextmanager
    async def _call(self, knock: Knock, asked: DoorCall) -> AsyncIterator[OpenCall]:
        try:
            async with asyncio.timeout(self._away_s):
                reached = await self._ways.reach(knock.door)
        except (OSError, TimeoutError) as error:
            raise NodeAway(_SILENT) from error
        try:
            call = OpenCall(reached.line)
            await self._admitted(reached, call, knock, asked)
            yield call
        finally:
            # Nobody is left to hear what the node has yet to say.
            reached.line.abort()

    async def _admitted(
        self, reached: Reached, call: OpenCall, knock: Knock, asked: DoorCall
    ) -> None:
        # It must not expire while the node is still waited for.
        grant = reached.sign(knock, asked.name, max(GOOD_FOR_S, self._away_s))
        try:
            async with asyncio.timeout(self._away_s):
                with suppress(Hung):
                    await reached.line.tell(KnockCall(grant, asked.name))
                    await reached.line.tell(asked)
                # Even if it has hung up: it may have said why before that.
                await call.expect(AdmittedReply)
        except TimeoutError as error:
            raise NodeAway(_SILENT) from error
        except NotPermitted as error:
            # The node may have made a new key. The caller did nothing wrong.
            self._ways.doubt(knock.door)
            raise NodeAway(f"the node refused our grant: {error.detail}") from error


def _terminal(size: TerminalSize | None) -> Terminal | None:
    return None if size is None else Terminal(size.rows, size.columns)
