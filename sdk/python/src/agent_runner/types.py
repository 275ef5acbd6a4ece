"""Answers of the API, as plain values."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDED = frozenset(
    {
        "succeeded",
        "failed",
        "timed_out",
        "cancelled",
        "out_of_memory",
        "output_limit_exceeded",
        "system_error",
    }
)


@dataclass(frozen=True, slots=True)
class Stream:
    """The kept part of the program's stdout or stderr.

    `omitted_bytes` of its `total_bytes` are missing, after the first `omitted_at` bytes of `raw`.
    """

    raw: bytes
    truncated: bool
    total_bytes: int
    omitted_bytes: int = 0
    omitted_at: int | None = None

    @property
    def head(self) -> bytes:
        """The part before the bytes that are missing; everything, if none are."""
        return self.raw[: self.omitted_at]

    @property
    def tail(self) -> bytes:
        """The part after the bytes that are missing."""
        return b"" if self.omitted_at is None else self.raw[self.omitted_at :]

    @property
    def text(self) -> str:
        """The bytes as UTF-8, with replacement characters for what is not.

        Where bytes are missing between a head and a tail, a line of its own says how many.
        """
        head, tail = (part.decode("utf-8", "replace") for part in (self.head, self.tail))
        return f"{head}\n{omission(self.omitted_bytes)}\n{tail}" if tail else head


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file the program left."""

    path: str
    size: int
    sha256: str
    media_type: str


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of the tenant. `etag` changes with the content alone."""

    path: str
    size: int
    sha256: str
    etag: str
    media_type: str
    created_at: str
    updated_at: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key, without its secret part.

    `permissions` are those of its role that it has, and `networks` where it may be used from; with
    None it has all of them, and may be used from anywhere.
    """

    id: str
    prefix: str
    name: str
    role: str
    permissions: tuple[str, ...] | None
    networks: tuple[str, ...] | None
    created_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    replaced_by: str | None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A new API key. `token` is what it is used by; the API shows it this once."""

    key: ApiKey
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who belongs to the tenant, or is invited until `expires_at`: `status` says which."""

    id: str
    email: str
    role: str
    status: str
    created_by: str
    created_at: str
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """A new invitation. `token` accepts it; the API shows it this once, and sends no mail."""

    member: Member
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Project:
    """A name under which executions and sandboxes are grouped, with settings of its own."""

    name: str
    description: str
    egress_policy: str | None
    created_by: str
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the event stream; `raw` is output, `data` a state change."""

    id: int
    kind: str
    data: dict[str, Any]
    raw: bytes


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of one program. What follows `estimated_start_s` is there once it has ended."""

    id: str
    state: str
    attempt: int
    created_at: str
    started_at: str | None
    ended_at: str | None
    project: str | None
    metadata: dict[str, str]
    image: str
    size: str
    queue_position: int | None
    estimated_start_s: float | None
    reason: str | None
    detail: str | None
    exit_code: int | None
    signal: str | None
    stdout: Stream | None
    stderr: Stream | None
    usage: dict[str, Any]
    limits_hit: tuple[str, ...]
    artifacts: tuple[Artifact, ...]
    artifacts_refused: tuple[str, ...]
    egress: dict[str, Any] | None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state in ENDED


def omission(size: int) -> str:
    """Return what stands for bytes of output that were left out."""
    return f"[… {size:,} bytes left out …]"


def content_of(content: bytes | str | StoredFile | Mapping[str, str]) -> Mapping[str, str]:
    """Return a content as the API takes it."""
    if isinstance(content, Mapping):
        return content
    if isinstance(content, StoredFile):
        return {"key": content.path}
    if isinstance(content, str):
        return {"text": content}
    return {"base64": base64.b64encode(content).decode()}
