"""Ends connections to doors whose other host can no longer be reached.

A call may last as long as its sandbox, so it has no time limit. It ends when the kernel finds that
the other host does not answer.
"""

import asyncio

from runner.base.lost_peers import is_lost, keep_alive

LOOK_S = 2.0
"""How often a connection is looked at."""
_CLOSED = -1


def guard(transport: asyncio.WriteTransport) -> None:
    """Abort a TCP or TLS connection once its other end is lost, also while it is being closed."""
    link = transport.get_extra_info("socket")
    if link is None or link.fileno() == _CLOSED:
        # The other end has hung up already. TLS forgets its socket then.
        return
    keep_alive(link)
    loop = asyncio.get_running_loop()

    def look() -> None:
        if link.fileno() == _CLOSED:
            return
        if is_lost(link):
            transport.abort()
        loop.call_later(LOOK_S, look)

    loop.call_later(LOOK_S, look)
