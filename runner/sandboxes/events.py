"""The events of one living sandbox, in order, until it has ended.

The tenant's audit log already has all of it, in an order that never changes: its life, the starts
and ends of its processes, its contexts, ports and forks, its egress decisions. An event is a
record, or one entry of a record that covers several processes. Only facts that every role may know
become part of an event; who did it, and from where, does not.
"""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from runner.audit import events as audit
from runner.audit.events import Action, Outcome
from runner.auth.caller import Caller
from runner.queue.changes import Changes
from runner.sandboxes.place import NO_SANDBOX
from runner.store import sandboxes
from runner.store.db import Database
from runner.words.errors import NotFound
from runner.words.execution import JSON
from runner.words.lives import Life

PAGE = 200
LOOK_AGAIN_S = 1.0
KIND: Final = "sandbox"


class SandboxEventKind(StrEnum):
    """The kind of an event."""

    LIFE = "life"
    CHANGE = "change"
    PROCESS_STARTED = "process_started"
    PROCESS_ENDED = "process_ended"
    CONTEXT = "context"
    FILES = "files"
    PORT = "port"
    FORK = "fork"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, order=True)
class EventPlace:
    """An event's position: its record's number, and its place among the events of that record."""

    seq: int = 0
    index: int = 0

    def __str__(self) -> str:
        return f"{self.seq}-{self.index}"

    @classmethod
    def read(cls, text: str) -> "EventPlace":
        """Return the place that a text names. Raises ValueError."""
        seq, _, index = text.partition("-")
        return cls(int(seq), int(index))


@dataclass(frozen=True, slots=True)
class SandboxEvent:
    """Something that happened to a sandbox or in it."""

    place: EventPlace
    kind: SandboxEventKind
    at: str
    """When, as ISO 8601 in UTC."""
    facts: Mapping[str, JSON]

    @property
    def is_end(self) -> bool:
        """Whether it is the sandbox's end, after which nothing follows."""
        return self.kind is SandboxEventKind.LIFE and self.facts.get("state") == Life.ENDED


_LIVES: Final[Mapping[str, Life]] = MappingProxyType(
    {
        Action.SANDBOX_CREATE: Life.STARTING,
        Action.SANDBOX_START: Life.RUNNING,
        Action.SANDBOX_PAUSE: Life.PAUSED,
        Action.SANDBOX_RESUME: Life.RUNNING,
        Action.SANDBOX_KILL: Life.STOPPING,
        Action.SANDBOX_END: Life.ENDED,
    }
)
_LIFE_FACTS = ("reason", "quota", "auto", "kept_as")
_FLAT: Final[Mapping[str, tuple[SandboxEventKind, tuple[str, ...]]]] = MappingProxyType(
    {
        Action.SANDBOX_UPDATE: (
            SandboxEventKind.CHANGE,
            ("timeout_s", "metadata", "on_shortage", "egress", "egress_before"),
        ),
        Action.SANDBOX_FILES: (
            SandboxEventKind.FILES,
            (
                "read", "written", "listed", "made", "moved", "removed", "packed", "unpacked",
                "bytes_read", "bytes_written", "bytes_packed", "bytes_unpacked",
            ),
        ),
        Action.SANDBOX_PORTS: (SandboxEventKind.PORT, ("port", "open", "public")),
        Action.SANDBOX_FORK: (SandboxEventKind.FORK, ("made",)),
        Action.EGRESS_CONNECT: (
            SandboxEventKind.EGRESS,
            (
                "outcome", "method", "host", "port", "address", "rule", "reason", "detail",
                "bytes_up", "bytes_down", "duration_s",
            ),
        ),
    }
)  # fmt: skip
"""Actions whose records are one event each, and what it tells."""
_ONLY_DONE: Final = frozenset({Action.SANDBOX_FORK, Action.SANDBOX_UPDATE})
"""Actions whose failures changed nothing, or nothing more than was told before."""


def of_record(seq: int, body: str) -> Iterator[SandboxEvent]:
    """Yield the events of a record of a sandbox, in order; none if it is of another kind."""
    record: dict[str, Any] = json.loads(body)
    action, told = record["action"], record["metadata"]
    if action in _LIVES:
        # A refusal is on record, too, but changes nothing.
        if record["outcome"] != Outcome.DENIED:
            facts = {"state": _LIVES[action].value, **_chosen(told, _LIFE_FACTS)}
            yield SandboxEvent(EventPlace(seq, 0), SandboxEventKind.LIFE, record["at"], facts)
        return
    if action in _ONLY_DONE and record["outcome"] != Outcome.SUCCESS:
        return
    for index, (kind, facts) in enumerate(_others(action, told)):
        yield SandboxEvent(EventPlace(seq, index), kind, record["at"], facts)


def _others(action: str, told: Mapping[str, Any]) -> Iterator[tuple[SandboxEventKind, Any]]:
    if action in _FLAT:
        kind, names = _FLAT[action]
        yield kind, _chosen(told, names)
    elif action == Action.SANDBOX_PROCESSES:
        for name, kind in (
            ("started", SandboxEventKind.PROCESS_STARTED),
            ("ended", SandboxEventKind.PROCESS_ENDED),
        ):
            for each in told.get(name, ()):
                facts = {key: value for key, value in each.items() if key != "number"}
                yield kind, {"process": each["number"], **facts}
    elif action == Action.SANDBOX_CONTEXTS:
        for name, deeds in told.items():
            for each in deeds:
                yield SandboxEventKind.CONTEXT, {"context": each["context"], "did": name}


def _chosen(told: Mapping[str, Any], names: Sequence[str]) -> dict[str, JSON]:
    return {name: told[name] for name in names if name in told}


async def follow(
    database: Database,
    changes: Changes,
    caller: Caller,
    sandbox_id: UUID,
    *,
    after: EventPlace,
    follow: bool = True,
) -> AsyncGenerator[SandboxEvent, None]:
    """Yield the events behind `after`, each once and in order, until the sandbox has ended.

    Without `follow`, stops after those that are on record now. Close it (`contextlib.aclosing`)
    when no more are wanted. Raises NotFound.
    """
    # The record of `after` may hold more events: it is read again.
    seq = max(0, after.seq - 1)
    with changes.watch(sandbox_id) as watch:
        while True:
            async with database.tenant(caller.tenant_id) as tx:
                # The row first: if it has ended, every record of the sandbox is there to be read.
                found = await sandboxes.where(tx, sandbox_id)
                page = await audit.list_of(tx, KIND, str(sandbox_id), seq, PAGE)
            if found is None:
                raise NotFound(NO_SANDBOX)
            for record in page:
                seq = record.seq
                for event in of_record(record.seq, record.body):
                    if event.place <= after:
                        continue
                    yield event
                    if event.is_end:
                        return
            if len(page) < PAGE:
                if found.state is Life.ENDED or not follow:
                    return
                await watch.wait(LOOK_AGAIN_S)
