"""Sockets, by the interpreter's own `_socket` alone.

The standard library's `socket` around it turns every constant into an enum and loads `selectors`,
which would take 300 KiB of every idle sandbox.
"""

from __future__ import annotations

from _socket import (
    AF_INET,
    AF_INET6,
    AF_UNIX,
    SHUT_WR,
    SO_ERROR,
    SO_REUSEADDR,
    SOCK_SEQPACKET,
    SOCK_STREAM,
    SOL_SOCKET,
    socketpair,
)
from _socket import SocketType as Socket

__all__ = [
    "AF_INET",
    "AF_INET6",
    "AF_UNIX",
    "SHUT_WR",
    "SOCK_SEQPACKET",
    "SOCK_STREAM",
    "SOL_SOCKET",
    "SO_ERROR",
    "SO_REUSEADDR",
    "Socket",
    "accept",
    "socketpair",
]


def accept(listener: Socket) -> Socket:
    """Return the next connection that waits. Raises OSError, such as BlockingIOError for none."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - as `socket` does
    return Socket(fileno=fd)
