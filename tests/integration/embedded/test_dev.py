"""However `runner dev` ends, everything that it started ends with it."""

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

from agent_runner import Client
from runner.embedded import stack
from runner.words.errors import SetupError
from tests.support.deployment import NO_POOL, deployment, eventually, state_folder

RUNNER = [sys.executable, "-m", "runner"]


@contextmanager
def dev(folder: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `runner dev` as a terminal would: in a process group of its own."""
    with subprocess.Popen(
        [*RUNNER, "dev"],
        env={**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": "0", **settings},
        process_group=0,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            eventually((folder / "run" / "dev.json").exists)
            yield process
        finally:
            process.kill()


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return a process and all below it."""
    return [
        psutil.Process(process.pid),
        *psutil.Process(process.pid).children(recursive=True),
    ]


def gone(processes: list[psutil.Process]) -> bool:
    """Return whether none of the processes runs; zombies do not count."""
    return not any(runs(each) for each in processes)


def runs(process: psutil.Process) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_ctrl_c_stops_every_part_in_order(image: None) -> None:
    """A terminal sends SIGINT to the whole group, but services must outlive their users."""
    with state_folder() as folder, dev(folder) as process:
        found = json.loads((folder / "run" / "dev.json").read_text())
        with Client(found["url"], found["api_key"]) as client:
            assert client.run(code="print(6 * 7)", language="python").stdout.text == "42\n"  # type: ignore[union-attr]
        running = family(process)
        assert len(running) > 4
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert gone(running)
        assert list((folder / "run").glob("services/*")) == []
        for log in (folder / "log").glob("*.log"):
            assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    "part",
    [
        "worker",
        "postgres",
        pytest.param("api", marks=pytest.mark.matrix),
        pytest.param("redis-server", marks=pytest.mark.matrix),
    ],
)
def test_a_part_that_dies_ends_everything_and_is_named(image: None, part: str) -> None:
    """No part is left that answers only half of the requests."""
    named = {"postgres": "PostgreSQL", "redis-server": "Redis"}.get(part, f"`runner {part}`")
    # No sandboxes here: nobody would remove those of a killed worker.
    no_pool = {"RUNNER_POOL": "0", "RUNNER_POOL_MAX": "0"}
    with state_folder() as folder, dev(folder, **no_pool) as process:
        running = family(process)
        (victim,) = (
            each
            for each in psutil.Process(process.pid).children()
            if part in (each.name(), *each.cmdline()[3:4])
        )
        victim.kill()
        assert process.wait(timeout=90) == 1
        assert process.stderr is not None
        assert f"{named} has ended by itself" in process.stderr.read().decode()
        eventually(lambda: gone(running), within_s=10)


def test_a_slow_host_waits_longer_until_api_and_worker_are_ready(
    image: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait that is too short for them is long enough with more patience."""
    monkeypatch.setattr(stack, "READY_AFTER_S", 0.1)
    with pytest.raises(SetupError, match="not ready"), deployment(patience=1, **NO_POOL):
        pass
    with deployment(patience=100, **NO_POOL):
        pass


def test_a_second_one_leaves_the_first_whole(image: None) -> None:
    """It ends with one line; the first one continues to run programs."""
    with state_folder() as folder, dev(folder):
        second = subprocess.run(
            [*RUNNER, "dev"],
            env={**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": "0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 78
        assert second.stderr.count("\n") == 1, second.stderr
        found = json.loads((folder / "run" / "dev.json").read_text())
        assert found["url"] in second.stderr
        with Client(found["url"], found["api_key"]) as client:
            assert client.run(code="print(6 * 7)", language="python").state == "succeeded"


def test_everything_dies_with_it_when_it_is_killed(image: None) -> None:
    with state_folder() as folder, dev(folder) as process:
        running = family(process)
        process.send_signal(signal.SIGKILL)
        eventually(lambda: gone(running), within_s=10)
