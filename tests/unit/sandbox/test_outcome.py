"""An ending has one meaning, and one of several facts decides it."""

from typing import Any

import pytest

from runner.sandbox.guest.ending import Cause, Ending
from runner.sandbox.guest.outcome import classify, signal_name
from runner.words.execution import Output, Usage
from runner.words.states import Reason, State


def ending(**facts: Any) -> Ending:
    """Return an ending with code 0, except for these facts."""
    plain: dict[str, Any] = {
        "command": "python3",
        "cause": Cause.NONE,
        "exit_code": 0,
        "signal": None,
        "not_started": None,
        "oom_killed": False,
        "container_died": False,
        "stdout": Output(0, truncated=False),
        "stderr": Output(0, truncated=False),
        "usage": Usage(wall_s=1.0),
        "limits_hit": (),
    }
    return Ending(**{**plain, **facts})


@pytest.mark.parametrize(
    ("command", "shown"),
    [("pythn", "'pythn'"), ("a\n\u202eb", r"'a\n\u202eb'"), ("x" * 200, f"'{'x' * 128}…'")],
)
def test_a_command_that_was_not_started_is_named(command: str, shown: str) -> None:
    """The name is escaped, and cut if it is long."""
    verdict = classify(ending(command=command, exit_code=None, not_started="ENOENT"))
    assert verdict.detail.startswith(f"The command {shown} was not started: ")


@pytest.mark.parametrize(
    ("facts", "state", "reason"),
    [
        ({}, State.SUCCEEDED, Reason.COMPLETED),
        ({"exit_code": 1}, State.FAILED, Reason.EXIT_NONZERO),
        ({"exit_code": None, "signal": 11}, State.FAILED, Reason.KILLED_BY_SIGNAL),
        ({"exit_code": None, "not_started": "ENOENT"}, State.FAILED, Reason.COMMAND_NOT_STARTED),
        ({"cause": Cause.DEADLINE, "exit_code": None}, State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT),
        ({"cause": Cause.CANCEL, "exit_code": None}, State.CANCELLED, Reason.CANCEL_REQUESTED),
        (
            {"cause": Cause.FLOOD, "exit_code": None},
            State.OUTPUT_LIMIT_EXCEEDED,
            Reason.OUTPUT_FLOOD,
        ),
        (
            {"oom_killed": True, "exit_code": None, "signal": 9},
            State.OUT_OF_MEMORY,
            Reason.MEMORY_LIMIT,
        ),
        # A shell reports its killed child so.
        ({"oom_killed": True, "exit_code": 137}, State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT),
        ({"container_died": True, "exit_code": None}, State.SYSTEM_ERROR, Reason.SANDBOX_DIED),
        (
            {"container_died": True, "oom_killed": True, "exit_code": None},
            State.OUT_OF_MEMORY,
            Reason.MEMORY_LIMIT,
        ),
        # Claims of success for a program that we ended are not believed.
        ({"cause": Cause.DEADLINE}, State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT),
        ({"cause": Cause.CANCEL}, State.CANCELLED, Reason.CANCEL_REQUESTED),
        ({"cause": Cause.FLOOD}, State.OUTPUT_LIMIT_EXCEEDED, Reason.OUTPUT_FLOOD),
        # Several at once: the earlier in the precedence decides.
        ({"cause": Cause.CANCEL, "oom_killed": True}, State.CANCELLED, Reason.CANCEL_REQUESTED),
        ({"cause": Cause.DEADLINE, "signal": 15}, State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT),
        # A child was killed for memory and its parent coped.
        ({"oom_killed": True}, State.SUCCEEDED, Reason.COMPLETED),
    ],
)
def test_facts_decide_state_and_reason(facts: dict[str, Any], state: State, reason: Reason) -> None:
    """The order is: our own fault, cancellation, deadline, flood, memory, signal, exit code."""
    assert classify(ending(**facts))[:2] == (state, reason)


def test_signals_have_names() -> None:
    """This includes signals for which Python has no name."""
    assert [signal_name(n) for n in (9, 11, 40)] == ["SIGKILL", "SIGSEGV", "SIG40"]


def test_an_unknown_reason_not_to_start_is_told_as_it_is() -> None:
    """The name of the error stands in for a sentence."""
    verdict = classify(ending(exit_code=None, not_started="ELOOP"))
    assert verdict.detail == "The command 'python3' was not started: ELOOP."
