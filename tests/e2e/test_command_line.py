"""The command line, as somebody would type it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.deployment import Deployment, eventually, state_folder

RUNNER = [sys.executable, "-m", "runner"]


def runner(*arguments: str, env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [*RUNNER, *arguments],
        env={**os.environ, "COLUMNS": "200", **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def env(shared: Deployment) -> Mapping[str, str]:
    """Return the variables that name a deployment."""
    return {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("typist")}


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a state folder."""
    with state_folder() as made:
        yield made


def test_run_streams_output_and_exits_as_the_program(
    env: Mapping[str, str], tmp_path: Path
) -> None:
    """stdout, stderr, exit code and artifacts arrive where they would without a sandbox."""
    program = tmp_path / "hello.py"
    program.write_text(
        "import sys\nprint(open('in.txt').read())\nprint('warn', file=sys.stderr)\n"
        "open('out.txt', 'w').write('made')\nsys.exit(4)"
    )
    (tmp_path / "in.txt").write_text("given")
    ran = runner("run", str(program), "-f", str(tmp_path / "in.txt"), "--save-to",
                 str(tmp_path / "saved"), env=env)  # fmt: skip
    assert (ran.returncode, ran.stdout) == (4, "given\n"), ran.stderr
    assert ran.stderr.startswith("warn\n")
    assert (tmp_path / "saved" / "out.txt").read_text() == "made"


def test_executions_are_listed_shown_followed_and_cancelled(
    env: Mapping[str, str], shared: Deployment
) -> None:
    """Each by its id."""
    client = shared.client("typist")
    submitted = client.submit(code="print('early', flush=True)\nimport time\ntime.sleep(60)",
                              language="python")  # fmt: skip
    eventually(lambda: client.get(submitted.id).state == "running")
    assert submitted.id in runner("executions", "list", env=env).stdout
    assert runner("executions", "cancel", submitted.id, env=env).returncode == 0
    assert runner("executions", "logs", "-f", submitted.id, env=env).stdout == "early\n"
    assert "cancel_requested" in runner("executions", "show", submitted.id, env=env).stdout


def test_output_that_was_cut_says_so(env: Mapping[str, str], tmp_path: Path) -> None:
    """On stderr, with how much is missing, where it is missing and at the end."""
    program = tmp_path / "long.py"
    program.write_text("print('x' * 3000)\nprint('the summary')\n")
    limits = ("--output-kb", "2")
    ran = runner("run", str(program), *limits, env=env)
    assert (ran.returncode, ran.stdout) == (0, "x" * 2048)
    assert "stdout was cut: 965 of 3,013 bytes left out at its end" in ran.stderr
    ran = runner("run", str(program), *limits, "--output-keep", "head_and_tail", env=env)
    assert ran.stdout == "x" * 2035 + "\nthe summary\n"
    assert "stdout: [… 965 bytes left out …]" in ran.stderr
    assert "965 of 3,013 bytes left out between its beginning and its end" in ran.stderr


def test_the_audit_log_is_listed_and_verified(env: Mapping[str, str]) -> None:
    """Exit code 0 says that it is whole."""
    assert "tenant:create" in runner("audit", "list", env=env).stdout
    verified = runner("audit", "verify", env=env)
    assert (verified.returncode, verified.stdout[:5]) == (0, "whole")


def test_a_wrong_key_is_told_in_a_line(env: Mapping[str, str]) -> None:
    """No traceback, and the key is not repeated."""
    key = "rk_aaaaaaaaaaaa_" + "A" * 43
    ran = runner("executions", "list", env={**env, "RUNNER_API_KEY": key})
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: a valid API key is needed")
    assert key not in ran.stderr + ran.stdout


def test_a_wrong_setting_is_named_without_its_value() -> None:
    """Exit code 78, EX_CONFIG."""
    ran = runner("worker", env={"RUNNER_LEASE_S": "s3cret"})
    assert ran.returncode == 78
    assert "RUNNER_LEASE_S" in ran.stderr
    assert "s3cret" not in ran.stderr


def test_doctor_and_images_tell_what_is_there(image: None) -> None:
    """The host's facts, and the built image."""
    assert "Docker Engine" in runner("doctor", env={}).stdout
    assert "sha256:" in runner("images", "list", env={}).stdout


def test_dev_prints_a_key_that_works_and_stops_on_ctrl_c(image: None, folder: Path) -> None:
    """Another terminal finds it by itself; afterwards nothing of it runs."""
    env = {**os.environ, "RUNNER_STATE_DIR": str(folder), "RUNNER_PORT": "0", "COLUMNS": "200"}
    with subprocess.Popen([*RUNNER, "dev"], env=env, stdout=subprocess.PIPE, text=True) as dev:
        eventually((folder / "run" / "dev.json").exists)
        assert (folder / "run" / "dev.json").stat().st_mode & 0o077 == 0
        listed = runner("executions", "list", env={"RUNNER_STATE_DIR": str(folder)})
        assert listed.returncode == 0, listed.stderr
        dev.send_signal(signal.SIGINT)
        assert dev.wait(60) == 0
        assert dev.stdout is not None and "rk_" in dev.stdout.read()
    assert not (folder / "run" / "dev.json").exists()
    assert left_running(folder) == []


def test_the_demo_shows_everything_and_leaves_nothing(image: None, folder: Path) -> None:
    """Exit code 0 only if all it shows came out right."""
    ran = runner("demo", env={"RUNNER_STATE_DIR": str(folder)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Everything shown came out right." in ran.stdout
    assert "succeeded" in ran.stdout
    assert list(folder.iterdir()) == []
    assert left_running(folder) == []


def left_running(folder: Path) -> list[str]:
    """Return the command lines of processes that name a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found
