"""Processes of ours that need not import everything anew: they are forked from one that has.

`runner api` and `runner worker` import for seconds, and tests start hundreds of them. What is
forked here is the same program with the arguments, environment, descriptors, working directory and
process group that it would have been started with, and nothing has run in it before but imports,
which have no effect. Other tests start the same commands as an operator does.

The server ends with its client, and what it has forked ends with it.
"""

import contextlib
import fcntl
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from runner.embedded.process import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "runner.__main__", "runner.cli.app", "runner.cli.serve", "uvloop",
    "runner.api.app", "runner.api.server", "runner.node.service",
)  # fmt: skip
"""What the API and the worker import before they serve, and with that nearly all that they use."""
COMMAND = [sys.executable, "-m", "runner"]
LARGEST = 2**17
MOST_FDS = 16
STANDARD = (0, 1, 2)
_HIGH = 512
"""Descriptors are moved there while those below are given their numbers."""


class Forked:
    """A process that the server has forked; as far as it goes, a `subprocess.Popen`."""

    def __init__(self, argv: Sequence[str], pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._argv = list(argv)
        self._ended = ended

    def poll(self) -> int | None:
        """Return its exit code, or a signal's number below 0, if it has ended."""
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        """Return that once it has ended. Raises TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self._argv, timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        """Signal it unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
            told = os.read(self._ended, 16)
            os.close(self._ended)
            # Nothing is told if the server itself has ended: it takes everything along.
            self.returncode = int(told) if told else -signal.SIGKILL
        return self.returncode


class ForkServer:
    """Forks processes of ours from one that has imported what they need."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._network = _network()
        self._link, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.support.forkserver", str(there.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[there.fileno()],
            )  # fmt: skip

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], log: IO[bytes], pass_fds: tuple[int, ...]
    ) -> Forked:
        """Start a command of ours, in a process group of its own, which writes to this log."""
        with Path(os.devnull).open("rb") as nothing:
            return self._forked(argv, env, (nothing, log, log), pass_fds)

    def run(
        self, *arguments: str, env: Mapping[str, str], stdin: str, timeout: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours to its end. Raises TimeoutExpired."""
        argv = [*COMMAND, *arguments]
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
            given.write(stdin.encode())
            given.seek(0)
            forked = self._forked(argv, env, (given, out, err), ())
            try:
                code = forked.wait(timeout)
            except subprocess.TimeoutExpired:
                forked.kill()
                raise
            for each in (out, err):
                each.seek(0)
            return subprocess.CompletedProcess(argv, code, out.read().decode(), err.read().decode())

    def _forked(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        standard: tuple[IO[bytes], IO[bytes], IO[bytes]],
        pass_fds: tuple[int, ...],
    ) -> Forked:
        if list(argv[: len(COMMAND)]) != COMMAND:
            raise ValueError(f"only commands of ours are forked, and not {argv}")
        ended, tells = os.pipe2(os.O_CLOEXEC)
        order = {
            "argv": argv[len(COMMAND) :], "env": dict(env), "cwd": str(Path.cwd()), "fds": pass_fds,
        }  # fmt: skip
        try:
            with self._turn:
                given = [tells, *(each.fileno() for each in standard), *pass_fds]
                socket.send_fds(self._link, [json.dumps(order).encode()], given)
                answer = self._link.recv(LARGEST)
        finally:
            os.close(tells)
        if not answer:
            raise ChildProcessError(f"the fork server has ended: {self._server.wait(10)}")
        return Forked(argv, int(answer), ended)

    @property
    def is_elsewhere(self) -> bool:
        """Whether what it forks would be in another network than this thread is."""
        return _network() != self._network

    def close(self) -> None:
        """End the server, and what it has forked."""
        self._link.close()
        self._server.wait(30)


def _network() -> str:
    return os.readlink("/proc/thread-self/ns/net")  # noqa: PTH115 - no path


@dataclass
class _Order:
    """What a fork is to become."""

    argv: list[str]
    env: dict[str, str]
    cwd: str
    fds: dict[int, int]
    """The descriptors that it gets, by the numbers that it knows them by."""

    def become(self) -> None:
        """Be that process, up to its first own statement."""
        os.setpgid(0, 0)
        die_with_parent()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        high = {to: fcntl.fcntl(of, fcntl.F_DUPFD, _HIGH) for to, of in self.fds.items()}
        os.closerange(0, _HIGH)
        for to, of in high.items():
            os.dup2(of, to)
        os.closerange(_HIGH, max(high.values()) + 1)
        os.environ.clear()
        os.environ.update(self.env)
        os.chdir(self.cwd)
        sys.argv = [str(ROOT / "runner" / "__main__.py"), *self.argv]


@dataclass
class _Server:
    link: socket.socket
    ends: dict[int, int] = field(default_factory=dict)
    """Where to tell of each child's end."""

    def serve(self) -> _Order | None:
        """Fork as asked until the client is gone; in a fork, return what it is to become."""
        woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes)
        while True:
            link = self.link.fileno()
            ready, _, _ = select.select([link, woken], [], [])
            if woken in ready:
                os.read(woken, 4096)
                self._reap()
            if link in ready:
                order = self._asked()
                if order is None:
                    return None
                said, tells = order
                pid = os.fork()
                if pid == 0:
                    # Its number will be another descriptor's.
                    self.link.detach()
                    return said
                self.ends[pid] = tells
                for each in said.fds.values():
                    os.close(each)
                self.link.send(str(pid).encode())

    def _asked(self) -> tuple[_Order, int] | None:
        text, fds, _, _ = socket.recv_fds(self.link, LARGEST, MOST_FDS)
        if not text:
            return None
        order: dict[str, Any] = json.loads(text)
        tells, *others = fds
        passed = dict(zip((*STANDARD, *order["fds"]), others, strict=True))
        return _Order(order["argv"], order["env"], order["cwd"], passed), tells

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                with contextlib.suppress(BrokenPipeError):  # nobody waits for it
                    os.write(self.ends[pid], str(os.waitstatus_to_exitcode(status)).encode())
                os.close(self.ends.pop(pid))


def _main() -> None:
    for name in MODULES:
        importlib.import_module(name)
    if len([*Path("/proc/self/task").iterdir()]) > 1:
        # A fork takes one thread along, and what the others hold is held for ever.
        raise RuntimeError("an import has started a thread")
    # Ctrl-C is for the client, which ends everything in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    order = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if order is not None:
        order.become()
        sys.modules["runner.__main__"].main()


if __name__ == "__main__":
    _main()
