"""The unix sockets in a sandbox's own directory: one to its supervisor, one to the egress proxy.

The directory is mounted into this one container, read-only: nothing in it can be replaced from
inside, and nobody else reaches it.
"""

import os
import socket
from pathlib import Path

SUPERVISOR_SOCKET = "supervisor.sock"
EGRESS_SOCKET = "egress.sock"
_EGRESS_BACKLOG = 128
"""As many as the bridge carries, so that none is refused while the proxy is busy for a moment."""


def listen(home: Path, name: str, *, backlog: int) -> socket.socket:
    """Listen in the sandbox's directory; closing the socket does not need the path again."""
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(home, os.O_DIRECTORY)
    try:
        # By descriptor: a socket's path is limited to 108 bytes (unix(7)), a state folder's not.
        listener.bind(f"/proc/self/fd/{folder}/{name}")
        # The sandbox is another user; who may reach the directory is decided by its mount.
        (home / name).chmod(0o666)
        listener.listen(backlog)
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener


def listen_for_egress(home: Path) -> socket.socket:
    """Listen where the sandbox's bridge connects, in place of whoever did before."""
    (home / EGRESS_SOCKET).unlink(missing_ok=True)
    return listen(home, EGRESS_SOCKET, backlog=_EGRESS_BACKLOG)
