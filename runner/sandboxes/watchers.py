"""Watched folders whose changes wait, in this process, until somebody asks for them.

A watcher that nobody asks for `FORGOTTEN_S` seconds ends. It also ends with its sandbox, and with
this process: then nobody knows its id any more.
"""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

from runner.auth.caller import Caller
from runner.door.streams import FileChanges
from runner.sandboxes.use import Using
from runner.words.errors import Conflict, NotFound, Overloaded
from runner.words.living import ChangeKind, FileChange

FORGOTTEN_S = 600.0
MOST = 2000
"""How many there may be in this process."""
MOST_OF_TENANT = 256
"""How many there may be in all sandboxes of one tenant."""
MOST_IN_ONE = 32
"""How many there may be in one sandbox."""
MOST_WAITING = 4096
"""How many changes wait; further ones are lost, and the loss is reported."""
MOST_BYTES = 2**20
"""How many bytes of changes wait for one watcher."""
MOST_BYTES_OF_TENANT = 16 * 2**20
"""How many wait for all watchers of one tenant."""
MOST_BYTES_IN_ALL = 256 * 2**20
"""How many wait in this process."""
CHANGE_BYTES = 128
"""The bytes that a change takes beside its path."""


class TooManyWatchers(Conflict):
    """The sandbox, or its tenant, has as many watchers as it may have."""


@dataclass(frozen=True, slots=True)
class WatcherReport:
    """The changes that a watcher has seen below `path`; `described` is its maker's choice."""

    path: str
    described: bool
    changes: FileChanges


