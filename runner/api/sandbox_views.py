"""Answers of the API about living sandboxes and about everything in them."""

import signal
from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field

from runner.api.views import Encoding, OutputView, View, encoded
from runner.sandboxes.foreground import Foreground, Kept
from runner.words.lives import EndReason, Life, OnShortage, OnTimeout
from runner.words.living import (
    ChangeKind,
    FileChange,
    FileEntry,
    FileKind,
    OutputGap,
    OutputPiece,
    ProcessEnd,
    ProcessInfo,
    StoredSandbox,
)
from runner.words.resources import Resources
from runner.words.sandbox import Isolation


class SandboxView(View):
    """A sandbox that lives, or has lived."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2",
                    "state": "running",
                    "reason": None,
                    "detail": None,
                    "created_at": "2026-01-05T12:00:00Z",
                    "started_at": "2026-01-05T12:00:00.02Z",
                    "ended_at": None,
                    "expires_at": "2026-01-05T12:05:00Z",
                    "timeout_s": 300.0,
                    "on_timeout": "kill",
                    "auto_resume": False,
                    "on_shortage": "keep",
                    "kept_as": None,
                    "lives_until": None,
                    "project": None,
                    "image": "python",
                    "size": "small",
                    "limits": {"cpu": 1.0, "memory_mb": 256, "pids": 64, "disk_mb": 128},
                    "isolation": "container",
                    "egress": [],
                    "egress_policy": None,
                    "metadata": {"agent": "analyst-7"},
                }
            ]
        }
    )

    id: UUID
    state: Life
    reason: EndReason | None = Field(description="Why it ended, in one word for programs.")
    detail: str | None = Field(description="Why it ended, in a sentence for people.")
    created_at: datetime
    started_at: datetime | None = Field(description="Since when it takes commands.")
    ended_at: datetime | None
    expires_at: datetime | None = Field(description="When its time is up; null for never.")
    timeout_s: float | None = Field(description="The time that was last set for it.")
    on_timeout: OnTimeout
    auto_resume: bool = Field(description="Whether its use resumes it if it is paused.")
    on_shortage: OnShortage = Field(
        description="What becomes of it if its host is short of memory while it is paused."
    )
    kept_as: UUID | None = Field(
        description="The snapshot that holds its files, if it ended as `evicted`."
    )
    lives_until: datetime | None = Field(description="When it ends at the latest.")
    project: str | None
    image: str
    size: str
    limits: Resources
    isolation: Isolation
    egress: list[dict[str, Any]] = Field(
        description="The rules in force, including those of its policy."
    )
    egress_policy: str | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, stored: StoredSandbox) -> Self:
        """Return the view of a sandbox."""
        return cls(
            id=stored.id,
            state=stored.state,
            reason=stored.reason,
            detail=stored.detail,
            created_at=stored.created_at,
            started_at=stored.started_at,
            ended_at=stored.ended_at,
            expires_at=stored.expires_at,
            timeout_s=stored.timeout_s,
            on_timeout=stored.on_timeout,
            auto_resume=stored.auto_resume,
            on_shortage=stored.on_shortage,
            kept_as=stored.kept_as,
            lives_until=stored.lives_until,
            project=stored.project,
            image=stored.image,
            size=stored.size,
            limits=stored.resources,
            isolation=stored.isolation,
            egress=[dict(rule) for rule in stored.egress],
            egress_policy=stored.egress_policy,
            metadata=dict(stored.metadata),
        )


class SandboxPage(View):
    """Sandboxes, newest first."""

    items: list[SandboxView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page.")


class ProcessView(View):
    """A process in a sandbox."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "process": 3,
                    "state": "running",
                    "command": ["python3", "server.py"],
                    "tag": "server",
                    "terminal": False,
                    "stdin": False,
                    "started_at": "2026-01-05T12:00:01Z",
                    "ended_at": None,
                    "exit_code": None,
                    "signal": None,
                    "timed_out": False,
                    "output_bytes": 57,
                }
            ]
        }
    )

    process: int = Field(description="Its number, which no other process of the sandbox gets.")
    state: Literal["running", "ended"]
    command: list[str]
    tag: str | None
    terminal: bool
    stdin: bool = Field(description="Whether it was given a stdin that can be written.")
    started_at: datetime
    ended_at: datetime | None
    exit_code: int | None
    signal: str | None = Field(description="The signal that ended it.")
    timed_out: bool = Field(description="Whether it was killed since its `timeout_s` was over.")
    output_bytes: int = Field(description="Bytes of stdout and stderr together.")

    @classmethod
    def of(cls, process: ProcessInfo) -> "ProcessView":
        """Return the view of a process."""
        return ProcessView(**_process(process, process.end, process.ended_at))


