"""How the API shows what is stored."""

import base64
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from runner.executions.read import Seen
from runner.words.execution import (
    OMITTED,
    Artifact,
    EgressUsage,
    Event,
    EventKind,
    Execution,
    Output,
    StoredOutput,
    Stream,
    Usage,
)
from runner.words.resources import Limits, OutputKeep
from runner.words.sandbox import Isolation
from runner.words.states import Reason, State

Encoding = Literal["utf-8", "base64"]


def encoded(raw: bytes) -> tuple[str, Encoding]:
    """Return bytes as text if they are UTF-8, otherwise as base64: both lose nothing."""
    try:
        return raw.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode(), "base64"


class View(BaseModel):
    """Base of every response body."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OutputView(View):
    """The content of a stream."""

    content: str = Field(description="What was kept of it, in `encoding`.")
    encoding: Encoding
    truncated: bool = Field(description="Whether something was left out.")
    total_bytes: int = Field(description="Bytes that the program wrote.")
    omitted_bytes: int = Field(
        description="How many of them `content` does not hold. The notes on refused egress that "
        "stderr holds are no part of either number."
    )
    omitted_at: int | None = Field(
        description="The number of bytes of `content` before the gap. Null if nothing is missing."
    )

    @classmethod
    def of(cls, stored: StoredOutput, output: Output) -> Self:
        """Return the view of a stream."""
        content, encoding = encoded(stored.raw)
        size = len(stored.raw)
        kept = size - stored.noted
        omitted = max(0, output.total_bytes - kept) if output.truncated else 0
        at = size if stored.gap_at is None else stored.gap_at
        return cls(
            content=content,
            encoding=encoding,
            truncated=output.truncated,
            total_bytes=output.total_bytes,
            omitted_bytes=omitted,
            omitted_at=at if omitted else None,
        )


class ArtifactView(View):
    """A file the program left in its workspace."""

    path: str = Field(examples=["chart.png"])
    size: int
    sha256: str
    media_type: str = Field(description="Guessed from the name; do not trust it for display.")

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Return the view of an artifact."""
        return cls(
            path=artifact.path,
            size=artifact.size,
            sha256=artifact.sha256,
            media_type=artifact.media_type,
        )


class ResultView(View):
    """The end of an execution."""

    reason: Reason = Field(description="Why it ended, in one word for programs.")
    detail: str = Field(description="Why it ended, in a sentence for people.")
    exit_code: int | None
    signal: str | None
    stdout: OutputView | None = Field(description="Left out of listings.")
    stderr: OutputView | None = Field(description="Left out of listings.")
    usage: Usage
    limits_hit: tuple[str, ...] = Field(description="Limits that the program ran into.")
    artifacts: list[ArtifactView] | None = Field(description="Left out of listings.")
    artifacts_refused: tuple[str, ...] = Field(
        description="Files that were not kept, each with the reason."
    )
    egress: EgressUsage | None = Field(
        description="What went through the egress proxy, if anything."
    )
    image_digest: str | None
    profile_hash: str | None


