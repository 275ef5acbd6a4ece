"""A server on loopback that answers as a test says, over real HTTP."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from threading import Thread

SERVER = "stand-in/1"


class Request(BaseHTTPRequestHandler):
    """One request, read to its end, and what answers it."""

    body = b""
    # A client of WebSockets takes no answer of an older version.
    protocol_version = "HTTP/1.1"

    def version_string(self) -> str:
        """Return what the server calls itself."""
        return SERVER

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
        """Print nothing."""


Answer = Callable[[Request], None]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """Serve every request by `answer`; yield the address."""

    class Handler(Request):
        def do_GET(self) -> None:
            # What is closed with bytes left to read is reset, and the answer may be lost.
            chunked = self.headers.get("Transfer-Encoding") == "chunked"
            length = int(self.headers.get("Content-Length", 0))
            self.body = b"".join(_chunks(self.rfile)) if chunked else self.rfile.read(length)
            answer(self)

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815 - their names

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _chunks(body: BufferedIOBase) -> Iterator[bytes]:
    """Yield the chunks of a body whose length was not declared (RFC 9112, 7.1)."""
    while length := int(body.readline(), 16):
        yield body.read(length)
        body.readline()
    body.readline()


def reply(
    request: BaseHTTPRequestHandler, status: int, body: bytes, kind: str, **headers: str
) -> None:
    """Send one whole answer; underscores in the names of headers stand for hyphens."""
    request.send_response(status)
    request.send_header("Content-Type", kind)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
