"""A command that is forked is the one that would have been started."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest

from runner.embedded.stack import StartedProcess
from tests.support import forkserver
from tests.support.deployment import eventually
from tests.support.forkserver import COMMAND, Forked, ForkServer

Start: TypeAlias = Callable[..., Forked]
# A tenant's command that waits for a server that never answers.
WAITS = ("executions", "list")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


@dataclass
class Silent:
    """A server that accepts a connection, and says nothing."""

    listener: socket.socket
    accepted: list[socket.socket] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The environment of a command that is sent there."""
        address = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        return {"RUNNER_URL": address, "RUNNER_API_KEY": "rk_x"}

    def await_client(self) -> None:
        """Return once a command waits for an answer."""
        self.accepted.append(self.listener.accept()[0])


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Return a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        made = Silent(listener)
        yield made
        for each in made.accepted:
            each.close()


@pytest.fixture
def start(server: ForkServer, tmp_path: Path) -> Start:
    """Return what starts a command with a log in this test's folder."""

    def begin(*arguments: str, **env: str) -> Forked:
        with (tmp_path / "log").open("ab") as log:
            return server.spawn([*COMMAND, *arguments], {"PATH": os.defpath, **env}, log, ())

    return begin


def test_its_output_and_exit_code_are_those_of_the_command(start: Start, tmp_path: Path) -> None:
    assert start("--help").wait(20) == 0
    assert start("no-such-command").wait(20) == 2
    said = (tmp_path / "log").read_text()
    assert "Self-hosted, multi-tenant runner" in said
    assert "no-such-command" in said


def test_a_command_that_is_run_has_input_and_two_outputs(
    server: ForkServer, tmp_path: Path
) -> None:
    env = {"PATH": os.defpath, "RUNNER_STATE_DIR": str(tmp_path)}
    told = server.run("keys", "create", "--help", env=env, stdin="", timeout=60)
    assert (told.returncode, told.stderr) == (0, "")
    assert "--tenant" in told.stdout
    wrong = server.run("no-such-command", env=env, stdin="", timeout=60)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no-such-command" in wrong.stderr


def test_it_has_the_environment_that_it_is_given_and_no_other(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two in turn, as the second one must not have the first one's."""
    monkeypatch.setenv("RUNNER_PORT", "not a number")
    wrong = start("api", RUNNER_LEASE_S="also wrong")
    assert wrong.wait(20) != 0
    said = (tmp_path / "log").read_text().lower()
    assert "lease_s" in said
    assert "port" not in said
    (tmp_path / "log").unlink()
    assert start("api", RUNNER_STATE_DIR=str(tmp_path)).wait(20) != 0
    said = (tmp_path / "log").read_text()
    assert "RUNNER_REDIS_URL" in said
    assert "lease_s" not in said.lower()


def test_it_has_the_descriptors_that_are_passed_on_and_no_others(
    server: ForkServer, silent: Silent
) -> None:
    """By the numbers that they have here."""
    given = os.open(os.devnull, os.O_RDONLY)
    with Path(os.devnull).open("wb") as log:
        forked = server.spawn([*COMMAND, *WAITS], silent.env, log, (given,))
    os.close(given)
    silent.await_client()
    links = Path(f"/proc/{forked.pid}/fd").iterdir()
    named = {int(each.name): str(each.readlink()) for each in links}
    forked.kill()
    assert forked.wait(20) == -signal.SIGKILL
    assert {named.pop(number) for number in (0, 1, 2, given)} == {os.devnull}
    assert all(to.startswith(("socket:", "anon_inode:")) for to in named.values()), named


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_as_it_ends_the_command(
    start: Start, silent: Silent, by: signal.Signals
) -> None:
    codes = []
    started = subprocess.Popen(
        [*COMMAND, *WAITS],
        env={**os.environ, **silent.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    both: tuple[StartedProcess, ...] = (started, start(*WAITS, **silent.env))
    for _ in both:
        silent.await_client()
    for each in both:
        assert each.poll() is None
        each.send_signal(by)
        codes.append(each.wait(20))
    assert codes[0] == codes[1] != 0


def test_it_is_waited_for_no_longer_than_asked(start: Start, silent: Silent) -> None:
    forked = start(*WAITS, **silent.env)
    with pytest.raises(subprocess.TimeoutExpired):
        forked.wait(0.2)
    forked.kill()
    assert forked.wait(20) == -signal.SIGKILL
    forked.kill()


def test_it_leads_a_process_group_of_its_own(start: Start, silent: Silent) -> None:
    forked = start(*WAITS, **silent.env)
    silent.await_client()
    assert os.getpgid(forked.pid) == forked.pid
    forked.kill()
    forked.wait(20)


def test_it_ends_with_the_process_that_wanted_it(silent: Silent) -> None:
    """As a command does that was started: nothing outlives a test that crashed."""
    program = (
        "import os, time\n"
        "from tests.support.forkserver import COMMAND, ForkServer\n"
        f"command, env = [*COMMAND, *{WAITS!r}], {silent.env!r}\n"
        "forked = ForkServer().spawn(command, env, open(os.devnull, 'wb'), ())\n"
        "print(forked.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout is not None
        pid = int(client.stdout.readline())
        silent.await_client()
        assert Path(f"/proc/{pid}").exists()
        client.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_only_commands_of_ours_are_forked(server: ForkServer) -> None:
    with Path(os.devnull).open("wb") as log, pytest.raises(ValueError, match="only commands"):
        server.spawn([sys.executable, "-c", "1"], {}, log, ())


def test_a_thread_in_another_network_is_told_that_a_fork_would_not_be_there(
    server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one that plays a further host."""
    assert not server.is_elsewhere
    monkeypatch.setattr(forkserver, "_network", lambda: "net:[1]")
    assert server.is_elsewhere
