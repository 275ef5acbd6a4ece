"""Whether the other end of a TCP connection is lost.

A network that drops everything sends no reset. The kernel then waits for a quarter of an hour for
an answer to what it sent, and for ever if it has nothing to send.
"""

import socket
import struct
from asyncio.trsock import TransportSocket
from typing import Final

KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 5, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}
"""When the kernel asks a silent peer, how often, and how many times in vain: seconds (tcp(7))."""
LOST_MS: Final = 10_000
"""How long a peer may leave unanswered what was sent to it."""
_PROBES: Final = 3
"""How many questions for room in a full window a peer may leave unanswered."""
_INFO = struct.Struct("=3xB20xI28xI")
"""The part of `struct tcp_info` (linux/tcp.h) with probes, unacknowledged segments, and how many
milliseconds ago the last acknowledgement came."""


def keep_alive(link: socket.socket | TransportSocket) -> None:
    """Let the kernel end a TCP connection whose other end is silent while nothing is sent to it."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        link.setsockopt(socket.IPPROTO_TCP, option, value)


def is_lost(link: socket.socket | TransportSocket) -> bool:
    """Return whether a TCP connection's other end has left something unanswered for too long.

    The kernel's own bound for that, `TCP_USER_TIMEOUT`, also ends connections to a peer that
    answers, but takes nothing for as long (tcp(7)): a program that does not read its stdin.
    """
    info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    probes, unacknowledged, heard_ms_ago = _INFO.unpack(info)
    return bool(heard_ms_ago > LOST_MS and (unacknowledged or probes >= _PROBES))
