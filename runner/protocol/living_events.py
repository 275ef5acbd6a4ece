"""What the supervisor of a sandbox that lives says. All of it comes from a hostile place."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, with_config

from runner.protocol.codec import STRICT, Codec
from runner.protocol.events import Alive, Count, Errno, SupervisorEvent
from runner.protocol.living import MAX_PATH, Label, Mode, StreamId

MAX_ENTRIES = 256
"""How many entries of a folder one event tells of."""
MAX_CHANGES = 256
MAX_SAID = 1024


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessStarted(SupervisorEvent):
    """Answers `start`: the program runs."""

    name = "started"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessNotStarted(SupervisorEvent):
    """Answers `start`: it could not be executed; `error` names the errno. It is forgotten."""

    name = "not_started"
    error: Errno


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessExited(SupervisorEvent):
    """The process has ended, by an exit code or by a signal; `output` bytes came of it by then."""

    name = "exited"
    exit_code: Annotated[int | None, Field(ge=0, le=255)]
    signal: Annotated[int | None, Field(ge=1, le=64)]
    output: Count

    def __post_init__(self) -> None:
        """Refuse an end without one cause."""
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("exit_code and signal must be one null, one a number")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessKnown(SupervisorEvent):
    """A process that was not forgotten. Without `ended`, it still runs."""

    name = "process"
    process: StreamId
    label: Label
    terminal: bool
    stdin: bool
    output: Count
    ended: bool
    exit_code: Annotated[int | None, Field(ge=0, le=255)]
    signal: Annotated[int | None, Field(ge=1, le=64)]

    def __post_init__(self) -> None:
        """Refuse an end without one cause, and a cause without an end."""
        if (self.exit_code is not None) + (self.signal is not None) != self.ended:
            raise ValueError("exit_code and signal must both be null, or one of them if it ended")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessesListed(SupervisorEvent):
    """Ends the list; `next_stream` is above every number used so far."""

    name = "processes"
    next_stream: StreamId


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class OutputLost(SupervisorEvent):
    """So many bytes of output, from here on, are kept no more."""

    name = "gap"
    omitted: Count


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class OutputDrained(SupervisorEvent):
    """Ends `attach`: all output up to `offset` was sent."""

    name = "drained"
    offset: Count


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder, link or something else. `target` is where a link points to."""

    path: Annotated[str, Field(max_length=MAX_PATH * 4)]
    kind: Literal["file", "folder", "link", "other"]
    size: Count
    mode: Mode
    modified_ns: Annotated[int, Field(ge=-(2**63), lt=2**63)]
    target: Annotated[str, Field(max_length=MAX_PATH * 4)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FileFound(SupervisorEvent):
    """What a path leads to, as it is now."""

    name = "found"
    entry: Entry


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FilesListed(SupervisorEvent):
    """Some of a folder's entries; their paths are absolute."""

    name = "entries"
    entries: Annotated[tuple[Entry, ...], Field(max_length=MAX_ENTRIES)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Watching(SupervisorEvent):
    """Answers `watch`: what changes from now on is told."""

    name = "watching"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Change:
    """What happened to the file or folder of that path."""

    kind: Literal["made", "written", "removed", "moved_from", "moved_to", "attributes"]
    path: Annotated[str, Field(max_length=MAX_PATH * 4)]
    folder: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FilesChanged(SupervisorEvent):
    """What has changed below a watched folder. With `lost`, there was more than is told."""

    name = "changed"
    changes: Annotated[tuple[Change, ...], Field(max_length=MAX_CHANGES)]
    lost: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Archived(SupervisorEvent):
    """Ends a stream: tar(1) has ended, by an exit code or by a signal, and this is what it said."""

    name = "archived"
    exit_code: Annotated[int | None, Field(ge=0, le=255)]
    signal: Annotated[int | None, Field(ge=1, le=64)]
    said: Annotated[str, Field(max_length=MAX_SAID)]

    def __post_init__(self) -> None:
        """Refuse an end without one cause."""
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("exit_code and signal must be one null, one a number")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Connected(SupervisorEvent):
    """Answers `dial`."""

    name = "connected"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Finished(SupervisorEvent):
    """The supervisor sends no more bytes on this stream."""

    name = "finish"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Done(SupervisorEvent):
    """Ends a stream. With `more`, there was more than was asked for.

    Also the answer to `forget`, and to `cancel` where nothing else has ended the stream before.
    """

    name = "done"
    more: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Failed(SupervisorEvent):
    """Ends a stream: it could not be done; `error` names the errno."""

    name = "failed"
    error: Errno


LIVING_EVENTS: Codec[SupervisorEvent] = Codec(
    speaker="the sandbox",
    told_by="say",
    kinds=(
        Alive,
        ProcessStarted,
        ProcessNotStarted,
        ProcessExited,
        ProcessKnown,
        ProcessesListed,
        OutputLost,
        OutputDrained,
        FileFound,
        FilesListed,
        Watching,
        FilesChanged,
        Archived,
        Connected,
        Finished,
        Done,
        Failed,
    ),
)
