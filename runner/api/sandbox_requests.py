"""Requests of clients to living sandboxes: strict types, with bounds on everything."""

import json
import signal
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from runner.api.contents import Content, TextOrContent
from runner.api.fields import EnvName, Label, Strict, Text
from runner.api.requests import (
    MAX_ENV,
    MAX_START_BYTES,
    Command,
)
from runner.sandboxes.foreground import Input
from runner.words.living import Launch, TerminalSize

MAX_TIMEOUT_S = 30 * 86_400
MAX_WAIT_S = 300
MAX_METADATA = 32
MAX_PATH = 4096
MAX_CODE = 128 * 1024 - 1
"""The longest argument, in bytes (execve(2), MAX_ARG_STRLEN, without the NUL at its end)."""
MAX_OUTPUT_KB = 1024
MAX_KEEP_KB = 64 * 1024
MAX_SIGNAL = 64

RUNS: dict[str, tuple[str, ...]] = {
    "python": ("python3", "-c"),
    "bash": ("bash", "-c"),
    "javascript": ("node", "-e"),
    "typescript": ("typescript", "-e"),
}
"""By language, the command that runs code given as an argument."""

Seconds = Annotated[float, Field(ge=1, le=MAX_TIMEOUT_S)]
Metadata = Annotated[
    dict[Label, Annotated[Text, StringConstraints(max_length=512)]], Field(max_length=MAX_METADATA)
]
SandboxPath = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_PATH)]
Side = Annotated[int, Field(ge=1, le=4096)]


class WindowSize(Strict):
    """The size of a terminal, in characters."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"rows": 24, "columns": 80}]})

    rows: Side
    columns: Side

    def size(self) -> TerminalSize:
        """Return it as a plain value."""
        return TerminalSize(self.rows, self.columns)


class NewProcess(Strict):
    """A process to start: `code` in a `language`, or a `command`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"command": "ls -l | wc -l", "wait_s": 10},
                {"command": ["python3", "server.py"], "tag": "server"},
                {"language": "python", "code": "print(6 * 7)", "wait_s": 10},
            ]
        }
    )

    command: Command | None = Field(
        default=None,
        description="A list is a program and its arguments, started without a shell. A string is "
        "a line for `bash -c`.",
        examples=[["python3", "-V"], "sort in.csv | uniq -c"],
    )
    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)] | None = Field(
        default=None,
        description="Source text of at most 128 KiB. Write longer programs as files.",
    )
    language: Literal["python", "bash", "javascript", "typescript"] | None = Field(
        default=None, description="What `code` is written in; the image must have it."
    )
    cwd: SandboxPath | None = Field(
        default=None,
        description="The folder it starts in; by default its template's working directory, or "
        "`/workspace`.",
    )
    env: dict[EnvName, Annotated[Text, StringConstraints(max_length=8192)]] = Field(
        default_factory=dict,
        max_length=MAX_ENV,
        description="Environment variables, beside those of the sandbox.",
    )
    stdin: TextOrContent | None = Field(
        default=None, description="Standard input: text, or an object with `text` or `base64`."
    )
    keep_stdin_open: bool = Field(
        default=False, description="Whether more is written to its stdin later."
    )
    terminal: WindowSize | None = Field(
        default=None,
        description="Start it on a terminal of this size. Its stdin is then open, and all of its "
        "output is stdout.",
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=MAX_TIMEOUT_S)] | None = Field(
        default=None,
        description="Seconds after which it is killed, with its group. By default it may run as "
        "long as the sandbox lives.",
    )
    tag: Annotated[Text, StringConstraints(min_length=1, max_length=256)] | None = Field(
        default=None, description="Your own word for it, returned as it is."
    )
    wait_s: float = Field(
        default=0,
        ge=0,
        le=MAX_WAIT_S,
        description="Wait this long for its end, and answer with what it wrote meanwhile. It goes "
        "on if that is not long enough.",
    )
    output_kb: int = Field(
        default=256,
        ge=1,
        le=MAX_OUTPUT_KB,
        description="KiB of stdout and of stderr that the answer holds, from their beginning.",
    )
    keep_kb: int = Field(
        default=1024,
        ge=0,
        le=MAX_KEEP_KB,
        description="KiB of the end of its output that the sandbox keeps in its memory, to be read "
        "again.",
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.code is None) == (self.command is None):
            raise ValueError("give exactly one of code and command")
        if (self.code is None) != (self.language is None):
            raise ValueError("give language with code, and only with code")
        if self.code is not None and len(self.code.encode()) > MAX_CODE:
            raise ValueError(f"code exceeds {MAX_CODE} bytes: write it as a file, and run that")
        if len(json.dumps([self._argv(), self.env]).encode()) > MAX_START_BYTES:
            raise ValueError(
                f"command or code, and env, together exceed {MAX_START_BYTES} bytes as JSON"
            )
        if self.command and not self.command[0]:
            raise ValueError("command is empty")
        return self

    def launch(self) -> Launch:
        """Return the process to start."""
        return Launch(
            argv=self._argv(),
            env=self.env,
            cwd=self.cwd,
            stdin=self.stdin is not None or self.keep_stdin_open or self.terminal is not None,
            terminal=self.terminal.size() if self.terminal else None,
            timeout_s=self.timeout_s,
            tag=self.tag,
            keep_bytes=self.keep_kb * 1024,
        )

    def given(self) -> Input | None:
        """Return the bytes for its stdin."""
        close = not (self.keep_stdin_open or self.terminal)
        match self.stdin:
            case None:
                return None
            case str(text):
                return Input(text.encode(), close)
            case Content() as content:
                return Input(content.decoded(), close)

    def _argv(self) -> tuple[str, ...]:
        if self.code is not None and self.language is not None:
            return (*RUNS[self.language], self.code)
        return tuple(self.command or ())


def _signal(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return signal.Signals[given].value
    except KeyError:
        raise ValueError("must be the name of a signal, such as SIGTERM, or its number") from None


class Signalling(Strict):
    """A signal for a process and its group."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"signal": "SIGINT"}]})

    signal: Annotated[
        Annotated[int, Field(ge=1, le=MAX_SIGNAL)],
        BeforeValidator(
            _signal,
            json_schema_input_type=Annotated[str, Field(pattern=r"^SIG[A-Z0-9+-]{2,12}$")]
            | Annotated[int, Field(ge=1, le=MAX_SIGNAL)],
        ),
    ] = Field(description="Its name or its number.", examples=["SIGINT"])


class NewFolder(Strict):
    """A folder to make."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"path": "data/raw"}]})

    path: SandboxPath = Field(description="Absolute, or relative to `/workspace`.")
    parents: bool = Field(
        default=True,
        description="Make the folders above it, too; one that is there is then no failure.",
    )


class Move(Strict):
    """A new name for a file, folder or link."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": "draft.csv", "target": "data/final.csv"}]}
    )

    source: SandboxPath
    target: SandboxPath
    replace: bool = Field(default=False, description="Whether it may take the place of another.")
