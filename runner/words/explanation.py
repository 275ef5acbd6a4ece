"""The explanation of why an execution or a sandbox waited, was refused or ended: frozen values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias
from uuid import UUID

Source: TypeAlias = Literal["stock", "fresh", "reused"]
"""The origin of a sandbox: started ahead, started for this use, or used before."""


class StageName(StrEnum):
    """A stage in the life of an execution or a sandbox."""

    SUBMITTED = "submitted"
    QUEUED_AGAIN = "queued_again"
    CLAIMED = "claimed"
    STARTED = "started"
    PAUSED = "paused"
    RESUMED = "resumed"
    STOP_REQUESTED = "stop_requested"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of a life, and how long after the one before it, in seconds. None means unknown."""

    name: StageName
    at: datetime
    after_s: float | None = None
    attempt: int | None = None
    node: str | None = None
    sandbox: str | None = None
    source: Source | None = None
    detail: str | None = None


class Hindrance(StrEnum):
    """The reason why something waits."""

    TENANT_SUSPENDED = "tenant_suspended"
    QUOTA = "quota"
    QUEUE = "queue"
    NO_FREE_WORKER = "no_free_worker"
    NO_NODE = "no_node"


@dataclass(frozen=True, slots=True)
class Wait:
    """The present wait and its reason. None means unknown, or that it does not apply."""

    why: Hindrance
    detail: str
    since: datetime
    position: int | None = None
    """How many executions run before it."""
    starts_in_s: float | None = None
    active: int | None = None
    """How many executions of its tenant run now."""
    concurrent: int | None = None
    """How many of them may run at once."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """The meaning of a reason, and advice on it."""

    means: str
    advice: str


@dataclass(frozen=True, slots=True)
class ExplainedEnd:
    """The end: in one word, in a sentence about this end, and what that means in general."""

    reason: str
    detail: str | None
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class Explanation:
    """The history of an execution or a sandbox, in order, with reasons."""

    id: UUID
    kind: Literal["execution", "sandbox"]
    state: str
    stages: tuple[Stage, ...]
    omitted: int = 0
    """How many stages between the first one and the others are left out."""
    wait: Wait | None = None
    end: ExplainedEnd | None = None
