"""The life of a living sandbox: every state, every allowed change, and why it ended.

As with executions (`states`), the same table guards the database: a change is a compare-and-set
on the state, and `store/queries/sandboxes.sql` names only sources that this table allows (a test
compares the two).
"""

from enum import StrEnum


class Life(StrEnum):
    """The state of a living sandbox. It has exactly one, and never leaves `ended`."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    STOPPING = "stopping"
    ENDED = "ended"


class EndReason(StrEnum):
    """The reason why a sandbox ended: one machine-readable word, beside a sentence."""

    KILLED = "killed"
    EXPIRED = "expired"
    MAX_LIFE = "max_life"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"
    START_FAILED = "start_failed"
    NODE_DRAINED = "node_drained"
    TENANT_SUSPENDED = "tenant_suspended"
    PROTOCOL_VIOLATION = "protocol_violation"
    EVICTED = "evicted"
    INTERNAL_ERROR = "internal_error"


class OnTimeout(StrEnum):
    """The fate of a sandbox when its time is up."""

    KILL = "kill"
    PAUSE = "pause"


class OnShortage(StrEnum):
    """The fate of a paused sandbox when its host is short of memory."""

    KEEP = "keep"
    SNAPSHOT = "snapshot"


LIVING = frozenset(Life) - {Life.ENDED}
"""States in which a sandbox has a place on a node, or waits for one, and counts for quotas."""

ALLOWED_LIVES: dict[Life, frozenset[Life]] = {
    Life.STARTING: frozenset({Life.RUNNING, Life.STOPPING, Life.ENDED}),
    Life.RUNNING: frozenset({Life.PAUSING, Life.STOPPING, Life.ENDED}),
    # It returns to its earlier state if Docker refuses to freeze or thaw it.
    Life.PAUSING: frozenset({Life.PAUSED, Life.RUNNING, Life.STOPPING, Life.ENDED}),
    Life.PAUSED: frozenset({Life.RESUMING, Life.STOPPING, Life.ENDED}),
    Life.RESUMING: frozenset({Life.RUNNING, Life.PAUSED, Life.STOPPING, Life.ENDED}),
    Life.STOPPING: frozenset({Life.ENDED}),
    Life.ENDED: frozenset(),
}


def may_become(source: Life, target: Life) -> bool:
    """Return whether a sandbox in `source` may become `target`."""
    return target in ALLOWED_LIVES[source]


def before(target: Life) -> tuple[Life, ...]:
    """Return the states from which a sandbox may become `target`."""
    return tuple(life for life in Life if may_become(life, target))
