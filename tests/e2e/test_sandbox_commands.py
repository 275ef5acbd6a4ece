"""`runner sandbox`, as somebody would type it."""

import json
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.test_command_line import RUNNER, runner
from tests.support.deployment import Deployment


@pytest.fixture(scope="module")
def env(shared: Deployment) -> Mapping[str, str]:
    """Return the variables that name a deployment."""
    return {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("sandbox-typist")}


@pytest.fixture(scope="module")
def made(env: Mapping[str, str]) -> Iterator[str]:
    """Return the id of a sandbox that was made by the command."""
    ran = runner("sandbox", "create", "--size", "nano", "-m", "of=tests", env=env)
    assert ran.returncode == 0, ran.stderr
    yield ran.stdout.strip()
    ended = runner("sandbox", "kill", ran.stdout.strip(), env=env)
    assert ended.returncode == 0, ended.stderr


def test_a_command_runs_there_as_it_would_here(made: str, env: Mapping[str, str]) -> None:
    """Its streams, its input and its exit code."""
    ran = runner("sandbox", "exec", made, "--", "sh", "-c", "cat; echo warn >&2; exit 4",
                 env=env, stdin="given")  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (4, "given", "warn\n")
    line = runner("sandbox", "exec", "-n", "--shell", made, "echo $((6 * 7))", env=env)
    assert (line.returncode, line.stdout) == (0, "42\n"), line.stderr
    late = runner("sandbox", "exec", "-n", "--timeout-s", "0.3", made, "sleep", "60", env=env)
    assert late.returncode == 124


def test_a_line_that_is_taken_for_a_program_is_told_of_the_shell(
    made: str, env: Mapping[str, str]
) -> None:
    refused = runner("sandbox", "exec", "-n", made, "ls | wc", env=env)
    assert refused.returncode == 1
    assert "--shell" in refused.stderr
    unknown = runner("sandbox", "exec", "-n", made, "nothing", env=env)
    assert "--shell" not in unknown.stderr


def test_files_are_copied_in_and_out(made: str, env: Mapping[str, str], tmp_path: Path) -> None:
    """With their mode; from standard input and to standard output, too."""
    tool = tmp_path / "tool.sh"
    tool.write_text("#!/bin/sh\necho runs\n")
    tool.chmod(0o755)
    assert runner("sandbox", "cp", str(tool), f"{made}:bin/", env=env).returncode == 0
    assert runner("sandbox", "cp", str(tool), f"{made}:", env=env).returncode == 0
    at_home = runner("sandbox", "exec", made, "cat", tool.name, env=env)
    assert at_home.stdout == tool.read_text()
    ran = runner("sandbox", "exec", "-n", made, "bin/tool.sh", env=env)
    assert ran.stdout == "runs\n", ran.stderr
    assert runner("sandbox", "cp", "-", f"{made}:piped", env=env, stdin="x").returncode == 0
    assert runner("sandbox", "cp", f"{made}:piped", "-", env=env).stdout == "x"
    assert runner("sandbox", "cp", f"{made}:piped", str(tmp_path), env=env).returncode == 0
    assert (tmp_path / "piped").read_text() == "x"
    missing = runner("sandbox", "cp", f"{made}:nothing", "-", env=env)
    assert missing.returncode == 1
    assert "No such file" in missing.stderr
    assert len(missing.stderr.splitlines()) == 1


def test_what_goes_on_behind_is_listed_and_its_output_read(
    made: str, env: Mapping[str, str]
) -> None:
    detached = runner("sandbox", "exec", "-d", "--tag", "behind", made, "--", "echo", "hidden",
                      env=env)  # fmt: skip
    number = detached.stdout.strip()
    assert runner("sandbox", "logs", "-f", made, number, env=env).stdout == "hidden\n"
    listed = json.loads(runner("sandbox", "processes", "--json", made, env=env).stdout)
    assert [each["process"] for each in listed if each["tag"] == "behind"] == [int(number)]


def test_ctrl_c_is_passed_on(made: str, env: Mapping[str, str]) -> None:
    command = [*RUNNER, "sandbox", "exec", "-n", made, "--", "sh", "-c",
        "trap 'echo caught; exit 9' INT; echo ready; while sleep 0.05; do :; done"]  # fmt: skip
    with subprocess.Popen(
        command, env={**env, "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    ) as typed:
        assert typed.stdout is not None
        assert typed.stdout.readline() == "ready\n"
        typed.send_signal(signal.SIGINT)
        assert typed.stdout.read() == "caught\n"
    assert typed.returncode == 9


def test_sandboxes_are_listed_shown_and_changed(made: str, env: Mapping[str, str]) -> None:
    listed = json.loads(runner("sandbox", "list", "--json", "-m", "of=tests", env=env).stdout)
    assert [each["id"] for each in listed["items"]] == [made]
    in_a_pipe = runner("sandbox", "list", "-m", "of=tests", env=env).stdout.splitlines()
    assert max(map(len, in_a_pipe)) <= 80
    short = in_a_pipe[1].split()[0]
    assert len(short) < len(made)
    shown = runner("sandbox", "show", short, env=env).stdout
    assert made in shown
    assert "running" in shown
    assert runner("sandbox", "extend", made, "0", env=env).stdout == "lives until killed\n"
    assert runner("sandbox", "pause", made, env=env).stdout == "paused\n"
    assert runner("sandbox", "resume", made, env=env).stdout == "running\n"
