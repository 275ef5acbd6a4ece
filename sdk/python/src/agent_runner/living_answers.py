"""Reads the API's answers about sandboxes that live, as `answers` reads the others."""

import re
from typing import Any

from httpx_sse import ServerSentEvent

from agent_runner.answers import (
    Answer,
    EventAnswer,
    having,
    items,
    made,
    object_of,
    output_of,
    page,
    stream_of,
)
from agent_runner.living import (
    BuildOutput,
    FileChanges,
    FileEntry,
    Kept,
    OpenedPort,
    OutputEvent,
    PortInfo,
    ProcessInfo,
    SandboxEvent,
    SandboxInfo,
    SignedUrl,
    SnapshotInfo,
    Started,
    TemplateInfo,
    TemplateTag,
)
from agent_runner.types import Stream


def _sandbox(body: Any) -> SandboxInfo:
    known = object_of(body)
    if not isinstance(known["id"], str):
        raise TypeError("not an id")
    return made(SandboxInfo)(
        {**known, "egress": tuple(known["egress"]), "metadata": object_of(known["metadata"])}
    )


def _snapshot(body: Any) -> SnapshotInfo:
    known = object_of(body)
    if not isinstance(known["id"], str):
        raise TypeError("not an id")
    return made(SnapshotInfo)({**known, "metadata": object_of(known["metadata"])})


def _template(body: Any) -> TemplateInfo:
    known = object_of(body)
    return made(TemplateInfo)({**known, "tags": tuple(known.get("tags", ()))})


def _process(body: Any) -> ProcessInfo:
    known = object_of(body)
    return made(ProcessInfo)({**known, "command": tuple(known["command"])})


def _started(body: Any) -> Started:
    lost = int(body["omitted_bytes"])
    return Started(
        info=_process(body),
        stdout=_without(lost, stream_of(body["stdout"])),
        stderr=_without(lost, stream_of(body["stderr"])),
        next_offset=int(body["next_offset"]),
    )


def _without(lost: int, stream: Stream | None) -> Stream | None:
    """Return an output that may lack so many bytes more: nobody knows whose they were."""
    if stream is None or not lost:
        return stream
    kept = Kept(len(stream.raw), stream)
    kept.lose(lost)
    return kept.stream


def _folder(body: Any) -> tuple[list[FileEntry], bool]:
    return items(made(FileEntry))(body), bool(body["more"])


def _output(sent: ServerSentEvent, data: dict[str, Any]) -> OutputEvent:
    return OutputEvent(
        kind=sent.event,
        next_offset=int(sent.id),
        raw=output_of(data),
        omitted_bytes=int(data.get("omitted_bytes", 0)),
        exit_code=data.get("exit_code"),
        signal=data.get("signal"),
        timed_out=data.get("timed_out", False),
    )


def _event(sent: ServerSentEvent, data: dict[str, Any]) -> SandboxEvent:
    if not re.fullmatch(r"[0-9]+-[0-9]+", sent.id) or not isinstance(data["at"], str):
        raise TypeError("not an event of a sandbox")
    return SandboxEvent(sent.id, sent.event, data)


def _changes(_: ServerSentEvent, data: dict[str, Any]) -> FileChanges:
    return FileChanges(tuple(map(object_of, data["changes"])), bool(data["lost"]))


SANDBOX = Answer("a sandbox", _sandbox)
SANDBOXES = Answer("a page of sandboxes", page(_sandbox))
SNAPSHOT = Answer("a snapshot", _snapshot)
SNAPSHOTS = Answer("a page of snapshots", page(_snapshot))
TEMPLATE = Answer("a template", _template)
TEMPLATES = Answer("a page of templates", page(_template))
TEMPLATE_TAGS = Answer("a list of tags", items(made(TemplateTag)))
TEMPLATE_LOG = Answer("the log of a build", items(made(BuildOutput)))
COPIES = Answer("a list of sandboxes", items(_sandbox))
_USED = having(
    "cpu_s", "memory_bytes", "memory_peak_bytes", "pids", "processes", "disk_bytes",
    "egress_bytes_up", "egress_bytes_down",
)  # fmt: skip
METRICS = Answer("what a sandbox uses", _USED)
SERIES = Answer("what a sandbox has used", items(_USED))
PROCESS = Answer("a process", _process)
PROCESSES = Answer("a list of processes", items(_process))
STARTED = Answer("a process that was started", _started)
OUTPUT = EventAnswer("a stream of a process's output", _output)
ENTRY = Answer("a file in a sandbox", made(FileEntry))
SIGNED = Answer("a signed address of a file", made(SignedUrl))
FOLDER = Answer("a list of files in a sandbox", _folder)
OPENED_PORT = Answer("an opened port", made(OpenedPort))
PORTS = Answer("a list of opened ports", items(made(PortInfo)))
CHANGES = EventAnswer("a stream of changes to files", _changes)
SANDBOX_EVENTS = EventAnswer("a stream of a sandbox's events", _event)
