"""The life of an execution: every state, every allowed change, and why it ended.

The same table guards the database: a change is a compare-and-set on (state, attempt), and
`store/queries/executions.sql` names only sources that this table allows (an architecture test
compares the two).
"""

from enum import StrEnum


class State(StrEnum):
    """The state of an execution. It has exactly one, and never leaves a terminal one."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT_EXCEEDED = "output_limit_exceeded"
    SYSTEM_ERROR = "system_error"


class Reason(StrEnum):
    """The reason for an execution's state: one machine-readable word, stored beside a sentence."""

    COMPLETED = "completed"
    EXIT_NONZERO = "exit_nonzero"
    KILLED_BY_SIGNAL = "killed_by_signal"
    COMMAND_NOT_STARTED = "command_not_started"
    WALL_CLOCK_LIMIT = "wall_clock_limit"
    CANCEL_REQUESTED = "cancel_requested"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_FLOOD = "output_flood"
    WORKER_LOST = "worker_lost"
    WORKER_DRAINED = "worker_drained"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    SECRET_UNAVAILABLE = "secret_unavailable"  # noqa: S105 - a reason's name
    EGRESS_NOT_OPENED = "egress_not_opened"
    ISOLATION_MISSING = "isolation_missing"
    IMAGE_MISSING = "image_missing"
    SANDBOX_START_FAILED = "sandbox_start_failed"
    SANDBOX_DIED = "sandbox_died"
    SANDBOX_PROTOCOL = "sandbox_protocol_violation"
    RESULT_NOT_STORED = "result_not_stored"
    INTERNAL = "internal_error"


WAITING = frozenset({State.QUEUED})
ACTIVE = frozenset({State.STARTING, State.RUNNING})
ENDED = frozenset(
    {
        State.SUCCEEDED,
        State.FAILED,
        State.TIMED_OUT,
        State.CANCELLED,
        State.OUT_OF_MEMORY,
        State.OUTPUT_LIMIT_EXCEEDED,
        State.SYSTEM_ERROR,
    }
)

ALLOWED: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.STARTING, State.CANCELLED, State.SYSTEM_ERROR}),
    # Back to QUEUED only if the attempt's worker was lost or drained before the program began, or
    # if the client asked for a rerun.
    State.STARTING: frozenset(
        {State.RUNNING, State.QUEUED, State.FAILED, State.CANCELLED, State.SYSTEM_ERROR}
    ),
    State.RUNNING: ENDED | {State.QUEUED},
    **{state: frozenset() for state in ENDED},
}


def may_change(source: State, target: State) -> bool:
    """Return whether an execution in `source` may become `target`."""
    return target in ALLOWED[source]
