"""The objects of a host that a probe looks for: services, shared memory, names."""

import ctypes
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
_IPC_CREAT = 0o1000
_IPC_RMID = 0


@contextmanager
def surroundings() -> Iterator[dict[str, Any]]:
    """Yield facts about the host, and keep what they describe alive inside the context."""
    with ExitStack() as stack:
        yield {
            "namespaces": {
                name: str(Path("/proc/self/ns", name).readlink()) for name in NAMESPACES
            },
            "host_name": os.uname().nodename,
            "shared_memory_key": stack.enter_context(_shared_memory()),
            "tcp_port": stack.enter_context(_listening(socket.AF_INET, "127.0.0.1")),
            "tcp6_port": stack.enter_context(_listening(socket.AF_INET6, "::1")),
            "udp_port": stack.enter_context(_receiving()),
            "abstract": stack.enter_context(_abstract()),
        }


@contextmanager
def _shared_memory() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    key = secrets.randbelow(2**31 - 1) + 1
    segment = libc.shmget(key, 4096, _IPC_CREAT | 0o600)
    if segment == -1:
        raise OSError(ctypes.get_errno(), "shmget")
    try:
        yield key
    finally:
        libc.shmctl(segment, _IPC_RMID, None)


@contextmanager
def _listening(family: socket.AddressFamily, address: str) -> Iterator[int | None]:
    """Yield the port of a service on loopback; None if the host lacks the address family."""
    with socket.socket(family) as listener:
        try:
            listener.bind((address, 0))
        except OSError:
            yield None
            return
        listener.listen(64)
        yield listener.getsockname()[1]


@contextmanager
def _receiving() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        yield receiver.getsockname()[1]


@contextmanager
def _abstract() -> Iterator[str]:
    name = f"runner-verify-{secrets.token_hex(6)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen(64)
        yield name
