"""Messages of E2B's clients to the daemon: protocol buffers as JSON, with bounds on everything.

The JSON mapping of protocol buffers permits both spellings of a field's name, null for an absent
field, numbers as strings, and two alphabets of base64. Unknown fields are ignored, so that a newer
client may say more than we know.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from signal import SIGKILL, SIGTERM
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.edge.json import NotStrict, read
from runner.api.fields import Text
from runner.api.requests import MAX_START_BYTES
from runner.words.living import Launch, TerminalSize

MAX_PATH = 4096
MAX_ENV = 1024
MAX_ARGUMENTS = 4000
MAX_SIDE = 4096
MAX_TIMEOUT_S = 30 * 86_400
_MAX_PID = 2**32 - 1
_MAX_SHOWN = 5
_SIGNALS = {
    "SIGNAL_SIGTERM": SIGTERM.value,
    "SIGNAL_SIGKILL": SIGKILL.value,
}

M = TypeVar("M", bound="ProtoMessage")


class ProtoMessage(BaseModel):
    """Base of every message."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


def parsed(kind: type[M], payload: bytes) -> M:
    """Return a message of this kind. Raises ConnectError."""
    try:
        return kind.model_validate(read(payload) if payload else {})
    except NotStrict as error:
        raise ConnectError(Code.INVALID_ARGUMENT, f"the message {error}") from None
    except ValidationError as error:
        raise ConnectError(Code.INVALID_ARGUMENT, _faults(error)) from None


def _faults(error: ValidationError) -> str:
    """Return what is wrong with a message, without repeating its values."""
    faults = [
        f"{'.'.join(map(str, each['loc'])) or 'message'}: {each['msg']}"
        for each in error.errors(include_input=False, include_url=False)[:_MAX_SHOWN]
    ]
    return f"the message is not valid: {'; '.join(faults)}"


def _bytes(given: object) -> object:
    if not isinstance(given, str):
        raise ValueError("must be base64")  # noqa: TRY004 - what pydantic reports as a fault
    standard = given.translate(_STANDARD)
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("must be base64") from None


_STANDARD = str.maketrans("-_", "+/")

Bytes = Annotated[bytes, BeforeValidator(_bytes)]
Path = Annotated[Text, StringConstraints(max_length=MAX_PATH)]
Tag = Annotated[Text, StringConstraints(min_length=1, max_length=256)]
EnvName = Annotated[Text, StringConstraints(pattern=r"^[^=]+$", max_length=256)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class Size(ProtoMessage):
    """A terminal's size, in characters."""

    cols: Side
    rows: Side


class Pty(ProtoMessage):
    """A terminal."""

    size: Size

    def terminal(self) -> TerminalSize:
        """Return its size as a plain value."""
        return TerminalSize(self.size.rows, self.size.cols)


class ProcessConfig(ProtoMessage):
    """A program, and what it is given."""

    cmd: Annotated[Text, StringConstraints(min_length=1)]
    args: Annotated[list[Text], Field(max_length=MAX_ARGUMENTS)] = []
    envs: Annotated[dict[EnvName, Text], Field(max_length=MAX_ENV)] = {}
    cwd: Path = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(json.dumps([self.cmd, self.args, self.envs]).encode()) > MAX_START_BYTES:
            raise ValueError(f"cmd, args and envs together exceed {MAX_START_BYTES} bytes as JSON")
        return self


class StartRequest(ProtoMessage):
    """Start a process. Without a word on its stdin, that is open, as E2B has it."""

    process: ProcessConfig
    pty: Pty | None = None
    tag: Tag | None = None
    stdin: bool = True

    def launch(self, timeout_s: float | None) -> Launch:
        """Return the process to start."""
        asked = self.process
        return Launch(
            argv=(asked.cmd, *asked.args),
            env=asked.envs,
            cwd=resolved(asked.cwd) if asked.cwd else None,
            stdin=self.stdin or self.pty is not None,
            terminal=self.pty.terminal() if self.pty else None,
            timeout_s=None if timeout_s is None else min(timeout_s, MAX_TIMEOUT_S),
            tag=self.tag,
        )


class Selector(ProtoMessage):
    """The choice of a process: by its number or by its tag."""

    pid: Annotated[int, Field(ge=0, le=_MAX_PID)] | None = None
    tag: Tag | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pid is None) == (self.tag is None):
            raise ValueError("give exactly one of pid and tag")
        return self


class ConnectRequest(ProtoMessage):
    """Follow a process from now on; with `replay`, from the oldest output that is kept."""

    process: Selector
    replay: bool = False


class ProcessInput(ProtoMessage):
    """Bytes for a process: for its stdin, or typed at its terminal."""

    stdin: Bytes | None = None
    pty: Bytes | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.stdin is None) == (self.pty is None):
            raise ValueError("give exactly one of stdin and pty")
        return self

    @property
    def typed(self) -> bool:
        """Whether they are for a terminal."""
        return self.pty is not None

    @property
    def data(self) -> bytes:
        """The bytes."""
        return self.stdin if self.stdin is not None else self.pty or b""


class SendInputRequest(ProtoMessage):
    """Write to a process."""

    process: Selector
    input: ProcessInput


class InputStart(ProtoMessage):
    """The first message of a stream of input."""

    process: Selector


class InputData(ProtoMessage):
    """A further one, with bytes."""

    input: ProcessInput


class StreamInputRequest(ProtoMessage):
    """One message of a stream of input."""

    start: InputStart | None = None
    data: InputData | None = None
    keepalive: Mapping[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if [self.start, self.data, self.keepalive].count(None) != 2:  # noqa: PLR2004 - all but one
            raise ValueError("give exactly one of start, data and keepalive")
        return self


class ProcessRequest(ProtoMessage):
    """About one process."""

    process: Selector


class UpdateRequest(ProtoMessage):
    """Give a process's terminal another size."""

    process: Selector
    pty: Pty | None = None


def _signal(given: object) -> object:
    return _SIGNALS.get(given, given) if isinstance(given, str) else given


class SendSignalRequest(ProtoMessage):
    """Signal a process."""

    process: Selector
    signal: Annotated[int, BeforeValidator(_signal)] = 0

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.signal not in _SIGNALS.values():
            raise ValueError(f"signal must be one of {', '.join(_SIGNALS)}")
        return self


class Empty(ProtoMessage):
    """Nothing is asked beyond the call itself."""


class PathRequest(ProtoMessage):
    """About one path."""

    path: Path = ""


class MoveRequest(ProtoMessage):
    """Rename a file, folder or link."""

    source: Annotated[Path, StringConstraints(min_length=1)]
    destination: Annotated[Path, StringConstraints(min_length=1)]


class ListDirRequest(PathRequest):
    """List a folder, down to a depth; 0 stands for 1."""

    depth: Annotated[int, Field(ge=0, le=_MAX_PID)] = 0


class WatchDirRequest(PathRequest):
    """Watch a folder. It lies on no network's file system, as a sandbox has none."""

    recursive: bool = False
    include_entry: bool = False


class WatcherRequest(ProtoMessage):
    """About one watcher."""

    watcher_id: Annotated[str, StringConstraints(min_length=1, max_length=64)]


def resolved(path: str) -> str:
    """Return a path as a sandbox's supervisor takes it: `~` and no path at all are its home.

    The supervisor itself begins relative paths at home. Raises ConnectError for another's home.
    """
    if not path.startswith("~"):
        return path or "."
    home, _, rest = path.partition("/")
    if home != "~":
        raise ConnectError(Code.INVALID_ARGUMENT, f"{home}: there is no home but `~`, of `user`")
    return rest.lstrip("/") or "."
