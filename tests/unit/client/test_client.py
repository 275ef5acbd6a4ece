"""The SDK against servers that misbehave: on loopback, speaking real HTTP."""

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

import runner.client
from runner.client import ApiError, Client, NotFound, Unavailable

KEY = "rk_aaaaaaaaaaaa_" + "S" * 43
ID = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def served(answer: Answer) -> Iterator[str]:
    """Serve every GET and POST by `answer`; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, kind: str) -> None:
    """Send one whole answer."""
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def event(number: int, **data: object) -> bytes:
    """Return an event of the stream."""
    return f"id: {number}\nevent: state\ndata: {json.dumps(data)}\n\n".encode()


def test_the_public_names_are_these() -> None:
    """A name that goes or comes is a decision, not an accident."""
    assert set(runner.client.__all__) == {
        "ApiError", "Artifact", "Client", "Conflict", "Event", "Execution", "Invalid",
        "NotAuthenticated", "NotFound", "NotPermitted", "StoredFile", "Stream", "TooMany",
        "Unavailable",
    }  # fmt: skip


def test_a_client_does_not_show_its_key() -> None:
    """Not in a repr, and not in an error."""
    with Client("http://127.0.0.1:9", KEY) as client:
        assert KEY not in repr(client)
        with pytest.raises(Unavailable) as failed:
            client.get(ID)
    assert KEY not in str(failed.value)


@pytest.mark.parametrize("below", ["", "/", "/docs", "/docs/", "/v1", "/v1/"])
def test_an_address_may_be_copied_with_what_is_below_it(below: str) -> None:
    """As a panel, a browser or an example shows it."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, 200, b'{"items": []}', "application/json")

    with served(answer) as url, Client(f"{url}{below}", KEY) as client:
        client.secrets()
    assert asked == ["/v1/secrets"]


def test_an_address_below_which_the_api_is_not_is_named() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 404, b"<html>", "text/html")

    with (
        served(answer) as url,
        Client(f"{url}/elsewhere", KEY) as client,
        pytest.raises(NotFound) as failed,
    ):
        client.list()
    assert str(failed.value).startswith(f"{url}/elsewhere/v1/executions answered 404 Not Found")
    assert "is the address right?" in str(failed.value)


@pytest.mark.parametrize("command", ["echo hi", ["echo", "hi"], ("echo", "hi")])
def test_a_command_is_sent_as_it_was_written(command: str | Sequence[str]) -> None:
    """A line stays one: it is not a list of letters."""
    sent: list[Any] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        sent.append(json.loads(handler.rfile.read(length))["command"])
        reply(handler, 404, b"{}", "application/json")

    with served(answer) as url, Client(url, KEY) as client, pytest.raises(NotFound):
        client.submit(command=command)
    assert sent == [command if isinstance(command, str) else list(command)]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "nowhere", "http://[", "ftp://127.0.0.1"]
)
def test_an_address_that_cannot_be_reached_is_our_own_error(url: str) -> None:
    """No error of the HTTP library comes through."""
    with pytest.raises(Unavailable), Client(url, KEY) as client:
        client.get(ID)


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (200, "text/html", b"<p>Welcome"),
        (200, "application/json", b"[]"),
        (502, "text/html", b"<p>Bad gateway"),
        (503, "application/problem+json", b"not JSON"),
        (503, "application/problem+json", b"7"),
    ],
)
def test_what_is_not_our_api_is_told_as_no_answer(status: int, kind: str, body: bytes) -> None:
    """Proxies and strangers answer, too."""
    with (
        served(lambda request: reply(request, status, body, kind)) as url,
        Client(url, KEY) as client,
        pytest.raises(Unavailable),
    ):
        client.get(ID)


def test_a_connection_that_breaks_is_our_own_error() -> None:
    """The answer ends before it is whole."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        thread = Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, KEY) as client, pytest.raises(Unavailable):
            client.get(ID)
        thread.join()


def test_a_problem_document_comes_through_whole() -> None:
    """Its fields are the error's."""
    problem = {
        "type": "urn:runner:problem:not-found", "title": "Not Found", "status": 404,
        "detail": "no such execution", "instance": "urn:runner:request:x",
    }  # fmt: skip
    body = json.dumps(problem).encode()
    with (
        served(lambda request: reply(request, 404, body, "application/problem+json")) as url,
        Client(url, KEY) as client,
        pytest.raises(NotFound) as refused,
    ):
        client.get(ID)
    assert isinstance(refused.value, ApiError)
    assert (refused.value.type, refused.value.detail) == (problem["type"], problem["detail"])


def test_an_id_leads_to_no_other_route() -> None:
    """Whatever is taken for an id stays one part of the path."""
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        reply(request, 404, b"{}", "application/problem+json")

    with served(answer) as url, Client(url, KEY) as client, pytest.raises(NotFound):
        client.get("../audit?x=/y")
    assert seen == ["/v1/executions/..%2Faudit%3Fx%3D%2Fy"]


def test_a_stream_survives_keep_alives_and_breaks() -> None:
    """Comments are no events; each break is resumed behind the last event, and none is lost.

    The first stream breaks inside an event, the second is closed in good order before its end.
    """
    asked: list[str | None] = []
    parts = [
        b": ping\n\n" + event(1, state="queued") + b": ping\n\n" + event(2, state="starting")[:9],
        event(2, state="starting") + b": ping\n\n",
        event(3, state="succeeded"),
    ]

    def answer(request: BaseHTTPRequestHandler) -> None:
        part = parts[len(asked)]
        asked.append(request.headers["Last-Event-ID"])
        reply(request, 200, part, "text/event-stream")

    with served(answer) as url, Client(url, KEY) as client:
        events = list(client.events(ID))
    assert [each.id for each in events] == [1, 2, 3]
    assert [each.data["state"] for each in events] == ["queued", "starting", "succeeded"]
    assert asked == [None, "1", "2"]
