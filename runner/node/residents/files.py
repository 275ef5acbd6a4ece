"""Calls about files. Whatever a path says, the supervisor opens it, as the sandbox's user."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from runner.base.tasks import attended
from runner.door import calls
from runner.door.call import DoorCall
from runner.door.grants import DoorGrant
from runner.door.replies import ChangedReply, DoneReply, FileReply, FilesReply, WatchingReply
from runner.node.residents.attend import Incoming, NodeLine, nothing_more, out_of_turn
from runner.node.residents.journal import Journal
from runner.node.residents.resident import Resident
from runner.sandbox.guest.filing import FolderWatch
from runner.words.living import FileChange, FileEntry

E = TypeVar("E", FileEntry, FileChange)
_TEXT = 48 * 1024
"""How much text of paths goes into one message: as JSON, a character may take twelve bytes."""


ANSWERED = (
    calls.ReadCall,
    calls.WriteCall,
    calls.ListCall,
    calls.StatCall,
    calls.FolderCall,
    calls.MoveCall,
    calls.RemoveCall,
    calls.WatchCall,
)


async def answer(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: DoorCall, journal: Journal
) -> DoneReply | None:
    """Answer one of these calls. Raises GuestRefused, and SandboxEnded or Conflict."""
    await resident.awake()
    match call:
        case calls.ReadCall():
            await _read(line, resident, grant, call, journal)
        case calls.WriteCall():
            await _write(line, resident, grant, call, journal)
        case calls.ListCall():
            return await _list(line, resident, grant, call, journal)
        case calls.StatCall():
            await line.tell(FileReply(await resident.guest.files.stat(call.path)))
        case calls.FolderCall():
            await _make_folder(line, resident, grant, call, journal)
        case calls.MoveCall():
            await _move(line, resident, grant, call, journal)
        case calls.RemoveCall():
            await resident.guest.files.remove(call.path, recursive=call.recursive)
            journal.files(grant, "removed")
        case calls.WatchCall():
            await _watch(line, resident, call)
        case _:
            raise out_of_turn(call)
    return None


async def _read(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.ReadCall, journal: Journal
) -> None:
    """Send a file's bytes."""
    sent = 0
    try:
        async with resident.guest.files.read(
            call.path, offset=call.offset, length=call.length
        ) as opened:
            await line.tell(FileReply(opened.entry))
            async for chunk in opened:
                await line.send(b"D", chunk)
                sent += len(chunk)
    finally:
        journal.files(grant, "read", sent)


async def _write(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.WriteCall, journal: Journal
) -> None:
    """Write the bytes that come until `finish`. A caller that hangs up has written nothing."""
    incoming = Incoming(line)
    entry = await resident.guest.files.write(
        call.path, incoming, mode=call.mode, parents=call.parents
    )
    journal.files(grant, "written", incoming.size)
    await line.tell(FileReply(entry))


async def _list(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.ListCall, journal: Journal
) -> DoneReply:
    """Pass on what is in a folder as it comes: nothing is gathered here."""
    async with resident.guest.files.listed(call.path, depth=call.depth, most=call.most) as listing:
        async for entries in listing:
            for some in _messages(entries):
                await line.tell(FilesReply(some))
    journal.files(grant, "listed")
    return DoneReply(more=listing.more)


async def _make_folder(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.FolderCall, journal: Journal
) -> None:
    """Make a folder."""
    entry = await resident.guest.files.make_folder(call.path, mode=call.mode, parents=call.parents)
    journal.files(grant, "made")
    await line.tell(FileReply(entry))


async def _move(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.MoveCall, journal: Journal
) -> None:
    """Rename something."""
    entry = await resident.guest.files.move(call.source, call.target, replace=call.replace)
    journal.files(grant, "moved")
    await line.tell(FileReply(entry))


async def _watch(line: NodeLine, resident: Resident, call: calls.WatchCall) -> None:
    """Report changes until the caller hangs up."""
    async with resident.guest.files.watch(call.path, recursive=call.recursive) as watching:
        await line.tell(WatchingReply())
        await attended(_changes(line, watching), nothing_more(line))


async def _changes(line: NodeLine, watching: FolderWatch) -> None:
    async for seen in watching:
        for some in _messages(seen.changes):
            await line.tell(ChangedReply(some, lost=False))
        if seen.lost:
            await line.tell(ChangedReply((), lost=True))


def _messages(things: Iterable[E]) -> Iterator[tuple[E, ...]]:
    """Yield them in groups, each of which fits into one message."""
    some: list[E] = []
    size = 0
    for each in things:
        target = each.target if isinstance(each, FileEntry) else None
        length = len(each.path) + len(target or "") + 16
        if some and size + length > _TEXT:
            yield tuple(some)
            some, size = [], 0
        some.append(each)
        size += length
    if some:
        yield tuple(some)
