"""The API's answers about sandboxes that live, as plain values."""

import signal
from dataclasses import dataclass, field
from typing import Any

from agent_runner.types import Stream

MOST_KEPT = 256 * 1024


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as it was when the API was asked."""

    id: str
    state: str
    reason: str | None
    detail: str | None
    created_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None
    timeout_s: float | None
    on_timeout: str
    auto_resume: bool
    lives_until: str | None
    project: str | None
    image: str
    size: str
    limits: dict[str, float]
    isolation: str
    egress: tuple[dict[str, Any], ...]
    egress_policy: str | None
    metadata: dict[str, str]
    on_shortage: str = "keep"
    kept_as: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state == "ended"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """The files of a sandbox's workspace, kept."""

    id: str
    name: str | None
    metadata: dict[str, str]
    sandbox: str
    created_at: str
    expires_at: str | None
    size_bytes: int
    sha256: str
    image: str
    size: str
    limits: dict[str, float]
    isolation: str


@dataclass(frozen=True, slots=True)
class TemplateInfo:
    """The image that sandboxes are made from, once `state` is `ready`."""

    id: str
    name: str
    tag: str
    image: str
    """The name of exactly this one for `sandboxes.create(image=…)`."""
    state: str
    detail: str | None
    base: str
    steps: int
    env: dict[str, str]
    size_bytes: int | None
    sha256: str | None
    created_by: str
    created_at: str
    ended_at: str | None
    start: str | None = None
    """The command that begins in each of its sandboxes."""
    ready: str | None = None
    """The command that succeeds once one of them is ready."""
    ready_s: int | None = None
    """How many seconds `ready` has."""
    tags: tuple[str, ...] = ()
    """The tags of its name that stand for it now."""
    public: bool = False
    """Whether it is everybody's."""
    sandbox_limits: dict[str, float] = field(default_factory=dict)
    """Resources of its sandboxes that differ from the default size's."""
    workdir: str | None = None
    """The folder in which processes of its sandboxes start; None for the home."""
    user: str | None = None
    """The user of its sandboxes; None for the base's own."""


@dataclass(frozen=True, slots=True)
class TemplateTag:
    """A tag of a name, the template that it stands for, and since when."""

    tag: str
    template_id: str
    assigned_at: str


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """Some of what the build of a template wrote."""

    seq: int
    at: str
    text: str


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process as it was when the API was asked."""

    process: int
    state: str
    command: tuple[str, ...]
    tag: str | None
    terminal: bool
    stdin: bool
    started_at: str
    ended_at: str | None
    exit_code: int | None
    signal: str | None
    timed_out: bool
    output_bytes: int

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state == "ended"


@dataclass(frozen=True, slots=True)
class Started:
    """A process that was started, with its output during the wait."""

    info: ProcessInfo
    stdout: Stream | None
    stderr: Stream | None
    next_offset: int


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended, with the beginning of its output."""

    process: int
    exit_code: int | None
    signal: str | None
    timed_out: bool
    stdout: Stream
    stderr: Stream

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.exit_code == 0

    @property
    def status(self) -> int:
        """Its exit code as a shell tells it: 128 + n if signal n ended it."""
        return _status(self.exit_code, self.signal)


@dataclass(frozen=True, slots=True)
class OutputEvent:
    """A piece of a process's output, a gap in it, or its end.

    `kind` is `stdout`, `stderr`, `gap` or `ended`. Later output begins at `next_offset`.
    """

    kind: str
    next_offset: int
    raw: bytes
    omitted_bytes: int = 0
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool = False

    @property
    def status(self) -> int:
        """The exit code that it tells, as a shell does: 128 + n if signal n ended the process."""
        return _status(self.exit_code, self.signal)


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """Something that happened to a sandbox or in it; `data` has `at` and what its kind tells."""

    id: str
    kind: str
    data: dict[str, Any]

    @property
    def is_end(self) -> bool:
        """Whether the sandbox has ended with it."""
        return self.kind == "life" and self.data.get("state") == "ended"


@dataclass(frozen=True, slots=True)
class PortInfo:
    """A port of a sandbox that is open for callers without an API key."""

    port: int
    public: bool
    url: str
    opened_by: str
    opened_at: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class OpenedPort(PortInfo):
    """A port that was just opened, with its token; a public one has none."""

    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """An address by which anybody reads or writes one file; treat it as a secret."""

    url: str = field(repr=False)
    path: str
    operation: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, folder or link in a sandbox."""

    path: str
    kind: str
    size: int
    mode: str
    modified_at: str
    target: str | None


@dataclass(frozen=True, slots=True)
class FileChanges:
    """Changes below a watched folder; with `lost`, more than these."""

    changes: tuple[dict[str, Any], ...]
    lost: bool


class Kept:
    """The first bytes of an output that could be had, and how much there was of it."""

    def __init__(self, most: int, begun: Stream | None = None) -> None:
        self._most = most
        self._raw = bytearray(begun.raw if begun else b"")
        self._total = begun.total_bytes if begun else 0
        self._is_open = self._total == len(self._raw)
        """Whether the next bytes follow on those that are kept, or are the first ones."""
        self._began_late = False

    def take(self, raw: bytes) -> None:
        """Count bytes, and keep them while there is room."""
        self._total += len(raw)
        if self._is_open:
            kept = raw[: max(0, self._most - len(self._raw))]
            self._raw += kept
            self._is_open = len(kept) == len(raw)

    def lose(self, size: int) -> None:
        """Count bytes that may have been its own and nobody has any more.

        If it lost its beginning, what follows is kept; otherwise nothing after them.
        """
        self._total += size
        if size and self._raw:
            self._is_open = False
        elif size:
            self._began_late = True

    @property
    def stream(self) -> Stream:
        """Return it as it is now."""
        omitted = self._total - len(self._raw)
        return Stream(
            raw=bytes(self._raw),
            truncated=omitted > 0,
            total_bytes=self._total,
            omitted_bytes=omitted,
            omitted_at=(0 if self._began_late else len(self._raw)) if omitted else None,
        )


def _status(exit_code: int | None, name: str | None) -> int:
    if exit_code is not None:
        return exit_code
    # Real-time signals have no names: the API calls them SIG and their number.
    name = name or "SIG0"
    return 128 + (signal.Signals.__members__.get(name) or int(name.removeprefix("SIG")))
