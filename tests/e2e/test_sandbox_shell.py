"""`runner sandbox shell`, as somebody would type in it: on a pseudo-terminal."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import pytest

from agent_runner import Client, Sandbox
from tests.e2e.test_command_line import RUNNER, runner
from tests.support.deployment import Deployment, eventually
from tests.support.forwarder import Forwarder

WITHIN_S = 60.0


class Window:
    """A terminal with a shell in it, as a terminal emulator holds it."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], rows: int = 33) -> None:
        self.master, self._slave = pty.openpty()
        self.shown = b""
        self.resize(rows, 101, tell=False)
        self.before = self.modes()
        self.typed = subprocess.Popen(
            [*RUNNER, "sandbox", "shell", *arguments],
            env={**os.environ, "TERM": "xterm-256color", **env},
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.typed.kill()
        self.typed.wait()
        os.close(self.master)
        os.close(self._slave)

    def modes(self) -> list[Any]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self._slave)

    def resize(self, rows: int, columns: int, *, tell: bool = True) -> None:
        """Give the window another size, and say so."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if tell:
            self.typed.send_signal(signal.SIGWINCH)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def until(self, wanted: bytes) -> bytes:
        """Return what is shown until a pattern has come."""
        until = time.monotonic() + WITHIN_S
        while not (found := re.search(wanted, self.shown)):
            left = until - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(0.0, min(left, 0.5)))
            if ready:
                self.shown += os.read(self.master, 65536)
            assert left > 0 and (ready or self.typed.poll() is None), self.shown
        got, self.shown = self.shown[: found.end()], self.shown[found.end() :]
        return got

    def exit_code(self) -> int:
        """Return the command's exit code; what it still shows is read."""
        until = time.monotonic() + WITHIN_S
        while self.typed.poll() is None and time.monotonic() < until:
            if select.select([self.master], [], [], 0.1)[0]:
                self.shown += os.read(self.master, 65536)
        code = self.typed.wait(timeout=1)
        # What it showed last may not have been read when it ended.
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536)
        return code


@pytest.fixture(scope="module")
def env(shared: Deployment) -> Mapping[str, str]:
    """Return the variables that name a deployment."""
    return {"RUNNER_URL": shared.url, "RUNNER_API_KEY": shared.key("shell-typist")}


@pytest.fixture(scope="module")
def api(shared: Deployment) -> Client:
    """Return a client of the same tenant."""
    return shared.client("shell-typist")


@pytest.fixture(scope="module")
def sandbox(api: Client) -> Iterator[Sandbox]:
    """Return a sandbox that lives."""
    with api.sandboxes.create(size="small", timeout_s=None) as made:
        yield made


@contextmanager
def window(sandbox: Sandbox, env: Mapping[str, str]) -> Iterator[Window]:
    """Open a window with a shell in a sandbox."""
    with Window([sandbox.id], env) as opened:
        opened.until(rb"[$#] ")
        yield opened


def test_a_shell_is_lived_in(sandbox: Sandbox, env: Mapping[str, str]) -> None:
    """The window's size, now and later; Ctrl-C and Ctrl-Z inside; the shell's exit code."""
    with window(sandbox, env) as typed:
        assert typed.modes() != typed.before
        typed.type(b"stty size\r")
        typed.until(rb"33 101")
        typed.resize(44, 123)
        # The new size and what is typed may come in any order.
        typed.type(b"until stty size | grep '44 123'; do sleep 0.05; done; echo u$((6 * 7))\r")
        typed.until(rb"u42")
        # What says it is the one that sleeps: the shell gave it the terminal before it ran.
        typed.type(b"sh -c 'echo on$((6 * 7)); exec sleep 600'\r")
        typed.until(rb"on42")
        typed.type(b"\x03")
        typed.type(b"sh -c 'echo off$((6 * 7)); exec sleep 600'\r")
        typed.until(rb"off42")
        typed.type(b"\x1a")
        typed.until(rb"Stopped")
        typed.type(b"kill %1; exit 5\r")
        typed.type(b"exit 5\r")
        assert typed.exit_code() == 5
        assert typed.modes() == typed.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_left_as_it_was_when_the_command_is_ended(
    sandbox: Sandbox, env: Mapping[str, str], number: signal.Signals
) -> None:
    """And what ran in it inside is ended, as by a window that is closed."""
    with window(sandbox, env) as typed:
        typed.type(b"echo on$((6 * 7)); sleep 601\r")
        typed.until(rb"on42")
        typed.typed.send_signal(number)
        assert typed.exit_code() == 128 + number
        assert typed.modes() == typed.before
    eventually(lambda: all(each.ended for each in sandbox.processes()), within_s=WITHIN_S)


def test_the_terminal_is_left_as_it_was_when_the_sandbox_ends(
    api: Client, env: Mapping[str, str]
) -> None:
    with api.sandboxes.create(size="nano") as brief, window(brief, env) as typed:
        brief.kill()
        assert typed.exit_code() == 1
        assert typed.modes() == typed.before
        assert b"error:" in typed.shown


def test_without_an_id_a_sandbox_is_made_and_killed(api: Client, env: Mapping[str, str]) -> None:
    with Window(["--size", "nano"], env) as typed:
        typed.until(rb"[$#] ")
        made = {each.id for each in api.sandboxes.list(state=["running"])[0] if each.size == "nano"}
        assert len(made) == 1
        typed.type(b"exit\r")
        assert typed.exit_code() == 0
        assert typed.modes() == typed.before
    assert api.sandboxes.get(made.pop()).info.reason == "killed"


def test_a_lost_connection_is_opened_again(
    shared: Deployment, sandbox: Sandbox, env: Mapping[str, str]
) -> None:
    """By way of a forwarder that is cut: nothing is missed or repeated."""
    with (
        Forwarder(shared.url) as forwarder,
        window(sandbox, {**env, "RUNNER_URL": forwarder.url}) as typed,
    ):
        typed.type(b"for n in 1 2 3 4 5 6; do echo line$n; sleep 0.5; done; echo a$((6 * 7))\r")
        typed.until(rb"line2\r")
        forwarder.cut()
        shown = typed.until(rb"a42")
        assert re.findall(rb"line(\d)\r", shown) == [b"3", b"4", b"5", b"6"]
        typed.type(b"exit 3\r")
        assert typed.exit_code() == 3
        assert typed.modes() == typed.before


def test_in_a_pipe_it_says_what_to_use(sandbox: Sandbox, env: Mapping[str, str]) -> None:
    ran = runner("sandbox", "shell", sandbox.id, env=env, stdin="")
    assert ran.returncode == 1
    assert "sandbox exec" in ran.stderr