class ExecutionView(View):
    """One run of one program."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2",
                    "state": "succeeded",
                    "attempt": 1,
                    "created_at": "2026-01-05T12:00:00Z",
                    "started_at": "2026-01-05T12:00:00.3Z",
                    "ended_at": "2026-01-05T12:00:00.4Z",
                    "project": None,
                    "language": "python",
                    "image": "python",
                    "size": "small",
                    "limits": {
                        "cpu": 1.0,
                        "memory_mb": 256,
                        "pids": 64,
                        "disk_mb": 128,
                        "timeout_s": 30.0,
                        "output_kb": 256,
                    },
                    "metadata": {},
                    "isolation": "container",
                    "egress": [],
                    "egress_policy": None,
                    "queue_position": None,
                    "estimated_start_s": None,
                    "result": {
                        "reason": "completed",
                        "detail": "exited with code 0",
                        "exit_code": 0,
                        "signal": None,
                        "stdout": {
                            "content": "42\n",
                            "encoding": "utf-8",
                            "truncated": False,
                            "total_bytes": 3,
                            "omitted_bytes": 0,
                            "omitted_at": None,
                        },
                        "stderr": {
                            "content": "",
                            "encoding": "utf-8",
                            "truncated": False,
                            "total_bytes": 0,
                            "omitted_bytes": 0,
                            "omitted_at": None,
                        },
                        "usage": {
                            "wall_s": 0.05,
                            "cpu_s": 0.04,
                            "memory_peak_bytes": 14_680_064,
                            "pids_peak": 2,
                        },
                        "limits_hit": [],
                        "artifacts": [],
                        "artifacts_refused": [],
                        "egress": None,
                        "image_digest": "sha256:…",
                        "profile_hash": "sha256:…",
                    },
                }
            ]
        }
    )

    id: UUID
    state: State
    attempt: int = Field(description="How often a worker claimed it.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    project: str | None
    language: str | None
    image: str
    size: str
    limits: Limits
    metadata: dict[str, str]
    isolation: Isolation
    interpreter: Literal["loaded", "fresh"] | None = Field(
        description="For Python code: whether a loaded interpreter may run it."
    )
    reuse: Literal["never", "tenant"]
    output_keep: OutputKeep
    egress: list[dict[str, Any]] = Field(
        description="The rules in force, including those of its policy."
    )
    egress_policy: str | None
    queue_position: int | None = Field(
        description="While queued: how many executions run before this one."
    )
    estimated_start_s: float | None = Field(
        description="While queued: estimated seconds until it starts, from the pace of the last "
        "executions. Others may end sooner or later or be cancelled, and the tenant may already "
        "run as many executions as it may. Null while no estimate is possible."
    )
    result: ResultView | None = Field(description="Present once the execution has ended.")

    @classmethod
    def of(cls, seen: Seen) -> Self:
        """Return the view of an execution; without output and artifacts in a listing."""
        execution, place, output = seen.execution, seen.place, seen.output
        result = execution.result
        shown = None
        if result is not None:
            shown = ResultView(
                reason=result.reason,
                detail=result.detail,
                exit_code=result.exit_code,
                signal=result.signal,
                stdout=OutputView.of(output[Stream.STDOUT], result.stdout) if output else None,
                stderr=OutputView.of(output[Stream.STDERR], result.stderr) if output else None,
                usage=result.usage,
                limits_hit=result.limits_hit,
                artifacts=(
                    None
                    if seen.artifacts is None
                    else [ArtifactView.of(each) for each in seen.artifacts]
                ),
                artifacts_refused=result.artifacts_refused,
                egress=result.egress,
                image_digest=result.image_digest,
                profile_hash=result.profile_hash,
            )
        return cls(
            id=execution.id,
            state=execution.state,
            attempt=execution.attempt,
            created_at=execution.created_at,
            started_at=execution.started_at,
            ended_at=execution.ended_at,
            project=execution.project,
            language=execution.language,
            image=execution.image,
            size=execution.size,
            limits=execution.limits,
            metadata=dict(execution.metadata),
            isolation=execution.isolation,
            interpreter=_interpreter(execution),
            reuse="tenant" if execution.reuse else "never",
            output_keep=execution.output_keep,
            egress=[dict(rule) for rule in execution.egress],
            egress_policy=execution.egress_policy,
            queue_position=place.position if place else None,
            estimated_start_s=place.starts_in_s if place else None,
            result=shown,
        )


def _interpreter(execution: Execution) -> Literal["loaded", "fresh"] | None:
    if execution.language != "python":
        return None
    return "loaded" if execution.interpret else "fresh"


class ExecutionPage(View):
    """Executions, newest first."""

    items: list[ExecutionView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page.")


class ArtifactList(View):
    """All artifacts of one execution."""

    items: list[ArtifactView]


class EgressDecisionView(View):
    """A decision of the egress proxy on one request of the program, and what followed."""

    outcome: Literal["allowed", "denied"]
    method: Literal["connect", "http", "socks5"]
    host: str
    port: int
    address: str | None = Field(description="The address that the proxy connected to.")
    rule: str | None = Field(description="The rule that allowed it.")
    reason: str = Field(description="Why, for programs.", examples=["no_rule"])
    detail: str = Field(description="Why, for people, and which rule would permit it.")
    bytes_up: int
    bytes_down: int
    duration_s: float


class EventView(View):
    """An entry of the event stream, as the `data` of a server-sent event."""

    attempt: int
    at: datetime
    state: State | None = None
    reason: Reason | None = None
    detail: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    egress: EgressDecisionView | None = Field(
        default=None, description="What the egress proxy decided."
    )
    content: str | None = Field(default=None, description="Output, in `encoding`.")
    encoding: Encoding | None = None
    omitted_bytes: int | None = Field(
        default=None, description="How many bytes of the stream were left out before `content`."
    )

    @classmethod
    def of(cls, event: Event) -> Self:
        """Return the view of an event."""
        if event.kind is EventKind.STATE:
            return cls(attempt=event.attempt, at=event.at, **event.data)
        if event.kind is EventKind.EGRESS:
            decision = EgressDecisionView.model_validate(event.data)
            return cls(attempt=event.attempt, at=event.at, egress=decision)
        content, encoding = encoded(event.chunk)
        return cls(
            attempt=event.attempt,
            at=event.at,
            content=content,
            encoding=encoding,
            omitted_bytes=event.data.get(OMITTED),
        )
