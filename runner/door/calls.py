"""The API's calls at the door: one on each connection, then the messages that belong to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, with_config

from runner.door.call import MOST_ARGUMENTS, DoorCall, EndCall, Offset, Signed, Text
from runner.door.code_calls import CODE_CALLS
from runner.protocol.codec import STRICT, Codec
from runner.protocol.living import Mode, Path, StreamId, Terminal
from runner.words.sandbox import SandboxSpec

MOST_KEPT = 64 * 2**20


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class KnockCall(DoorCall):
    """The first message: the name of the call that follows, and the grant for it."""

    name = "knock"
    grant: Signed
    call: Annotated[str, Field(max_length=32)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class CreateCall(DoorCall):
    """Make the sandbox of this row live here; `started` once it takes commands.

    With `ahead`, its row is not stored yet, and will ask for a container of this spec, without
    secrets and without a way out. The node makes one ready, and waits for `stored`.
    """

    name = "create"
    ahead: SandboxSpec | None = None


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StoredCall(DoorCall):
    """Within `create`: the sandbox's row is stored."""

    name = "stored"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RefreshCall(DoorCall):
    """Read the sandbox's row again: its time or its metadata has changed."""

    name = "refresh"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class PauseCall(DoorCall):
    """Freeze every process of the sandbox."""

    name = "pause"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ResumeCall(DoorCall):
    """Thaw every process of the sandbox."""

    name = "resume"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StartCall(DoorCall):
    """Start a process: `process`; with `attach`, then like that call, from the first byte on."""

    name = "start"
    argv: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST_ARGUMENTS)]
    env: Annotated[Mapping[Text, Text], Field(max_length=MOST_ARGUMENTS)]
    cwd: Path | None
    stdin: bool
    terminal: Terminal | None
    timeout_s: Annotated[float | None, Field(gt=0, le=366 * 86_400)]
    tag: Annotated[str | None, Field(max_length=256)]
    keep_bytes: Annotated[int, Field(ge=0, le=MOST_KEPT)]
    attach: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class AttachCall(DoorCall):
    """Send a process's output from an offset on: `process`, `O`, `E`, `gap`, `ended` and `drained`.

    `D` frames are its stdin, which `finish` closes. With `wakes`, a sandbox that its use resumes is
    resumed first.
    """

    name = "attach"
    process: StreamId
    offset: Offset
    follow: bool
    wakes: bool = False


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class InputCall(DoorCall):
    """Write the `D` frames until `finish` to a process's stdin; with `close`, then close that."""

    name = "input"
    process: StreamId
    close: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class SignalCall(DoorCall):
    """Signal a process and its group; does nothing if the process has ended."""

    name = "signal"
    process: StreamId
    number: Annotated[int, Field(ge=1, le=64)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ResizeCall(DoorCall):
    """Give a process's terminal this size."""

    name = "resize"
    process: StreamId
    terminal: Terminal


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ForgetCall(DoorCall):
    """Kill a process if it runs, and discard it with its output."""

    name = "forget"
    process: StreamId


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessesCall(DoorCall):
    """Describe every process: one `process` each."""

    name = "processes"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessCall(DoorCall):
    """Describe one process; with `wait`, once it has ended."""

    name = "process"
    process: StreamId
    wait: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ReadCall(DoorCall):
    """Send a file: `file`, then `D` frames. Without `length`, up to its end."""

    name = "read"
    path: Path
    offset: Offset
    length: Offset | None


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class WriteCall(DoorCall):
    """Write the `D` frames until `finish` as a file; then `file`.

    A caller that hangs up before `finish` has written nothing.
    """

    name = "write"
    path: Path
    mode: Mode
    parents: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ListCall(DoorCall):
    """List a folder: `files`, several times; `done` says whether there are more."""

    name = "list"
    path: Path
    depth: Annotated[int, Field(ge=1, le=1000)]
    most: Annotated[int, Field(ge=1, le=1_000_000)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StatCall(DoorCall):
    """Describe one file, folder or link: `file`."""

    name = "stat"
    path: Path


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FolderCall(DoorCall):
    """Make a folder: `file`. With `parents`, also those above it, and it may exist already."""

    name = "make_folder"
    path: Path
    mode: Mode
    parents: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class MoveCall(DoorCall):
    """Rename a file, folder or link: `file`."""

    name = "move"
    source: Path
    target: Path
    replace: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RemoveCall(DoorCall):
    """Remove a file, link or folder."""

    name = "remove"
    path: Path
    recursive: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class WatchCall(DoorCall):
    """Report changes below a folder until the caller hangs up: `watching`, then `changed`."""

    name = "watch"
    path: Path
    recursive: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class PackCall(DoorCall):
    """Send what is in a folder as a tar archive: `file`, the folder's entry, then `D` frames."""

    name = "pack"
    path: Path


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class UnpackCall(DoorCall):
    """Write what is in a tar archive, the `D` frames until `finish`, into a folder; then `done`.

    With `parents`, the folder is made. What was written stays if the call fails or is given up.
    """

    name = "unpack"
    path: Path
    parents: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class DialCall(DoorCall):
    """Connect to a port of the sandbox's own loopback: `connected`, and `D` frames both ways."""

    name = "dial"
    port: Annotated[int, Field(ge=1, le=65535)]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class MetricsCall(DoorCall):
    """Report what the sandbox uses now: `metrics`."""

    name = "metrics"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class SeriesCall(DoorCall):
    """Report what the sandbox has used for the last hour: `series`."""

    name = "series"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FinishCall(DoorCall):
    """Within a call: the API sends no more bytes."""

    name = "finish"


CALLS: Codec[DoorCall] = Codec(
    speaker="the API",
    told_by="do",
    fractions=True,
    kinds=(
        KnockCall,
        CreateCall,
        StoredCall,
        EndCall,
        RefreshCall,
        PauseCall,
        ResumeCall,
        StartCall,
        AttachCall,
        InputCall,
        SignalCall,
        ResizeCall,
        ForgetCall,
        ProcessesCall,
        ProcessCall,
        *CODE_CALLS,
        ReadCall,
        WriteCall,
        ListCall,
        StatCall,
        FolderCall,
        MoveCall,
        RemoveCall,
        WatchCall,
        PackCall,
        UnpackCall,
        DialCall,
        MetricsCall,
        SeriesCall,
        FinishCall,
    ),
)