class StartedProcessView(ProcessView):
    """A process that was started, with its output during the wait."""

    stdout: OutputView | None = Field(description="Null without `wait_s`.")
    stderr: OutputView | None = Field(description="Null without `wait_s`.")
    omitted_bytes: int = Field(
        description="Bytes of its output that nobody knows any more, since it wrote faster than "
        "they were read and more than `keep_kb`."
    )
    next_offset: int = Field(
        description="Where its output goes on: give it as `offset` to follow a process that runs."
    )

    @classmethod
    def started(cls, ran: Foreground, *, waited: bool) -> Self:
        """Return the view of a started process, whether the request waited for it or not."""
        return cls(
            **_process(ran.process, ran.end, ran.ended_at, ran.offset),
            stdout=_output(ran.stdout) if waited else None,
            stderr=_output(ran.stderr) if waited else None,
            omitted_bytes=ran.omitted,
            next_offset=ran.offset,
        )


class ProcessList(View):
    """The processes of a sandbox, in order of start."""

    items: list[ProcessView]


class OutputEventView(View):
    """An entry of a process's output, as the `data` of a server-sent event."""

    offset: int = Field(description="Bytes that the process had written before, to both outputs.")
    content: str | None = Field(default=None, description="Output, in `encoding`.")
    encoding: Encoding | None = None
    omitted_bytes: int | None = Field(
        default=None, description="How many bytes from `offset` on are kept no more."
    )
    exit_code: int | None = None
    signal: str | None = None
    timed_out: bool | None = None

    @classmethod
    def of(cls, piece: OutputPiece | OutputGap) -> Self:
        """Return the view of a piece of output, or of a gap."""
        if isinstance(piece, OutputGap):
            return cls(offset=piece.offset, omitted_bytes=piece.omitted)
        content, encoding = encoded(piece.data)
        return cls(offset=piece.offset, content=content, encoding=encoding)

    @classmethod
    def ended(cls, end: ProcessEnd, offset: int) -> Self:
        """Return the view of a process's end."""
        return cls(
            offset=offset,
            exit_code=end.exit_code,
            signal=signal_name(end.signal),
            timed_out=end.timed_out,
        )


class FileEntryView(View):
    """A file, folder or link in a sandbox."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "/workspace/data/in.csv",
                    "kind": "file",
                    "size": 1204,
                    "mode": "0644",
                    "modified_at": "2026-01-05T12:00:01Z",
                    "target": None,
                }
            ]
        }
    )

    path: str = Field(description="Absolute.")
    kind: FileKind
    size: int
    mode: str = Field(description="Permission bits, octal.")
    modified_at: datetime
    target: str | None = Field(description="Where a link points to.")

    @classmethod
    def of(cls, entry: FileEntry) -> Self:
        """Return the view of a file."""
        return cls(
            path=entry.path,
            kind=entry.kind,
            size=entry.size,
            mode=f"{entry.mode:04o}",
            modified_at=entry.modified_at,
            target=entry.target,
        )


class FolderView(View):
    """The entries of a folder."""

    items: list[FileEntryView]
    more: bool = Field(description="Whether there is more than `limit`.")


class FileChangeView(View):
    """A change of a file or folder."""

    kind: ChangeKind
    path: str
    folder: bool

    @classmethod
    def of(cls, change: FileChange) -> Self:
        """Return the view of a change."""
        return cls(kind=change.kind, path=change.path, folder=change.folder)


class FileChangesView(View):
    """Changes below a watched folder, as the `data` of a server-sent event."""

    changes: list[FileChangeView]
    lost: bool = Field(description="Whether there was more than could be told: look for yourself.")


def signal_name(number: int | None) -> str | None:
    """Return the name of a signal; if it has none, SIG and its number."""
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def _process(
    process: ProcessInfo,
    end: ProcessEnd | None,
    ended_at: datetime | None,
    known_bytes: int = 0,
) -> dict[str, Any]:
    return {
        "process": process.number,
        "state": "ended" if end else "running",
        "command": list(process.argv),
        "tag": process.tag,
        "terminal": process.terminal,
        "stdin": process.stdin,
        "started_at": process.started_at,
        "ended_at": ended_at,
        "exit_code": end.exit_code if end else None,
        "signal": signal_name(end.signal) if end else None,
        "timed_out": end.timed_out if end else False,
        "output_bytes": end.output_bytes if end else max(process.output_bytes, known_bytes),
    }


def _output(kept: Kept) -> OutputView:
    content, encoding = encoded(bytes(kept.raw))
    omitted = kept.total - len(kept.raw)
    return OutputView(
        content=content,
        encoding=encoding,
        truncated=omitted > 0,
        total_bytes=kept.total,
        omitted_bytes=omitted,
        omitted_at=len(kept.raw) if omitted else None,
    )
