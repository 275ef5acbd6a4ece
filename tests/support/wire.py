"""HTTP as bytes on a socket, for requests that no client library would send."""

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

import h11

PATIENCE_S = 15.0


def connected(url: str, source: str | None = None) -> socket.socket:
    """Return a connection to a server's port, from the given loopback address."""
    where = urlsplit(url)
    bound = (source, 0) if source else None
    connection = socket.create_connection(
        (where.hostname, where.port or 80), timeout=PATIENCE_S, source_address=bound
    )
    connection.settimeout(PATIENCE_S)
    return connection


def head(method: str, target: str, **headers: str) -> bytes:
    """Return a request's head; underscores in header names stand for hyphens."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the next answer; status 0 if there is none."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="GET", target="/", headers=[("Host", "test")]))
    reader.send(h11.EndOfMessage())
    status, body = 0, b""
    headers: dict[str, str] = {}
    while True:
        event = reader.next_event()
        if event is h11.NEED_DATA:
            try:
                reader.receive_data(connection.recv(65536))
            except ConnectionError:
                return status, headers, body
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return status, headers, body


def twice(name: str, method: str, target: str, given: Mapping[str, str]) -> bytes:
    """Return a request with a body of `{}` and these headers, one of which is in two lines."""
    sent = {"content-length": "2", "transfer-encoding": "chunked", "host": "x", **given}
    value = sent.get(name, "a")
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{each}: {value}" for each, value in given.items() if each != name]
    lines += [] if name == "host" else ["Host: x"]
    lines += [f"{name}: {value}", f"{name.upper()}: {value}x"]
    return "\r\n".join([*lines, "", "{}"]).encode()


def exchange(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes; return the answer."""
    with connected(url) as connection:
        connection.sendall(request)
        return answer(connection)
