"""The node's answers at the door. A call ends with `done` or `failed`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import ClassVar, Final

from pydantic import with_config

from runner.protocol.codec import STRICT, Codec
from runner.words import errors
from runner.words.errors import RunnerError
from runner.words.living import (
    ContextInfo,
    FileChange,
    FileEntry,
    MetricsPoint,
    ProcessEnd,
    ProcessInfo,
    SandboxMetrics,
)


@dataclass(frozen=True, slots=True)
class Reply:
    """Something that the node answers."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class AdmittedReply(Reply):
    """Answers `knock` at once: the grant is good, and the call is under way."""

    name = "admitted"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class StartedReply(Reply):
    """The sandbox takes commands, since this moment by the database's clock."""

    name = "started"
    started_at: datetime


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProcessReply(Reply):
    """A process as it is now."""

    name = "process"
    process: ProcessInfo


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class GapReply(Reply):
    """From here on, this many bytes of output are no longer kept."""

    name = "gap"
    omitted: int


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class EndedReply(Reply):
    """The process has ended, and all that it wrote before was sent."""

    name = "ended"
    end: ProcessEnd


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class DrainedReply(Reply):
    """All output up to this offset was sent."""

    name = "drained"
    offset: int


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ContextReply(Reply):
    """A context as it is now."""

    name = "context"
    context: ContextInfo


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ValueReply(Reply):
    """One kind of a result; its bytes follow, as text in UTF-8. With `json`, that is JSON."""

    name = "value"
    mime: str
    json: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ResultReply(Reply):
    """Ends a result. With `truncated`, a part of it is no longer kept."""

    name = "result"
    main: bool
    truncated: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RaisedReply(Reply):
    """The code has failed."""

    name = "raised"
    error: str
    value: str
    traceback: str


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class RunEndedReply(Reply):
    """The run has ended. If its interpreter is `gone`, that has ended, too, and how."""

    name = "run_ended"
    count: int | None
    exit_code: int
    signal: int | None
    timed_out: bool
    gone: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FileReply(Reply):
    """A file, folder or link as it is now."""

    name = "file"
    file: FileEntry


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FilesReply(Reply):
    """Some of a folder's entries."""

    name = "files"
    files: tuple[FileEntry, ...]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class WatchingReply(Reply):
    """Changes from now on are reported."""

    name = "watching"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ChangedReply(Reply):
    """Changes below a watched folder. With `lost`, more changed than is reported."""

    name = "changed"
    changes: tuple[FileChange, ...]
    lost: bool


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ConnectedReply(Reply):
    """The port is connected."""

    name = "connected"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FinishReply(Reply):
    """The port sends no more bytes."""

    name = "finish"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class MetricsReply(Reply):
    """The resources that the sandbox uses now."""

    name = "metrics"
    metrics: SandboxMetrics


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class SeriesReply(Reply):
    """The resources that the sandbox has used, a sample each `every_s` seconds, oldest first."""

    name = "series"
    every_s: int
    points: tuple[MetricsPoint, ...]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class DoneReply(Reply):
    """Ends a call that succeeded. With `more`, there is more than was asked for."""

    name = "done"
    more: bool = False


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class FailedReply(Reply):
    """Ends a call that failed; `error` names the class of the failure."""

    name = "failed"
    error: str
    detail: str
    errno: str | None = None
    path: str | None = None
    field: str | None = None
    retry_after_s: int | None = None


REPLIES: Codec[Reply] = Codec(
    speaker="the node",
    told_by="say",
    fractions=True,
    kinds=(
        AdmittedReply,
        StartedReply,
        ProcessReply,
        GapReply,
        EndedReply,
        DrainedReply,
        ContextReply,
        ValueReply,
        ResultReply,
        RaisedReply,
        RunEndedReply,
        FileReply,
        FilesReply,
        WatchingReply,
        ChangedReply,
        ConnectedReply,
        FinishReply,
        MetricsReply,
        SeriesReply,
        DoneReply,
        FailedReply,
    ),
)

_PLAIN: Final[Mapping[str, type[RunnerError]]] = MappingProxyType(
    {
        kind.__name__: kind
        for kind in (
            errors.NotFound,
            errors.NotPermitted,
            errors.Conflict,
            errors.SandboxEnded,
            errors.NotReady,
            errors.NodeAway,
            errors.NodeStarved,
            errors.StoreUnavailable,
            errors.DockerUnavailable,
            errors.KeyUnavailable,
            errors.ImageMissing,
            errors.ImageIncompatible,
            errors.IsolationMissing,
            errors.LaunchFailed,
            errors.ProtocolViolation,
            errors.SandboxLate,
            errors.SandboxFault,
        )
    }
)
"""Failures that hold only their detail. Any other is sent as its nearest base class among these."""


def told(error: RunnerError) -> FailedReply:
    """Return the reply that reports a failure."""
    match error:
        case errors.GuestRefused(errno="ESRCH", what=what):
            return FailedReply("NotFound", f"there is no {what} in this sandbox")
        case errors.GuestRefused(errno=why, what=path):
            return FailedReply("FileRefused", error.detail, why, path)
        case errors.FileRefused(errno_name=why, path=path):
            return FailedReply("FileRefused", error.detail, why, path)
        case errors.Invalid(field=field):
            return FailedReply("Invalid", error.detail, field=field)
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in _PLAIN), "")
    return FailedReply(kind, error.detail, retry_after_s=error.retry_after_s)


def raised(reply: FailedReply) -> RunnerError:
    """Return the failure that a reply reports."""
    if reply.errno is not None:
        return errors.FileRefused(reply.errno, reply.path or "")
    if reply.field is not None:
        return errors.Invalid(reply.detail, reply.field)
    error = _PLAIN.get(reply.error, errors.SandboxFault)(reply.detail)
    error.retry_after_s = reply.retry_after_s
    return error
