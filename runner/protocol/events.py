"""Events: what a supervisor may say. All of it comes from a hostile place."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, ConfigDict, Field, with_config

from runner.protocol.codec import STRICT, Codec

MAX_PATH = 1024
"""Bytes of an artifact's name. PostgreSQL keeps it in an index, whose rows hold 2,704 bytes."""
MAX_REFUSED = 50
"""How many refused files are named."""
MAX_NAME = 200
"""Characters of a refused file's name that are told: the supervisor cuts longer ones."""
_MAX_LISTED = 100
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")

Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**53)]
Errno: TypeAlias = Annotated[str, Field(pattern=r"^E[A-Z0-9]{1,20}$")]
Names: TypeAlias = Annotated[
    tuple[Annotated[str, Field(max_length=MAX_NAME)], ...], Field(max_length=_MAX_LISTED)
]


def check_path(path: str) -> None:
    """Refuse a name that leads elsewhere; nobody must use it as a path all the same."""
    if len(path.encode()) > MAX_PATH:
        raise ValueError(f"longer than {MAX_PATH} bytes")
    if _CONTROL.search(path):
        raise ValueError("holds control characters")
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError("has a part that is empty, `.` or `..`")


def _plain_path(path: str) -> str:
    check_path(path)
    return path


ArtifactPath: TypeAlias = Annotated[
    str, Field(min_length=1, max_length=MAX_PATH), AfterValidator(_plain_path)
]
RefusedPath: TypeAlias = Annotated[str, Field(max_length=MAX_NAME)]
Why: TypeAlias = Annotated[str, Field(max_length=MAX_NAME)]


@dataclass(frozen=True, slots=True)
class SupervisorEvent:
    """Something the supervisor says."""

    name: ClassVar[str]


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Alive(SupervisorEvent):
    """Answers `ping`: the supervisor waits for commands."""

    name = "alive"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Loaded(SupervisorEvent):
    """Answers `load`: the image's list of modules is imported, except for those in `failed`."""

    name = "loaded"
    failed: Names


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Cleaned(SupervisorEvent):
    """Answers `clean`: of the last run nothing is left but the kinds of things in `left`."""

    name = "cleaned"
    left: Names


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Placed(SupervisorEvent):
    """Answers `place`: the input file is in its place."""

    name = "placed"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class NotPlaced(SupervisorEvent):
    """Answers `place`: the input file could not be written; `error` names the errno."""

    name = "not_placed"
    error: Errno


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Started(SupervisorEvent):
    """Answers `run`: the program runs."""

    name = "started"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class NotStarted(SupervisorEvent):
    """Answers `run`: the program could not be executed; `error` names the errno."""

    name = "not_started"
    error: Errno


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Counted(SupervisorEvent):
    """How many bytes each output of the program has carried so far, including those dropped."""

    name = "counted"
    stdout: Count
    stderr: Count


_ONE_CAUSE: dict[str, Any] = {
    "oneOf": [
        {"properties": {"exit_code": {"type": "integer"}, "signal": {"type": "null"}}},
        {"properties": {"exit_code": {"type": "null"}, "signal": {"type": "integer"}}},
    ]
}


@with_config(ConfigDict(**STRICT, json_schema_extra=_ONE_CAUSE))
@dataclass(frozen=True, slots=True)
class ProgramEnded(SupervisorEvent):
    """The program and everything it started are gone. It has an exit code or a signal, not both."""

    name = "ended"
    exit_code: Annotated[int | None, Field(ge=0, le=255)]
    signal: Annotated[int | None, Field(ge=1, le=64)]
    stdout: Count
    stderr: Count
    disk_full: bool

    def __post_init__(self) -> None:
        """Refuse an end without one cause."""
        if (self.exit_code is None) == (self.signal is None):
            raise ValueError("exit_code and signal must be one null, one a number")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ArtifactOffered(SupervisorEvent):
    """Answers `collect`, for each file: its `size` bytes follow in `D` frames.

    `path` is relative to the workspace, of at most 1,024 bytes, without control characters and
    without parts that are empty, `.` or `..`.
    """

    name = "artifact"
    path: ArtifactPath
    size: Count


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Collected(SupervisorEvent):
    """Answers `collect`, at the end: of the files refused, the first fifty with the reason."""

    name = "collected"
    refused: Annotated[tuple[tuple[RefusedPath, Why], ...], Field(max_length=MAX_REFUSED)]
    refused_total: Count


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class Living(SupervisorEvent):
    """Answers `live`."""

    name = "living"


EVENTS: Codec[SupervisorEvent] = Codec(
    speaker="the sandbox",
    told_by="say",
    kinds=(
        Alive,
        Loaded,
        Cleaned,
        Placed,
        NotPlaced,
        Started,
        NotStarted,
        Counted,
        ProgramEnded,
        ArtifactOffered,
        Collected,
        Living,
    ),
)
