"""What the tests themselves rely on."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.deployment import new_state_folder, remove_abandoned, state_folder

MAKES_ONE = f"import {new_state_folder.__module__} as made; print(made.new_state_folder()); input()"


def test_the_folder_of_a_killed_test_process_is_removed_and_no_other() -> None:
    with (
        state_folder() as ours,
        subprocess.Popen(
            [sys.executable, "-c", MAKES_ONE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        ) as other,
    ):
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (theirs / "services").mkdir()
        remove_abandoned()
        assert theirs.exists(), "its process lives"
        other.send_signal(signal.SIGKILL)
        other.wait(timeout=20)
        remove_abandoned()
        assert not theirs.exists()
        assert ours.exists()
