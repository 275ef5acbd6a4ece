"""What a node and the supervisor of a sandbox that lives say, once `live` has been obeyed.

Every command but those on stream 0 and those about a process opens a stream of its own: the next
number, never one used before. Everything that concerns it is on that stream, and many are open at
once. Each stream ends with one event, `done`, `failed`, `archived`, `not_started` or `drained`,
also after `cancel`; a process's stream stays until `forget`, which `done` answers, and its number
is the process's. What the node sent before it knew of a stream's end is read and means nothing.

Bytes of a stream travel in `D` frames, output in `O` and `E` frames. Each stream has a window in
each direction, `WINDOW` at first. `D`, `O` and `E` frames and the events `gap`, `entries` and
`changed` are sent only while it is above 0, and each takes its payload and `OVERHEAD` from it, also
below 0; a `W` frame of the reader adds to it. One slow reader stops nobody else. The program that
follows `start` takes nothing. On a new connection all windows of processes are whole again.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, with_config

from runner.protocol.codec import STRICT, Codec
from runner.protocol.commands import Command, Ping, Size
from runner.protocol.living import Label, Mode, Path, StreamId, Terminal

# ---- On stream 0 ---------------------------------------------------------------------------------


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ListProcesses(Command):
    """Tell of every process that was not forgotten: a `process` each, and then `processes`."""

    name = "processes"


# ---- Processes -----------------------------------------------------------------------------------


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StartProcess(Command):
    """Start the program whose `program_bytes` follow in `D` frames, as an `Invocation`.

    `started` or `not_started` answers, and `exited` follows once. Its output is kept, the last
    `keep_bytes` of it, for `attach`. Without `stdin` it reads nothing. `label` is the node's own
    word about it, which `process` gives back.
    """

    name = "start"
    program_bytes: Size
    stdin: bool
    terminal: Terminal | None
    keep_bytes: Size
    label: Label


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class CloseStdin(Command):
    """On a process's stream: no more is written to its stdin; a terminal gets its end of file."""

    name = "close_stdin"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class SignalProcess(Command):
    """On a process's stream: signal it and its group (kill(2)). Nothing if it has ended."""

    name = "signal"
    number: Annotated[int, Field(ge=1, le=64)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ResizeTerminal(Command):
    """On a process's stream: its terminal has this size from now on."""

    name = "resize"
    terminal: Terminal


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ForgetProcess(Command):
    """On a process's stream: let go of it and of its output; one that still runs is killed.

    `done` answers, and ends the stream; streams that were attached to it end as drained.
    """

    name = "forget"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Attach(Command):
    """Send a process's output from the byte at `offset` on, counted over both outputs together.

    With `follow`, until it has ended; without, what is there. `gap` tells of what is kept no more;
    `drained` is the end. While a reader keeps up, the process waits for it rather than lose output.
    Fails with ESRCH where there is no such process, with EINVAL for an offset beyond its output.
    """

    name = "attach"
    process: StreamId
    offset: Size
    follow: bool


# ---- Files ---------------------------------------------------------------------------------------


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ReadFile(Command):
    """Send a regular file's bytes: `found`, `D` frames, `done`. `length` -1 is to its end."""

    name = "read"
    path: Path
    offset: Size
    length: Annotated[int, Field(ge=-1, lt=2**53)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class WriteFile(Command):
    """Write a file, whose bytes follow until `finish`; then `found` and `done`.

    Whoever opens it sees the file before or the whole new one. With `parents`, missing folders are
    made.
    """

    name = "write"
    path: Path
    mode: Mode
    parents: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ListFiles(Command):
    """Tell of what is in a folder: `entries`, several times, and `done`. Depth 1 is itself alone.

    After `most` entries `done` says that there are more. No link is followed.
    """

    name = "list"
    path: Path
    depth: Annotated[int, Field(ge=1, le=1000)]
    most: Annotated[int, Field(ge=1, le=1_000_000)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StatFile(Command):
    """Tell of one file, folder or link: `found` and `done`."""

    name = "stat"
    path: Path


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class MakeFolder(Command):
    """Make a folder: `found` and `done`; with `parents`, those above it, too.

    With `parents`, one that is there already is no failure.
    """

    name = "make_folder"
    path: Path
    mode: Mode
    parents: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class MoveFile(Command):
    """Give a file, folder or link another name: `found` and `done`. Replaces only if told so."""

    name = "move"
    source: Path
    target: Path
    replace: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RemoveFile(Command):
    """Remove a file, link or folder: `done`. A folder that is not empty, if `recursive`."""

    name = "remove"
    path: Path
    recursive: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class WatchFiles(Command):
    """Tell of changes below a folder: `watching`, and `changed` until `cancel`."""

    name = "watch"
    path: Path
    recursive: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class PackFolder(Command):
    """Send what is in a folder as a tar archive: `found`, `D` frames, `archived`."""

    name = "pack"
    path: Path


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class UnpackFolder(Command):
    """Write what is in a tar archive, whose bytes follow until `finish`, into a folder.

    `found`, which describes the folder, and `archived`. What was written stays, whatever happens.
    """

    name = "unpack"
    path: Path


# ---- Ports, and any stream -----------------------------------------------------------------------


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Dial(Command):
    """Connect to a port of the sandbox's own loopback: `connected`, then `D` both ways.

    `finish` ends one direction, and `done` follows when both have ended.
    """

    name = "dial"
    port: Annotated[int, Field(ge=1, le=65535)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class EndOfBytes(Command):
    """The node sends no more bytes on this stream."""

    name = "finish"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Cancel(Command):
    """End this stream: `done` or what ended it before answers, and nothing comes after it."""

    name = "cancel"


LIVING_COMMANDS: Codec[Command] = Codec(
    speaker="the worker",
    told_by="do",
    kinds=(
        Ping,
        ListProcesses,
        StartProcess,
        CloseStdin,
        SignalProcess,
        ResizeTerminal,
        ForgetProcess,
        Attach,
        ReadFile,
        WriteFile,
        ListFiles,
        StatFile,
        MakeFolder,
        MoveFile,
        RemoveFile,
        WatchFiles,
        PackFolder,
        UnpackFolder,
        Dial,
        EndOfBytes,
        Cancel,
    ),
)
