"""A sandbox that lives, what a client does in it, and the results. Plain frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

from runner.words.execution import JSON, Stream
from runner.words.lives import EndReason, Life, OnShortage, OnTimeout
from runner.words.resources import Resources
from runner.words.sandbox import Isolation, SandboxSpec

FileKind: TypeAlias = Literal["file", "folder", "link", "other"]
Language: TypeAlias = Literal["python", "javascript", "bash"]
ContextState: TypeAlias = Literal["idle", "running", "ended"]
ChangeKind: TypeAlias = Literal[
    "made", "written", "removed", "moved_from", "moved_to", "attributes"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRequest:
    """A sandbox that a client asked for: resources are numbers, the image is a known name."""

    spec: SandboxSpec
    size: str
    egress: tuple[Mapping[str, JSON], ...] = ()
    """Rules as `runner.egress.policy` writes them; empty means no way out at all."""
    egress_policy: str | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by the names of the secrets that they hold."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    timeout_s: float | None = None
    """How long it lives from now on; None if it lives until somebody ends it."""
    on_timeout: OnTimeout = OnTimeout.KILL
    auto_resume: bool = False
    """Whether its use resumes it if it is paused."""
    on_shortage: OnShortage = OnShortage.KEEP
    max_life_s: float | None = None
    """How long it may live in all, however often its time is set again."""
    workdir: str | None = None
    """The folder in which its processes start unless they name one; None for the home."""
    user: str | None = None
    """Its processes' user, if its template names one; None for the image's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSandbox:
    """A sandbox that lives or has lived, as stored."""

    id: UUID
    tenant_id: UUID
    state: Life
    reason: EndReason | None
    detail: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    timeout_s: float | None
    on_timeout: OnTimeout
    auto_resume: bool
    lives_until: datetime | None
    project: str | None
    image: str
    size: str
    resources: Resources
    isolation: Isolation
    egress: tuple[Mapping[str, JSON], ...]
    egress_policy: str | None
    env: Mapping[str, str] = field(repr=False)
    secret_env: Mapping[str, str]
    metadata: Mapping[str, str]
    created_by: str
    filling: bool = False
    """Whether the files that it begins with are still being put in it."""
    builds: bool = False
    """Whether a template is built in it, by root."""
    on_shortage: OnShortage = OnShortage.KEEP
    kept_as: UUID | None = None
    """The snapshot that holds its files, if it was evicted."""
    workdir: str | None = None
    """The folder in which its processes start unless they name one; None for the home."""
    user: str | None = None
    """Its processes' user, if its template names one; None for the image's own."""

    @property
    def spec(self) -> SandboxSpec:
        """The spec from which it is made."""
        return SandboxSpec(self.image, self.resources, self.isolation, self.builds)

    @property
    def was_never_whole(self) -> bool:
        """Whether it ended before it had taken commands with all its files in it."""
        return self.state is Life.ENDED and (self.started_at is None or self.filling)


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """The size of a terminal, in characters."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A process to start. Without `timeout_s`, it may run for as long as its sandbox lives."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    stdin: bool = False
    """Whether its stdin can be written to; otherwise it is empty."""
    terminal: TerminalSize | None = None
    timeout_s: float | None = None
    tag: str | None = None
    keep_bytes: int = 2**20
    """How many of the last bytes of its output are kept for reading again."""


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """The end of a process: with an exit code or by a signal; a timeout ends it by a signal."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    output_bytes: int
    """How much it has written, to stdout and stderr together."""


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process in a sandbox, as it is now. No number is used twice in one sandbox."""

    number: int
    argv: tuple[str, ...]
    tag: str | None
    terminal: bool
    stdin: bool
    started_at: datetime
    output_bytes: int
    ended_at: datetime | None = None
    end: ProcessEnd | None = None


@dataclass(frozen=True, slots=True)
class ContextInfo:
    """An interpreter in a sandbox that keeps its variables. Its number is that of its process."""

    number: int
    language: Language
    cwd: str
    state: ContextState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OutputPiece:
    """Bytes that a process wrote, from `offset` on. Offsets count both outputs together."""

    stream: Stream
    offset: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutputGap:
    """Bytes that a process wrote, from `offset` on, and that are no longer kept."""

    offset: int
    omitted: int


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file, folder, link or something else in a sandbox. `target` is where a link points to."""

    path: str
    kind: FileKind
    size: int
    mode: int
    modified_at: datetime
    target: str | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """A change of a file or folder below a watched folder."""

    kind: ChangeKind
    path: str
    folder: bool


@dataclass(frozen=True, slots=True)
class SandboxMetrics:
    """The resources that a sandbox uses. None for what the host does not report."""

    cpu_s: float | None
    """Processor time since it was made."""
    memory_bytes: int | None
    memory_peak_bytes: int | None
    pids: int | None
    processes: int = 0
    """How many of the processes run that were started through the API."""
    disk_bytes: int | None = None
    """In its workspace and below `/tmp`."""
    egress_bytes_up: int = 0
    """Through its way out, since this process of its node has held it."""
    egress_bytes_down: int = 0
    port_bytes_in: int = 0
    """Through its ports, to servers inside, since this process of its node has held it."""
    port_bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class MetricsPoint:
    """The resources that a sandbox used at a moment."""

    at: datetime
    used: SandboxMetrics
