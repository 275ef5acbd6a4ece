"""One run of one tenant's program: the request and its result.

Plain frozen values, with no behaviour beyond arithmetic on themselves.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID

from runner.words.resources import Limits, OutputKeep, RunBounds
from runner.words.sandbox import WORKSPACE, Isolation, SandboxSpec
from runner.words.states import Reason, State

JSON: TypeAlias = Any


class Stream(StrEnum):
    """One of the program's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes in the object store, under a key that we chose."""

    object_key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file placed in the workspace before the program starts; `path` is relative to it.

    Its bytes are in memory or in the object store.
    """

    path: str
    content: bytes | StoredObject = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.content.size if isinstance(self.content, StoredObject) else len(self.content)

    @property
    def sha256(self) -> str:
        """The SHA-256 sum of its bytes, in hexadecimal digits."""
        if isinstance(self.content, StoredObject):
            return self.content.sha256
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Program:
    """The program that the supervisor starts: no shell is involved unless `argv` names one.

    `interpret` says that `argv` is Python with a script and its arguments. The supervisor may then
    fork its own interpreter to run it.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(repr=False, default=b"")
    cwd: str = WORKSPACE
    interpret: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """One process in a sandbox: what to start, with which files, and for how long at most."""

    program: Program
    bounds: RunBounds
    files: tuple[InputFile, ...] = ()
    secret_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by the names of the secrets that they hold."""
    artifacts: tuple[str, ...] = ()
    """Patterns of the files to keep; without any, all files except those that tools made."""

    @property
    def input_bytes(self) -> int:
        """How many bytes of input the program gets."""
        return len(self.program.stdin) + sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """A client's request, after names are resolved: limits are numbers, the image is known.

    It holds one run in a sandbox, and what belongs to neither the run nor the sandbox.
    """

    sandbox: SandboxSpec
    run: RunSpec
    size: str
    egress: tuple[Mapping[str, JSON], ...] = ()
    """Rules as `runner.egress.policy` writes them; empty means no way out at all."""
    egress_policy: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_worker_loss: Literal["fail", "retry"] = "fail"
    reuse: bool = False
    """Whether its sandbox may have served the tenant before, or may serve it again."""
    language: str | None = None
    project: str | None = None
    artifacts_to: str | None = None
    """Prefix of the names of the files that its artifacts become; None makes no files."""

    @property
    def limits(self) -> Limits:
        """The limits of its sandbox and its run together, as they are stored and signed."""
        bounds = self.run.bounds
        return Limits(
            **asdict(self.sandbox.resources),
            timeout_s=bounds.timeout_s,
            output_kb=bounds.output_kb,
        )


@dataclass(frozen=True, slots=True)
class Output:
    """The size of an output. `total_bytes` includes what was dropped."""

    total_bytes: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """The kept part of a stream, with notes of the service in it.

    `gap_at` is the place where bytes in the middle were left out, if any were. `noted` says how
    many bytes of `raw` are notes that the service wrote, not the program.
    """

    raw: bytes
    gap_at: int | None = None
    noted: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The resources that a run used. None for what the worker cannot read on this host."""

    wall_s: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None


@dataclass(frozen=True, slots=True)
class EgressUsage:
    """The traffic through the egress proxy: decisions, connections, and bytes of the program."""

    allowed: int
    denied: int
    connections: int
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A regular file the program left in its workspace; `path` is relative to it."""

    path: str
    size: int
    sha256: str
    media_type: str


@dataclass(frozen=True, slots=True)
class Result:
    """The end of an execution. `limits_hit` names the limits the program ran into."""

    state: State
    reason: Reason
    detail: str
    exit_code: int | None
    signal: str | None
    stdout: Output
    stderr: Output
    usage: Usage
    image_digest: str | None
    profile_hash: str | None
    limits_hit: tuple[str, ...] = ()
    artifacts_refused: tuple[str, ...] = ()
    egress: EgressUsage | None = None


def never_ran(state: State, reason: Reason, detail: str) -> Result:
    """Return the result of an execution whose program never ran."""
    nothing = Output(total_bytes=0, truncated=False)
    return Result(
        state=state,
        reason=reason,
        detail=detail,
        exit_code=None,
        signal=None,
        stdout=nothing,
        stderr=nothing,
        usage=Usage(wall_s=0.0),
        image_digest=None,
        profile_hash=None,
    )


class EventKind(StrEnum):
    """The kind of an entry of an execution's event stream."""

    STATE = "state"
    STDOUT = "stdout"
    STDERR = "stderr"
    EGRESS = "egress"


OMITTED = "omitted_bytes"
"""Field of an event's data: how many bytes of its stream were left out right before it."""
NOTE = "note"
"""Field of an event's data: true if the service wrote its chunk, and not the program."""


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of an execution's event stream. `seq` rises by one and never repeats."""

    seq: int
    attempt: int
    kind: EventKind
    at: datetime
    data: Mapping[str, JSON] = field(default_factory=dict)
    chunk: bytes = b""


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one tenant's program, as stored."""

    id: UUID
    tenant_id: UUID
    state: State
    attempt: int
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    cancel_requested_at: datetime | None
    project: str | None
    image: str
    size: str
    language: str | None
    limits: Limits
    metadata: Mapping[str, str]
    isolation: Isolation
    interpret: bool
    reuse: bool
    output_keep: OutputKeep
    egress: tuple[Mapping[str, JSON], ...]
    egress_policy: str | None
    result: Result | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's exclusive right to run one attempt of one execution while its lease lasts."""

    execution_id: UUID
    tenant_id: UUID
    attempt: int
