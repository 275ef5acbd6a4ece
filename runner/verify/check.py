"""What a check is, and what trying it can show."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum


class Group(StrEnum):
    """What part of the wall a check leans on."""

    PRIVILEGES = "privileges"
    NAMESPACES = "namespaces"
    SYSCALLS = "syscalls"
    FILES = "files and devices"
    PROC = "proc and sys"
    RESOURCES = "resources"
    TIME = "time limits"
    OUTPUT = "output and artifacts"
    PROTOCOL = "supervisor protocol"
    NETWORK = "network"
    EGRESS = "egress"
    QUEUE = "queue"


class Severity(StrEnum):
    """What a success of the probe would be worth to an attacker."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reviewer reads about a check.

    `meaning` says what it would mean if the probe succeeded; `source` where the rule comes from;
    `control` names the one thing that stops it. `undemonstrable` says why no run without the
    control can be shown, and is empty where one can.
    """

    id: str
    group: Group
    severity: Severity
    title: str
    meaning: str
    source: str
    control: str
    undemonstrable: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one try showed: whether the attack got through, and what was seen, such as `EPERM`."""

    breached: bool
    saw: str


Attempt = Callable[[bool], Awaitable[Observation]]
"""Tries the attack; the argument says whether every control is in place."""