class _Memory:
    """The bytes of changes that wait in this process, by tenant."""

    def __init__(self) -> None:
        self._held: Counter[UUID] = Counter()
        self._total = 0

    def take(self, tenant: UUID, size: int) -> bool:
        """Take room for so many bytes, if the tenant and the process have it."""
        fits = (
            self._held[tenant] + size <= MOST_BYTES_OF_TENANT
            and self._total + size <= MOST_BYTES_IN_ALL
        )
        if fits:
            self._held[tenant] += size
            self._total += size
        return fits

    def give_back(self, tenant: UUID, size: int) -> None:
        """Give room back."""
        self._total -= size
        self._held[tenant] -= size
        if not self._held[tenant]:
            del self._held[tenant]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A change that waits. Its path is UTF-8: as a string, each character may take four bytes."""

    kind: ChangeKind
    path: bytes
    folder: bool

    @classmethod
    def of(cls, change: FileChange) -> Self:
        return cls(change.kind, change.path.encode(errors="surrogatepass"), change.folder)

    @property
    def size(self) -> int:
        return CHANGE_BYTES + len(self.path)

    def change(self) -> FileChange:
        return FileChange(self.kind, self.path.decode(errors="surrogatepass"), self.folder)


@dataclass(slots=True)
class _Watcher:
    caller: Caller
    sandbox_id: UUID
    path: str
    described: bool
    ready: asyncio.Future[None]
    memory: _Memory
    changes: deque[_Waiting] = field(default_factory=deque)
    size: int = 0
    lost: bool = False
    failure: Exception | None = None
    until: asyncio.Timeout | None = None

    def take(self, seen: FileChanges) -> None:
        """Keep changes while there is room."""
        self.lost |= seen.lost
        for each in seen.changes:
            if not self._keep(_Waiting.of(each)):
                self.lost = True
                return

    def _keep(self, change: _Waiting) -> bool:
        if len(self.changes) >= MOST_WAITING or self.size + change.size > MOST_BYTES:
            return False
        if not self.memory.take(self.caller.tenant_id, change.size):
            return False
        self.changes.append(change)
        self.size += change.size
        return True

    def drop(self) -> None:
        """Keep nothing any longer."""
        self.memory.give_back(self.caller.tenant_id, self.size)
        self.changes.clear()
        self.size = 0

    def ask(self) -> WatcherReport:
        """Return what waits. Raises the reason why the folder is no longer watched."""
        if self.until is not None and not self.until.expired():
            self.until.reschedule(asyncio.get_running_loop().time() + FORGOTTEN_S)
        if self.failure is not None and not self.changes:
            raise self.failure
        found = FileChanges(tuple(each.change() for each in self.changes), self.lost)
        self.drop()
        self.lost = False
        return WatcherReport(self.path, self.described, found)


class Watchers:
    """The watchers of this process. It is a context: they end with it."""

    def __init__(self, using: Using) -> None:
        self._using = using
        self._known: dict[str, _Watcher] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._in_sandbox: Counter[UUID] = Counter()
        self._of_tenant: Counter[UUID] = Counter()
        self._memory = _Memory()

    async def __aenter__(self) -> Self:
        """Begin without any."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    async def begin(
        self,
        caller: Caller,
        sandbox_id: UUID,
        path: str,
        *,
        recursive: bool,
        described: bool = False,
    ) -> str:
        """Watch a folder; return the watcher's id once it sees every change.

        Raises what `Using.watch_files` raises, TooManyWatchers if the sandbox or its tenant has
        too many, and Overloaded if this process has.
        """
        if self._in_sandbox[sandbox_id] >= MOST_IN_ONE:
            raise TooManyWatchers(
                f"this sandbox has {MOST_IN_ONE} watchers: remove one of them first"
            )
        if self._of_tenant[caller.tenant_id] >= MOST_OF_TENANT:
            raise TooManyWatchers(
                f"this tenant has {MOST_OF_TENANT} watchers: remove one of them first"
            )
        if len(self._known) >= MOST:
            raise Overloaded("there are too many watchers; try again later", retry_after_s=60)
        ready = asyncio.get_running_loop().create_future()
        watcher = _Watcher(caller, sandbox_id, path, described, ready, self._memory)
        name = f"w{uuid4().hex}"
        self._known[name] = watcher
        self._in_sandbox[sandbox_id] += 1
        self._of_tenant[caller.tenant_id] += 1
        task = asyncio.create_task(self._watch(watcher, recursive=recursive))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._forget(name))
        try:
            await watcher.ready
        except BaseException:
            task.cancel()
            raise
        return name

    def seen(self, caller: Caller, sandbox_id: UUID, name: str) -> WatcherReport:
        """Return what has changed since the last time. Raises NotFound, and why it has failed."""
        return self._find(caller, sandbox_id, name).ask()

    async def end(self, caller: Caller, sandbox_id: UUID, name: str) -> None:
        """End a watcher. Raises NotFound."""
        self._find(caller, sandbox_id, name)
        task = self._tasks[name]
        task.cancel()
        await asyncio.wait({task})

    def _find(self, caller: Caller, sandbox_id: UUID, name: str) -> _Watcher:
        found = self._known.get(name)
        if (
            found is None
            or found.sandbox_id != sandbox_id
            or found.caller.tenant_id != caller.tenant_id
        ):
            raise NotFound("there is no such watcher in this sandbox, or it has ended")
        return found

    def _forget(self, name: str) -> None:
        watcher = self._known.pop(name)
        del self._tasks[name]
        watcher.drop()
        for counter, key in (
            (self._in_sandbox, watcher.sandbox_id),
            (self._of_tenant, watcher.caller.tenant_id),
        ):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    async def _watch(self, watcher: _Watcher, *, recursive: bool) -> None:
        """Gather changes until nobody asks for them any more."""
        try:
            async with asyncio.timeout(FORGOTTEN_S) as watcher.until:
                try:
                    await self._gather(watcher, recursive=recursive)
                except Exception as error:  # noqa: BLE001 - whoever waits or asks gets it
                    if not watcher.ready.done():
                        watcher.ready.set_exception(error)
                        return
                    watcher.failure = error
                if watcher.failure is None:
                    watcher.failure = Conflict("the folder is no longer watched")
                # Whoever asks learns why.
                await asyncio.Event().wait()
        except TimeoutError:
            return
        finally:
            watcher.ready.cancel()

    async def _gather(self, watcher: _Watcher, *, recursive: bool) -> None:
        async with self._using.watch_files(
            watcher.caller, watcher.sandbox_id, watcher.path, recursive=recursive
        ) as stream:
            watcher.ready.set_result(None)
            async for seen in stream.changes():
                watcher.take(seen)
