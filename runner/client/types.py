"""What the API answers, as plain values."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from runner.client.errors import Unavailable

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
    """What was kept of the program's stdout or stderr.

    `omitted_bytes` of its `total_bytes` are missing, after the first `omitted_at` bytes of `raw`.
    """

    raw: bytes
    truncated: bool
    total_bytes: int
    omitted_bytes: int = 0
    omitted_at: int | None = None

    @property
    def head(self) -> bytes:
        """What comes before the bytes that are missing; everything, if none are."""
        return self.raw[: self.omitted_at]

    @property
    def tail(self) -> bytes:
        """What comes after the bytes that are missing."""
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


def decoded(content: str, encoding: str) -> bytes:
    """Return the bytes of output as the API sends it."""
    return base64.b64decode(content) if encoding == "base64" else content.encode()


@contextmanager
def understood() -> Iterator[None]:
    """Make an answer of another form ours: of another program, or another release of the API."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable(
            {"detail": f"what answered is not this API, or another release of it: {error}"}
        ) from error


@understood()
def execution_of(body: dict[str, Any]) -> Execution:
    """Return an execution from a response body."""
    result = body["result"] or {}
    return Execution(
        id=body["id"],
        state=body["state"],
        attempt=body["attempt"],
        created_at=body["created_at"],
        started_at=body["started_at"],
        ended_at=body["ended_at"],
        project=body["project"],
        metadata=body["metadata"],
        image=body["image"],
        size=body["size"],
        queue_position=body["queue_position"],
        estimated_start_s=body["estimated_start_s"],
        reason=result.get("reason"),
        detail=result.get("detail"),
        exit_code=result.get("exit_code"),
        signal=result.get("signal"),
        stdout=_stream(result.get("stdout")),
        stderr=_stream(result.get("stderr")),
        usage=result.get("usage") or {},
        limits_hit=tuple(result.get("limits_hit") or ()),
        artifacts=tuple(Artifact(**each) for each in result.get("artifacts") or ()),
        artifacts_refused=tuple(result.get("artifacts_refused") or ()),
        egress=result.get("egress"),
    )


def _stream(body: dict[str, Any] | None) -> Stream | None:
    if body is None:
        return None
    return Stream(
        raw=decoded(body["content"], body["encoding"]),
        truncated=body["truncated"],
        total_bytes=body["total_bytes"],
        omitted_bytes=body["omitted_bytes"],
        omitted_at=body["omitted_at"],
    )
