"""A check, and the results that trying it can have."""

from dataclasses import dataclass, field
from enum import StrEnum


class Group(StrEnum):
    """The part of the sandbox or service that a check tests."""

    PRIVILEGES = "privileges"
    NAMESPACES = "namespaces"
    SYSCALLS = "system calls"
    FILES = "files and devices"
    PROC = "proc and sys"
    NETWORK = "network"
    EGRESS = "egress"
    RESOURCES = "resources"
    TIME = "time limits"
    OUTPUT = "output and artifacts"
    PROTOCOL = "supervisor protocol"
    QUEUE = "queue"


class Severity(StrEnum):
    """The worth of a probe's success to an attacker."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of one try: whether the attack succeeded, and what it saw, such as `EPERM`.

    `absent` means that this host has nothing to attack here, `failed` that the probe itself broke.
    """

    breached: bool
    saw: str
    absent: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A check's description for a reviewer.

    `meaning` says what a success of the probe would mean, and `source` where the rule comes from.
    `control` names the one thing that stops it (for probes, see `runner.verify.controls`). If no
    run without the control can be shown, `undemonstrable` says why; otherwise it is empty.
    """

    id: str
    group: Group
    title: str
    meaning: str
    source: str
    control: str
    severity: Severity = Severity.HIGH
    undemonstrable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Check):
    """A check that is a program in a sandbox.

    `code` is Python and ends with `held(saw)` or `breached(saw)` of the prelude. `expect` is what a
    guarded probe must have seen in a plain container. With `alone`, it has its own sandbox; with
    `apart`, only a program of its own, because it looks at how programs are started.
    """

    code: str
    expect: str = ""
    alone: bool = False
    apart: bool = False
    limits: dict[str, float] = field(default_factory=dict)
    needs: str = ""
    """A capability without which nobody on the host could succeed, not even the host's root."""
