"""Watchers keep what they see for whoever asks, and end when nobody does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID, uuid4

import pytest

from runner.audit.events import Origin
from runner.auth.caller import Caller
from runner.door.streams import FileChanges
from runner.sandboxes import watchers
from runner.sandboxes.use import Using
from runner.sandboxes.watchers import MOST_IN_ONE, MOST_WAITING, TooManyWatchers, Watchers
from runner.words.errors import FileRefused, NotFound, Overloaded, SandboxEnded
from runner.words.living import FileChange
from runner.words.principal import Principal, PrincipalKind, Role, Tier

SANDBOX = uuid4()


def caller(tenant: UUID) -> Caller:
    """Return a caller of a tenant."""
    principal = Principal(
        tenant_id=tenant, id=uuid4(), kind=PrincipalKind.KEY, name="k", role=Role.OWNER,
        tier=Tier.FREE,
    )  # fmt: skip
    return Caller(principal, Origin())


ME = caller(uuid4())


class Folder:
    """A folder in a sandbox: says what a test has it say, to each who watches."""

    def __init__(self) -> None:
        self.said: asyncio.Queue[FileChanges | Exception] = asyncio.Queue()
        self.watched = 0
        self.refusal: Exception | None = None

    @asynccontextmanager
    async def watch_files(self, *_: object, **__: object) -> AsyncIterator["Folder"]:
        """Watch it."""
        if self.refusal:
            raise self.refusal
        self.watched += 1
        try:
            yield self
        finally:
            self.watched -= 1

    async def changes(self) -> AsyncIterator[FileChanges]:
        """Yield what is said."""
        while True:
            said = await self.said.get()
            if isinstance(said, Exception):
                raise said
            yield said
            self.said.task_done()

    def using(self) -> Using:
        """Return it as the use cases in sandboxes, of which it has the one that is needed."""
        return cast(Using, self)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a watcher tells nobody
            await asyncio.sleep(0.01)


def changes(*names: str, lost: bool = False) -> FileChanges:
    """Return new files as changes."""
    return FileChanges(tuple(FileChange("made", each, folder=False) for each in names), lost)


async def test_what_is_seen_waits_and_is_told_once() -> None:
    folder = Folder()
    async with Watchers(folder.using()) as every:
        name = await every.begin(ME, SANDBOX, "/x", recursive=True, described=True)
        for each in ("a", "b"):
            folder.said.put_nowait(changes(each))
        await folder.said.join()
        seen = every.seen(ME, SANDBOX, name)
        assert (seen.path, seen.described) == ("/x", True)
        assert seen.changes == changes("a", "b")
        assert every.seen(ME, SANDBOX, name).changes == changes()
    assert (folder.watched, len(every)) == (0, 0)


async def test_what_does_not_fit_is_lost_and_the_loss_is_told() -> None:
    folder = Folder()
    async with Watchers(folder.using()) as every:
        name = await every.begin(ME, SANDBOX, "/x", recursive=True)
        folder.said.put_nowait(changes(*map(str, range(MOST_WAITING + 5))))
        folder.said.put_nowait(changes("later"))
        await folder.said.join()
        seen = every.seen(ME, SANDBOX, name).changes
        assert (len(seen.changes), seen.lost) == (MOST_WAITING, True)
        assert not every.seen(ME, SANDBOX, name).changes.lost


async def test_nobody_else_finds_it() -> None:
    """Not another tenant, not for another sandbox, and not once it has ended."""
    folder = Folder()
    async with Watchers(folder.using()) as every:
        name = await every.begin(ME, SANDBOX, "/x", recursive=True)
        for who, where in ((caller(uuid4()), SANDBOX), (ME, uuid4())):
            with pytest.raises(NotFound):
                every.seen(who, where, name)
            with pytest.raises(NotFound):
                await every.end(who, where, name)
        await every.end(ME, SANDBOX, name)
        assert folder.watched == 0
        with pytest.raises(NotFound):
            every.seen(ME, SANDBOX, name)


async def test_it_ends_when_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchers, "FORGOTTEN_S", 0.05)
    folder = Folder()
    async with Watchers(folder.using()) as every:
        await every.begin(ME, SANDBOX, "/x", recursive=True)
        await until(lambda: not len(every))
        assert folder.watched == 0


async def test_it_lasts_while_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    async with Watchers(folder.using()) as every:
        monkeypatch.setattr(watchers, "FORGOTTEN_S", 0.5)
        name = await every.begin(ME, SANDBOX, "/x", recursive=True)
        monkeypatch.setattr(watchers, "FORGOTTEN_S", 600.0)
        every.seen(ME, SANDBOX, name)
        await asyncio.sleep(0.7)
        assert every.seen(ME, SANDBOX, name).changes == changes()


async def test_whoever_asks_learns_why_it_has_failed() -> None:
    """After what it saw before that."""
    folder = Folder()
    async with Watchers(folder.using()) as every:
        name = await every.begin(ME, SANDBOX, "/x", recursive=True)
        folder.said.put_nowait(changes("a"))
        await folder.said.join()
        folder.said.put_nowait(SandboxEnded("it has ended"))
        await until(lambda: not folder.watched)
        assert every.seen(ME, SANDBOX, name).changes == changes("a")
        with pytest.raises(SandboxEnded):
            every.seen(ME, SANDBOX, name)


async def test_a_folder_that_cannot_be_watched_leaves_nothing() -> None:
    folder = Folder()
    folder.refusal = FileRefused("ENOENT", "/x")
    async with Watchers(folder.using()) as every:
        for _ in range(MOST_IN_ONE + 1):
            with pytest.raises(FileRefused):
                await every.begin(ME, SANDBOX, "/x", recursive=True)
            await until(lambda: not len(every))


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder()
    async with Watchers(folder.using()) as every:
        for _ in range(MOST_IN_ONE):
            await every.begin(ME, SANDBOX, "/x", recursive=True)
        with pytest.raises(TooManyWatchers):
            await every.begin(ME, SANDBOX, "/x", recursive=True)
        monkeypatch.setattr(watchers, "MOST", MOST_IN_ONE)
        with pytest.raises(Overloaded):
            await every.begin(ME, uuid4(), "/x", recursive=True)


class Seeing:
    """Watchers of sandboxes in which something happens at once."""

    def __init__(self, every: Watchers, folder: Folder) -> None:
        self.every = every
        self.folder = folder

    async def begin(self, who: Caller, seen: FileChanges) -> tuple[UUID, str]:
        """Return the sandbox and the name of a new watcher, once it has seen changes."""
        sandbox = uuid4()
        # Only the newest watcher hears what is said.
        self.folder.said = asyncio.Queue()
        name = await self.every.begin(who, sandbox, "/x", recursive=True)
        self.folder.said.put_nowait(seen)
        await self.folder.said.join()
        return sandbox, name

    def kept(self, who: Caller, watcher: tuple[UUID, str]) -> tuple[int, bool]:
        """Return how many changes a watcher has kept, and whether it lost any."""
        found = self.every.seen(who, *watcher).changes
        return len(found.changes), found.lost


@pytest.mark.parametrize("character", ["x", "\N{SNOWMAN}", "\N{PILE OF POO}", "\udc80"])
async def test_long_paths_take_bounded_memory(character: str) -> None:
    """In whatever alphabet; a path comes out as it went in."""
    path = "/" + character * (4000 // len(character.encode(errors="surrogatepass")))
    size = watchers.CHANGE_BYTES + len(path.encode(errors="surrogatepass"))
    folder = Folder()
    async with Watchers(folder.using()) as every:
        sandbox, name = await Seeing(every, folder).begin(ME, changes(*[path] * MOST_WAITING))
        found = every.seen(ME, sandbox, name).changes
        assert found == changes(*[path] * (watchers.MOST_BYTES // size), lost=True)


@pytest.mark.parametrize("bound", ["MOST_BYTES_OF_TENANT", "MOST_BYTES_IN_ALL"])
async def test_all_watchers_together_take_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    """A tenant has a bound, and so has the process. Changes that were told no longer count."""
    monkeypatch.setattr(watchers, bound, 5 * (watchers.CHANGE_BYTES + 1))
    seen, three = changes(*"abc"), (3, False)
    other = caller(uuid4())
    async with Watchers((folder := Folder()).using()) as every:
        seeing = Seeing(every, folder)
        first, second = [await seeing.begin(ME, seen) for _ in range(2)]
        theirs = await seeing.begin(other, seen)
        its_own = three if bound == "MOST_BYTES_OF_TENANT" else (0, True)
        assert seeing.kept(other, theirs) == its_own
        assert seeing.kept(ME, second) == (2, True)
        assert seeing.kept(ME, await seeing.begin(ME, changes("d", "e", "f"))) == (2, True)
        await every.end(ME, *first)
        assert seeing.kept(ME, await seeing.begin(ME, seen)) == three


async def test_a_tenant_has_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all of its sandboxes; others have their own."""
    monkeypatch.setattr(watchers, "MOST_OF_TENANT", 2)
    async with Watchers(Folder().using()) as every:
        sandboxes = [uuid4() for _ in range(3)]
        name = await every.begin(ME, sandboxes[0], "/x", recursive=True)
        await every.begin(ME, sandboxes[1], "/x", recursive=True)
        with pytest.raises(TooManyWatchers, match="tenant"):
            await every.begin(ME, sandboxes[2], "/x", recursive=True)
        await every.begin(caller(uuid4()), uuid4(), "/x", recursive=True)
        await every.end(ME, sandboxes[0], name)
        await every.begin(ME, sandboxes[2], "/x", recursive=True)
