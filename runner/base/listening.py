"""The socket that the API listens on, or one line that says why there is none."""

import errno
import socket
from collections.abc import Mapping

from runner.base.settings import Settings
from runner.words.errors import SetupError

_ADVICE: Mapping[int, str] = {
    errno.EADDRINUSE: "another process listens there; stop it, or set RUNNER_PORT to a free port",
    errno.EACCES: "only root may listen there; set RUNNER_PORT to a port from 1024 on",
    errno.EADDRNOTAVAIL: "this host has no such address; set RUNNER_HOST to one that it has",
}


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens at RUNNER_HOST and RUNNER_PORT, by IPv4 if a name has both.

    Raises SetupError that names the address and the setting to change.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SetupError(f"RUNNER_HOST: {host!r} is no address: {error.strerror}") from None
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        why = _ADVICE.get(error.errno or 0, error.strerror)
        raise SetupError(f"cannot listen at {host} port {port}: {why}") from None


def url(listener: socket.socket) -> str:
    """Return the URL by which clients on this host reach a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
