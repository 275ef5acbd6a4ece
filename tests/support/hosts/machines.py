"""Machines that can lose their power or their cable, on a switch of their own.

A machine is what its first process holds, in namespaces (namespaces(7)). If that process is killed,
the kernel kills every other process of its PID namespace at once, and its mounts and its end of the
cable are gone: a power failure. Its disk is a folder, which stays.

`with switch() as lan` takes the calling thread to the switch, where all machines are reached.
Threads that it starts from then on are there as well.
"""

import ctypes
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from runner.embedded.process import die_with_parent
from tests.support.deployment import eventually
from tests.support.hosts.slow import Delays, relayed, tap
from tests.support.namespaces import in_own_network, ip, moved

ADDRESS = "10.77.0.1"
"""The switch's own, where whatever the machines share is reached."""
HARDWARE = "02:00:0a:4d:00:01"
BITS = 24
_PROCESSES = 0x2000_0000
"""`CLONE_NEWPID`; Python has it from 3.12 on."""
_CHILDREN_OF = Path("/proc/thread-self/ns/pid_for_children")
_FIRST_PROCESS = """
# Another daemon's mounts, of which this is a copy, would keep what it removes.
while read -r _ place _; do
  case "$place" in */docker/data/*|*/docker/exec/*) umount --lazy "$place" 2>/dev/null ;; esac
done < <(tac /proc/mounts)
# bash reaps what nobody else does.
sleep infinity & wait
"""


@dataclass
class Machine:
    """A machine, once it is on. `disk` outlives its power."""

    name: str
    address: str
    disk: Path
    _first: int | None = field(default=None, init=False)
    _holder: "subprocess.Popen[bytes] | None" = field(default=None, init=False)
    _started: "list[subprocess.Popen[bytes]]" = field(default_factory=list, init=False)

    def power_on(self) -> None:
        """Make its namespaces, and plug its cable in."""
        self._holder = holder = subprocess.Popen(
            ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc",
             "bash", "-c", _FIRST_PROCESS],
            # unshare(1) complains when its child is killed.
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl, no locks taken
        )  # fmt: skip
        self._first = eventually(lambda: _sleeping_child(holder.pid))
        ip("link", "add", self._port, "type", "veth", "peer", "name", "eth0",
           "netns", str(self._first))  # fmt: skip
        ip("link", "set", self._port, "master", "switch", "up")
        with self.entered():
            ip("link", "set", "lo", "up")
            ip("addr", "add", f"{self.address}/{BITS}", "dev", "eth0")
            ip("link", "set", "eth0", "up")

    def power_off(self) -> None:
        """Take its power away: nothing on it can do anything more."""
        if self._first is None or self._holder is None:
            return
        first = psutil.Process(self._first)
        first.kill()
        # The first process is gone once all others are, and have been waited for.
        for each in self._started:
            each.wait(30)
        self._holder.wait(30)
        self._first, self._holder, self._started = None, None, []
        with suppress(subprocess.CalledProcessError):
            # The kernel removes it with the namespace, a moment later.
            ip("link", "del", self._port, quiet=True)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread use the machine's network inside the context."""
        with moved(Path(f"/proc/{self._on()}/ns/net")):
            yield

    def spawn(
        self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path
    ) -> "subprocess.Popen[bytes]":
        """Start a process on it; what it writes goes to the end of a log."""
        with log.open("ab") as written:
            return self._begin(command, environment, stdout=written, stderr=written)

    def run(
        self, command: Sequence[str | Path], environment: Mapping[str, str], given: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command on it, as somebody who is logged in there."""
        running = self._begin(
            command, environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        out, err = running.communicate(given.encode(), timeout=300)
        return subprocess.CompletedProcess(command, running.returncode, out.decode(), err.decode())

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Pull the cable out inside the context: nothing arrives, and nobody is told."""
        ip("link", "set", self._port, "down")
        try:
            yield
        finally:
            ip("link", "set", self._port, "up")

    @contextmanager
    def slowed(self, delays: Delays) -> Iterator[None]:
        """Lead the cable through one that delays and loses frames, inside the context.

        Connections go on: address and hardware address stay.
        """
        with ExitStack() as ends:
            here = ends.enter_context(tap(f"s-{self.name}"))
            ip("link", "set", f"s-{self.name}", "master", "switch", "up")
            with self.entered():
                there = ends.enter_context(tap("slow0"))
                (eth0,) = json.loads(ip("-json", "link", "show", "eth0"))
                ip("link", "set", "slow0", "address", eth0["address"])
            with relayed(here, there, delays):
                self._led(by="slow0", instead_of="eth0")
                try:
                    yield
                finally:
                    self._led(by="eth0", instead_of="slow0")

    def _led(self, *, by: str, instead_of: str) -> None:
        ip("link", "set", self._port, "up" if by == "eth0" else "down")
        with self.entered():
            ip("addr", "flush", "dev", instead_of)
            ip("link", "set", instead_of, "down")
            ip("addr", "add", f"{self.address}/{BITS}", "dev", by)
            ip("link", "set", by, "up")

    def _begin(
        self, command: Sequence[str | Path], environment: Mapping[str, str], **streams: object
    ) -> "subprocess.Popen[bytes]":
        first = self._on()
        with self._children_there():
            started = subprocess.Popen(
                ["nsenter", f"--net=/proc/{first}/ns/net", f"--mount=/proc/{first}/ns/mnt", "--",
                 *command],
                env=environment, start_new_session=True,
                **{"stdin": subprocess.DEVNULL, **streams},  # type: ignore[call-overload] # streams
            )  # fmt: skip
        self._started = [each for each in self._started if each.poll() is None]
        self._started.append(started)
        return started  # type: ignore[no-any-return] # as above

    @contextmanager
    def _children_there(self) -> Iterator[None]:
        """Let the next children of this thread belong to the machine's processes.

        Meanwhile it can start no thread (pid_namespaces(7)).
        """
        with _CHILDREN_OF.open("rb") as before:
            _set_processes(Path(f"/proc/{self._on()}/ns/pid"))
            try:
                yield
            finally:
                _checked(_LIBC.setns(before.fileno(), _PROCESSES))

    @property
    def _port(self) -> str:
        return f"p-{self.name}"

    def _on(self) -> int:
        if self._first is None:
            raise RuntimeError(f"{self.name} has no power")
        return self._first


@contextmanager
def switch() -> Iterator[None]:
    """Take this thread to a switch inside the context; machines that are made there are on it."""
    with in_own_network():
        # Otherwise it has the lowest address of its ports, and another one when that port goes.
        ip("link", "add", "switch", "address", HARDWARE, "type", "bridge")
        ip("addr", "add", f"{ADDRESS}/{BITS}", "dev", "switch")
        ip("link", "set", "switch", "up")
        yield


@contextmanager
def machine(name: str, number: int, disk: Path) -> Iterator[Machine]:
    """Yield a machine that is on; its power is off afterwards."""
    made = Machine(name, f"{ADDRESS.rpartition('.')[0]}.{number}", disk)
    made.power_on()
    try:
        yield made
    finally:
        made.power_off()


_LIBC = ctypes.CDLL(None, use_errno=True)


def _sleeping_child(holder: int) -> int | None:
    """Return the first process of the namespaces, once it has done what it begins with."""
    for each in psutil.Process(holder).children():
        # Before that, it has children which end at once.
        with suppress(psutil.NoSuchProcess):
            if any(child.name() == "sleep" for child in each.children()):
                return int(each.pid)
    return None


def _set_processes(namespace: Path) -> None:
    with namespace.open("rb") as there:
        _checked(_LIBC.setns(there.fileno(), _PROCESSES))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
