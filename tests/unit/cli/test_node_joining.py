"""Mistakes in joining are told before a token is used, and a token is never repeated."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runner.cli.app import app
from runner.door.identity import make_authority
from runner.door.joining import MOST_SETTINGS, JoinToken

TOKEN = JoinToken.make(bytes(32), "host-2")
NOWHERE = "127.0.0.1:1"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def nodes(state: Path, *words: str, given: str | None = None, **env: str) -> Result:
    return CliRunner().invoke(
        app, ["nodes", *words], input=given, env={"RUNNER_STATE_DIR": str(state), **env}
    )


@pytest.mark.parametrize("typed", [True, False])
def test_a_host_that_reaches_nobody_says_so(state: Path, *, typed: bool) -> None:
    """The token is typed, or comes from a pipe; either way, nothing repeats it."""
    words = ["join", NOWHERE, str(TOKEN) if typed else "-"]
    run = nodes(state, *words, given=None if typed else f"{TOKEN}\n")
    assert run.exit_code == 78
    assert f"nobody who admits nodes answers at {NOWHERE}" in run.output
    assert TOKEN.secret not in run.output
    assert not (state / "node.env").exists()


def test_a_token_of_another_node_is_not_tried(state: Path) -> None:
    run = nodes(state, "join", NOWHERE, str(TOKEN), RUNNER_NODE="host-3")
    assert run.exit_code == 1
    assert "RUNNER_NODE is host-3, but the token is for host-2" in run.output


def test_what_is_no_token_is_not_tried(state: Path) -> None:
    run = nodes(state, "join", NOWHERE, str(TOKEN)[:-20])
    assert "this is no token of `runner nodes invite`: copy it once more" in run.output
    assert TOKEN.secret not in run.output


@pytest.mark.parametrize("place", ["10.0.0.1", "host:", ":7444", "a b:1", "[::1:7444", "a:65536"])
def test_an_address_is_a_host_and_a_port(state: Path, place: str) -> None:
    run = nodes(state, "join", place, str(TOKEN))
    assert run.exit_code == 2
    assert "give a host and a port" in " ".join(run.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("RUNNER_DATABASE_OPERATOR_URL=postgresql://x", "RUNNER_DATABASE_OPERATOR_URL"),
        ("RUNNER_DATABASE_OWNER_URL=postgresql://x", "RUNNER_DATABASE_OWNER_URL"),
        ("RUNNER_DATABASE_SUPERUSER_URL=postgresql://x", "RUNNER_DATABASE_SUPERUSER_URL"),
        ("RUNNER_DATABASE_API_URL=postgresql://x", "RUNNER_DATABASE_API_URL"),
        ("RUNNER_STATE_DIR=/elsewhere", "RUNNER_STATE_DIR"),
        ("PATH=/elsewhere", "RUNNER_NAME=VALUE"),
        ('RUNNER_ZONE="it\'s"', "without quotes"),
        ("RUNNER_ZONE='a", "without quotes"),
        ("\n".join(f"RUNNER_{number}=1" for number in range(MOST_SETTINGS)), "at most 64 lines"),
    ],
)
def test_a_node_is_given_nothing_of_the_operators(
    tmp_path: Path, state: Path, line: str, told: str
) -> None:
    """The control: another setting of the same file is taken, and the database asked for."""
    make_authority(tmp_path / "authority")
    words = ["admit", "--authority", str(tmp_path / "authority"), "--listen", NOWHERE]
    good = "# for each node\nRUNNER_REDIS_URL='rediss://:p@redis:6379/0'\n"
    file = tmp_path / "give.env"
    file.write_text(good + line)
    run = nodes(state, *words, "--give", str(file))
    assert run.exit_code == 1
    assert told in run.output
    file.write_text(good)
    run = nodes(state, *words, "--give", str(file))
    assert "RUNNER_DATABASE_OPERATOR_URL is not set" in run.output
