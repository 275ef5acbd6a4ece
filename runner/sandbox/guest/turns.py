"""The supervisor's turns on a stream, by the command that opened it."""

from collections.abc import Mapping
from dataclasses import dataclass

from runner.protocol.commands import Command
from runner.protocol.events import SupervisorEvent
from runner.protocol.living_commands import (
    Attach,
    Dial,
    ListFiles,
    MakeFolder,
    MoveFile,
    PackFolder,
    ReadFile,
    RemoveFile,
    StartProcess,
    StatFile,
    UnpackFolder,
    WatchFiles,
    WriteFile,
)
from runner.protocol.living_events import (
    Archived,
    Connected,
    Done,
    Failed,
    FileFound,
    FilesChanged,
    FilesListed,
    Finished,
    OutputDrained,
    OutputLost,
    ProcessExited,
    ProcessNotStarted,
    ProcessStarted,
    Watching,
)


@dataclass(frozen=True, slots=True)
class Turn:
    """The answers on a stream: these events, of which those in `last` end it, and pieces."""

    events: frozenset[type[SupervisorEvent]]
    last: frozenset[type[SupervisorEvent]]
    pieces: frozenset[bytes] = frozenset()
    takes_bytes: bool = False
    """Whether the supervisor reads bytes on it, and so grants windows."""


def _turn(
    *events: type[SupervisorEvent],
    last: tuple[type[SupervisorEvent], ...] = (Done, Failed),
    pieces: bytes = b"",
    takes_bytes: bool = False,
) -> Turn:
    kinds = frozenset(bytes([kind]) for kind in pieces)
    return Turn(frozenset((*events, *last)), frozenset(last), kinds, takes_bytes)


_FOUND = _turn(FileFound)
TURNS: Mapping[type[Command], Turn] = {
    StartProcess: _turn(
        ProcessStarted, ProcessExited, last=(ProcessNotStarted, Done), takes_bytes=True
    ),
    Attach: _turn(OutputLost, last=(OutputDrained, Done, Failed), pieces=b"OE"),
    ReadFile: _turn(FileFound, pieces=b"D"),
    WriteFile: _turn(FileFound, takes_bytes=True),
    ListFiles: _turn(FilesListed),
    StatFile: _FOUND,
    MakeFolder: _FOUND,
    MoveFile: _FOUND,
    RemoveFile: _turn(),
    WatchFiles: _turn(Watching, FilesChanged),
    PackFolder: _turn(FileFound, last=(Archived, Done, Failed), pieces=b"D"),
    UnpackFolder: _turn(FileFound, last=(Archived, Done, Failed), takes_bytes=True),
    Dial: _turn(Connected, Finished, pieces=b"D", takes_bytes=True),
}
WINDOWED = frozenset({OutputLost, FilesListed, FilesChanged})
"""The events that count against a window: any number may come. Any other may come once."""
