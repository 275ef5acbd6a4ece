"""`runner run` ends as the program did."""

from dataclasses import replace

import pytest

from agent_runner import Execution
from agent_runner.answers import EXECUTION
from runner.cli.run import exit_code

SUCCEEDED: Execution = replace(
    EXECUTION.read(
        {
            **dict.fromkeys(
                (
                    "id",
                    "created_at",
                    "image",
                    "size",
                    "started_at",
                    "ended_at",
                    "project",
                    "queue_position",
                    "estimated_start_s",
                ),
                "",
            ),
            "state": "succeeded",
            "attempt": 1,
            "metadata": {},
            "result": None,
        }
    ),
    exit_code=0,
)


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (SUCCEEDED, 0),
        (replace(SUCCEEDED, state="failed", exit_code=3), 3),
        (replace(SUCCEEDED, state="failed", exit_code=None, signal="SIGSEGV"), 139),
        (replace(SUCCEEDED, state="failed", exit_code=None, signal="SIG35"), 163),
        (replace(SUCCEEDED, state="timed_out", exit_code=None, signal="SIGTERM"), 124),
        (replace(SUCCEEDED, state="out_of_memory", exit_code=None, signal="SIGKILL"), 137),
        (replace(SUCCEEDED, state="cancelled", exit_code=None), 130),
        (replace(SUCCEEDED, state="system_error", exit_code=None), 70),
    ],
)
def test_the_exit_code_is_the_programs(ended: Execution, code: int) -> None:
    """It is 128 + n for a signal, 124 for a timeout as with timeout(1), and 70 for our failures."""
    assert exit_code(ended) == code
