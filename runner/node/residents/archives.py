"""Calls about whole folders: tar in the sandbox packs and unpacks them, as the sandbox's user."""

from runner.door import calls
from runner.door.call import DoorCall
from runner.door.grants import DoorGrant
from runner.door.replies import FileReply
from runner.node.residents.attend import Incoming, NodeLine, out_of_turn
from runner.node.residents.journal import Journal
from runner.node.residents.resident import Resident

ANSWERED = (calls.PackCall, calls.UnpackCall)


async def answer(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: DoorCall, journal: Journal
) -> None:
    """Answer one of these calls. Raises GuestRefused, Invalid, and SandboxEnded or Conflict."""
    await resident.awake()
    match call:
        case calls.PackCall():
            await _pack(line, resident, grant, call, journal)
        case calls.UnpackCall():
            await _unpack(line, resident, grant, call, journal)
        case _:
            raise out_of_turn(call)


async def _pack(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.PackCall, journal: Journal
) -> None:
    sent = 0
    try:
        async with resident.guest.archives.pack(call.path) as opened:
            await line.tell(FileReply(opened.entry))
            async for chunk in opened:
                await line.send(b"D", chunk)
                sent += len(chunk)
    finally:
        journal.files(grant, "packed", sent)


async def _unpack(
    line: NodeLine, resident: Resident, grant: DoorGrant, call: calls.UnpackCall, journal: Journal
) -> None:
    incoming = Incoming(line)
    if call.parents:
        await resident.guest.files.make_folder(call.path)
    try:
        await resident.guest.archives.unpack(call.path, incoming)
    finally:
        journal.files(grant, "unpacked", incoming.size)
