"""A model that says what a test wrote: an HTTP server on loopback, in the form of any vendor."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


@dataclass
class Script:
    """A model that gives these answers in turn, and notes its questions."""

    url: str
    answers: list[Mapping[str, Any]]
    asked: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def scripted(answers: Sequence[Mapping[str, Any]]) -> Iterator[Script]:
    """Answer each POST with the next of these; when there are none left, with 410."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status = HTTPStatus.OK if script.answers else HTTPStatus.GONE
            body = json.dumps(script.answers.pop(0) if script.answers else {}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script = Script(f"http://127.0.0.1:{server.server_port}", list(answers))
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()


def anthropic(*content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message of Anthropic's Messages API with this content."""
    wants = any(each["type"] == "tool_use" for each in content)
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": list(content),
        "stop_reason": "tool_use" if wants else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
