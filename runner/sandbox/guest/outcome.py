"""The meaning of an ending: facts in, one state with one reason out.

Precedence, the first that holds: our own fault, cancellation, deadline, output flood, program not
started, memory, signal, exit code. A program that we ended did not succeed, whatever its report.
"""

import signal
from typing import NamedTuple

from runner.sandbox.guest.artifacts import CollectedFiles
from runner.sandbox.guest.ending import Cause, Ending
from runner.sandbox.guest.sandbox import Sandbox
from runner.words.execution import Result
from runner.words.states import Reason, State


class Verdict(NamedTuple):
    """State, machine-readable reason, and a sentence for people."""

    state: State
    reason: Reason
    detail: str


_NOT_STARTED = {
    "ENOENT": "the image has no such program, or not the interpreter that its first line names",
    "EACCES": "it is not executable",
    "ENOEXEC": "it is not a program that this system can execute",
    "ENOTDIR": "a part of its path is not a directory",
    "E2BIG": "its arguments and environment are too long",
    "EAGAIN": "the pids limit leaves no room for it",
    "ENOMEM": "the memory limit leaves no room for it",
    "ENOSPC": "the disk limit leaves no room for the files that its template begins with",
}
_MAX_SHOWN = 128
"""Characters of a command's name in a sentence about it."""


def classify(ending: Ending) -> Verdict:
    """Return what the ending means for its execution."""
    if ending.container_died and not ending.oom_killed:
        return Verdict(
            State.SYSTEM_ERROR, Reason.SANDBOX_DIED, "The sandbox ended without a report."
        )
    if (ended_by_us := _ended_by_us(ending)) is not None:
        return ended_by_us
    return _ended_by_itself(ending)


def _ended_by_us(ending: Ending) -> Verdict | None:
    match ending.cause:
        case Cause.CANCEL:
            return Verdict(
                State.CANCELLED, Reason.CANCEL_REQUESTED, "The execution was cancelled as it ran."
            )
        case Cause.DEADLINE:
            return Verdict(
                State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT, "The program reached its time limit."
            )
        case Cause.FLOOD:
            return Verdict(
                State.OUTPUT_LIMIT_EXCEEDED,
                Reason.OUTPUT_FLOOD,
                "The program put out more than this deployment lets one execution discard.",
            )
        case Cause.NONE:
            return None


def _ended_by_itself(ending: Ending) -> Verdict:
    if ending.not_started is not None:
        why = _NOT_STARTED.get(ending.not_started, ending.not_started)
        return Verdict(
            State.FAILED,
            Reason.COMMAND_NOT_STARTED,
            f"The command {shown(ending.command)} was not started: {why}.",
        )
    if ending.oom_killed and ending.exit_code != 0:
        return Verdict(
            State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT, "The program reached its memory limit."
        )
    if ending.signal is not None:
        name = signal_name(ending.signal)
        return Verdict(State.FAILED, Reason.KILLED_BY_SIGNAL, f"The program was ended by {name}.")
    if ending.exit_code == 0:
        return Verdict(State.SUCCEEDED, Reason.COMPLETED, "The program exited with code 0.")
    return Verdict(
        State.FAILED, Reason.EXIT_NONZERO, f"The program exited with code {ending.exit_code}."
    )


def shown(command: str) -> str:
    """Return a command's name as a sentence can hold it: quoted, escaped and not too long."""
    cut = command if len(command) <= _MAX_SHOWN else f"{command[:_MAX_SHOWN]}…"
    return repr(cut)


def signal_name(number: int) -> str:
    """Return a signal's name as signal(7) has it; real-time ones by their number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def result_of(
    ending: Ending, verdict: Verdict, sandbox: Sandbox, collected: CollectedFiles
) -> Result:
    """Return the result to store."""
    refused = collected.refused
    if (unnamed := collected.refused_total - len(refused)) > 0:
        refused = (*refused, f"and {unnamed} more")
    return Result(
        state=verdict.state,
        reason=verdict.reason,
        detail=verdict.detail,
        exit_code=ending.exit_code,
        signal=None if ending.signal is None else signal_name(ending.signal),
        stdout=ending.stdout,
        stderr=ending.stderr,
        usage=ending.usage,
        image_digest=sandbox.identity.image_digest,
        profile_hash=sandbox.identity.profile_hash,
        limits_hit=ending.limits_hit,
        artifacts_refused=refused,
    )
