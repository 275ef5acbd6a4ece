"""Code contexts, and the results of code that runs in one, as plain values."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from httpx_sse import ServerSentEvent

from agent_runner.answers import Answer, EventAnswer, items, made
from agent_runner.living import Kept

BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")
CHART = "application/vnd.runner.chart+json"
DATA = "application/vnd.runner.data+json"
KIB = 1024
MOST_OF_OUTPUT = 16 * 2**20
"""How many bytes of stdout, and of stderr, a run keeps unless its caller wants more."""
MOST_OF_RESULTS = 64 * 2**20
"""How many bytes of JSON the results of a run may have together."""
_RESULT = 256
"""The bytes of a result besides its JSON."""


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """A context as it was when the API was asked."""

    context: int
    language: str
    cwd: str
    state: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Result:
    """A value that code has, or displays, in each kind that it has, by media type."""

    data: Mapping[str, Any]
    is_main: bool
    """Whether it is the value of the code's last line."""
    truncated: bool = False

    @property
    def text(self) -> str | None:
        """As plain text."""
        return self.data.get("text/plain")

    @property
    def chart(self) -> dict[str, Any] | None:
        """The content of a figure of matplotlib, as data."""
        return self.data.get(CHART)

    @property
    def frame(self) -> dict[str, Any] | None:
        """A data frame of pandas: `columns` by name, and how many `rows` it has."""
        return self.data.get(DATA)

    def raw(self, kind: str) -> bytes:
        """Return its bytes in a kind, such as `image/png`. Raises KeyError if it has none."""
        value = self.data[kind]
        if kind in BINARY:
            return base64.b64decode(value)
        return (value if isinstance(value, str) else json.dumps(value)).encode()


@dataclass(frozen=True, slots=True)
class CodeError:
    """An error that code raised and did not handle."""

    name: str
    value: str
    traceback: str


@dataclass(frozen=True, slots=True)
class RunEvent:
    """An event of a run: `stdout`, `stderr`, `result`, `error`, `gap` or `ended`."""

    kind: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class Run:
    """A run that has ended, and what happened in it."""

    stdout: str = ""
    stderr: str = ""
    results: list[Result] = field(default_factory=list)
    error: CodeError | None = None
    ok: bool = False
    execution_count: int | None = None
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool = False
    context_ended: bool = False
    """Whether its interpreter has ended, with all of its variables."""
    omitted_bytes: int = 0
    """How much of its output and results is missing: not read in time, or more than is kept."""

    @property
    def text(self) -> str | None:
        """The value of the code's last line, as plain text."""
        return next((each.text for each in self.results if each.is_main), None)


class Gathering:
    """The sum of a run's events: its output and results, as far as they are kept."""

    def __init__(self, most: int) -> None:
        self.run = Run()
        """The facts so far, without its output."""
        self._kept = {"stdout": Kept(most), "stderr": Kept(most)}
        self._room = MOST_OF_RESULTS

    def write(self, stream: str, text: str) -> None:
        """Take what it has written to `stdout` or `stderr`; keep the first of it."""
        self._kept[stream].take(text.encode(errors="replace"))

    def show(self, result: Result) -> None:
        """Take a result. Once one is too large, later ones that are small may yet be kept."""
        size = len(json.dumps(result.data))
        if size + _RESULT > self._room:
            self.run.omitted_bytes += size
            return
        self._room -= size + _RESULT
        self.run.results.append(result)

    def end(self, told: Mapping[str, Any]) -> Run:
        """Return the run with what the API says at its end."""
        for name, kept in self._kept.items():
            # If it was cut within a character, that one is left out.
            text = bytes(kept.stream.raw).decode(errors="ignore")
            setattr(self.run, name, text)
            self.run.omitted_bytes += kept.stream.total_bytes - len(text.encode())
        for name, value in told.items():
            if name in Run.__slots__:
                setattr(self.run, name, value)
        return self.run


def _event(sent: ServerSentEvent, data: dict[str, Any]) -> RunEvent:
    return RunEvent(sent.event, data)


CONTEXT = Answer("a context", made(ContextInfo))
CONTEXTS = Answer("a list of contexts", items(made(ContextInfo)))
RUN = EventAnswer("a stream of a run", _event)
