"""The words every stage speaks: plain frozen values, no behaviour beyond arithmetic on themselves.

Sizes carry their unit in the name (`_mb` = 2**20 bytes, `_kb` = 2**10 bytes, `_s` = seconds).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeAlias
from uuid import UUID

from runner.states import Reason, State

JSON: TypeAlias = Any

WORKSPACE = "/workspace"
"""The program's working directory in every sandbox, and the only place artifacts come from."""


class Role(StrEnum):
    """What a principal may do in its tenant, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    VIEWER = "viewer"


class Tier(StrEnum):
    """What a tenant has agreed with the operator: it decides rates and quotas."""

    FREE = "free"
    PRO = "pro"
    ENTERPRISE = "enterprise"


class PrincipalKind(StrEnum):
    """What a principal is."""

    KEY = "key"
    USER = "user"


class Isolation(StrEnum):
    """What stands between a program and the host's kernel, beyond the container's own walls."""

    CONTAINER = "container"
    GVISOR = "gvisor"


class Stream(StrEnum):
    """One of the program's two output streams."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts in a tenant: an API key or a user, with one role there.

    `name` is a key's prefix or a user's id: what audit events call it. `permissions`, if it is not
    None, are those of its role that it has; `suspended` is its tenant. `session_id` is that of a
    user who logged in here, `ends_at` the Unix time at which a token of an identity provider ends.
    """

    tenant_id: UUID
    id: UUID
    kind: PrincipalKind
    name: str
    role: Role
    tier: Tier = Tier.FREE
    permissions: frozenset[str] | None = None
    suspended: bool = False
    session_id: UUID | None = None
    ends_at: float | None = None

    @property
    def actor(self) -> str:
        """The name this principal has in audit events."""
        return f"{self.kind.value}:{self.name}"


@dataclass(frozen=True, slots=True)
class Operator:
    """Who runs the deployment: makes and ends tenants, and is a principal of none of them."""

    id: UUID
    prefix: str

    @property
    def actor(self) -> str:
        """The name this operator has in audit events."""
        return f"operator:{self.prefix}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use. `output_kb` bounds stdout and stderr each."""

    cpu: float
    memory_mb: int
    pids: int
    disk_mb: int
    timeout_s: float
    output_kb: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes in the object store, under a key of ours."""

    object_key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file placed in the workspace before the program starts; `path` is relative to it.

    Its bytes are at hand, or in the object store.
    """

    path: str
    content: bytes | StoredObject = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.content.size if isinstance(self.content, StoredObject) else len(self.content)

    @property
    def sha256(self) -> str:
        """The sum of its bytes, in hexadecimal digits."""
        if isinstance(self.content, StoredObject):
            return self.content.sha256
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Program:
    """What the supervisor starts: no shell is involved unless `argv` names one.

    `interpret` says that `argv` is Python with a script and its arguments, which the supervisor's
    own interpreter may run, forked.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    stdin: bytes = field(repr=False, default=b"")
    cwd: str = WORKSPACE
    interpret: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """What a client asked to run, resolved: limits are numbers, the image is a known name."""

    program: Program
    limits: Limits
    size: str
    image: str
    files: tuple[InputFile, ...] = ()
    isolation: Isolation = Isolation.CONTAINER
    egress: tuple[Mapping[str, JSON], ...] = ()
    """Rules as `runner.egress.policy` writes them; empty means no way out at all."""
    egress_policy: str | None = None
    secret_env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables by the names of the secrets that they hold."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_worker_loss: Literal["fail", "retry"] = "fail"
    reuse: bool = False
    """Whether a sandbox may serve it that has served the tenant before, or will again."""
    language: str | None = None
    project: str | None = None
    artifacts_to: str | None = None
    """What the names of files begin with that are made of the artifacts; None makes none."""

    @property
    def input_bytes(self) -> int:
        """How much the program is given to read."""
        return len(self.program.stdin) + sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Output:
    """How much a stream carried. `total_bytes` counts what was dropped, too."""

    total_bytes: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run used. None where this host does not let the worker read it."""

    wall_s: float
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None


@dataclass(frozen=True, slots=True)
class EgressUsage:
    """What went through the egress proxy: decisions, connections made, bytes of the program's."""

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
    """How an execution ended. `limits_hit` names the limits the program ran into."""

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


class EventKind(StrEnum):
    """What an entry of an execution's event stream tells."""

    STATE = "state"
    STDOUT = "stdout"
    STDERR = "stderr"
    EGRESS = "egress"


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
    egress: tuple[Mapping[str, JSON], ...]
    egress_policy: str | None
    result: Result | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's exclusive right to run one attempt of one execution while its lease lasts."""

    execution_id: UUID
    tenant_id: UUID
    attempt: int
