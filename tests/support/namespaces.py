"""Hosts with networks of their own on one machine: network namespaces, joined by one link.

A thread has a network, and gives it to the threads and processes that it starts (setns(2)). So a
test moves its own thread, starts what belongs to a host, and moves on. The machine's own network is
never touched. Needs root.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.deployment import eventually

_NETWORK = 0x4000_0000
"""`CLONE_NEWNET`; Python has it from 3.12 on."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_MINE = Path("/proc/thread-self/ns/net")


@dataclass(frozen=True, slots=True)
class Host:
    """A host that others reach at `address`, as long as a process holds its network."""

    holder: int
    address: str

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread be on that host inside the context."""
        with moved(Path(f"/proc/{self.holder}/ns/net")):
            yield


@contextmanager
def in_own_network() -> Iterator[None]:
    """Let this thread have a network of its own inside the context: a loopback, and no way out."""
    with _back_afterwards():
        _checked(_LIBC.unshare(_NETWORK))
        ip("link", "set", "lo", "up")
        yield


@contextmanager
def further_host(own: str = "10.77.0.1", other: str = "10.77.0.2") -> Iterator[Host]:
    """Make a host beside this thread's, which must be in a network of its own; yield it.

    They reach each other at these two addresses.
    """
    mine = _MINE.readlink()
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        try:
            theirs = Path(f"/proc/{holder.pid}/ns/net")
            eventually(lambda: theirs.readlink() != mine)
            ip("link", "add", "to-other", "type", "veth", "peer", "name", "to-first",
                "netns", str(holder.pid))  # fmt: skip
            ip("addr", "add", f"{own}/24", "dev", "to-other")
            ip("link", "set", "to-other", "up")
            host = Host(holder.pid, other)
            with host.entered():
                ip("link", "set", "lo", "up")
                ip("addr", "add", f"{other}/24", "dev", "to-first")
                ip("link", "set", "to-first", "up")
            yield host
        finally:
            holder.kill()


@contextmanager
def moved(network: Path) -> Iterator[None]:
    """Let this thread be in another network inside the context."""
    with _back_afterwards():
        _enter(network)
        yield


def ip(*words: str, quiet: bool = False) -> str:
    """Return what the command `ip` prints, run in this thread's network."""
    return subprocess.run(
        ["ip", *words], check=True, timeout=30, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
    ).stdout  # fmt: skip


@contextmanager
def _back_afterwards() -> Iterator[None]:
    with _MINE.open("rb") as before:
        try:
            yield
        finally:
            _checked(_LIBC.setns(before.fileno(), _NETWORK))


def _enter(network: Path) -> None:
    with network.open("rb") as there:
        _checked(_LIBC.setns(there.fileno(), _NETWORK))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
