"""`runner dev` runs the whole stack in the foreground, tells how to use it, and stops cleanly."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from runner.client import Client
from tests.deployment import eventually, state_folder

RUNNER = [sys.executable, "-m", "runner"]


@contextmanager
def dev(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run `runner dev` as a terminal would: in a process group of its own."""
    with subprocess.Popen(
        [*RUNNER, "dev"],
        env=environment(folder),
        process_group=0,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            eventually((folder / "run" / "dev.json").exists)
            yield process
        finally:
            process.kill()


def environment(folder: Path) -> dict[str, str]:
    """Return the variables for a deployment of its own."""
    return {**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": "0", "COLUMNS": "200"}


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return a process and all below it."""
    return [
        psutil.Process(process.pid),
        *psutil.Process(process.pid).children(recursive=True),
    ]


def gone(processes: list[psutil.Process]) -> bool:
    """Return whether none of the processes runs; one that waits for init does not."""
    return not any(
        each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in processes
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped_and_leaves_nothing_running(
    image: None, number: signal.Signals
) -> None:
    with state_folder() as folder, dev(folder) as process:
        found = json.loads((folder / "run" / "dev.json").read_text())
        with Client(found["url"], found["api_key"]) as client:
            assert client.run(code="print(6 * 7)", language="python").stdout.text == "42\n"  # type: ignore[union-attr]
        running = family(process)
        assert len(running) > 4
        os.killpg(process.pid, number)
        assert process.wait(timeout=60) == 0
        assert gone(running)
        assert process.stdout is not None
        said = process.stdout.read()
        assert found["url"] in said
        assert found["api_key"] in said
        assert not (folder / "run" / "dev.json").exists()
        assert list((folder / "run").glob("services/*")) == []
        for log in (folder / "log").glob("*.log"):
            assert "Traceback" not in log.read_text()


def test_a_command_finds_it_and_ends_with_the_programs_exit_code(
    image: None, tmp_path: Path
) -> None:
    program = tmp_path / "three.py"
    program.write_text("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    with state_folder() as folder, dev(folder):
        done = subprocess.run(
            [*RUNNER, "run", str(program)],
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 3
    assert done.stdout == "out\n"
    assert done.stderr.startswith("err\n")


def test_everything_dies_with_it_when_it_is_killed(image: None) -> None:
    with state_folder() as folder, dev(folder) as process:
        running = family(process)
        process.send_signal(signal.SIGKILL)
        eventually(lambda: gone(running), within_s=10)
