"""The SDK against servers that misbehave: on loopback, speaking real HTTP."""

import json
import socket
from collections.abc import Sequence
from dataclasses import fields
from http.server import BaseHTTPRequestHandler
from threading import Thread
from typing import Any

import pytest

import agent_runner
from agent_runner import ApiError, ApiKey, NewApiKey, NotFound, Unavailable
from tests.support.answering import SERVER, Request, reply, served
from tests.support.flavours import Connect

KEY = "rk_aaaaaaaaaaaa_" + "S" * 43
ID = "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2"


def event(number: int, **data: object) -> bytes:
    """Return an event of the stream."""
    return f"id: {number}\nevent: state\ndata: {json.dumps(data)}\n\n".encode()


def test_the_public_names_are_these() -> None:
    """Adding or removing a name must be a decision, not an accident."""
    assert set(agent_runner.__all__) == {
        "ApiError", "ApiKey", "Artifact", "AsyncClient", "AsyncContext", "AsyncFileWatch",
        "AsyncForward", "AsyncProcess", "AsyncSandbox", "AsyncTerminal", "BuildOutput", "Client",
        "CodeError", "Conflict", "Context", "ContextInfo", "Event", "Execution", "FileChanges",
        "FileEntry", "FileTooLarge",
        "FileWatch", "Forward", "Gone", "Invalid", "Invitation", "Member", "NewApiKey",
        "NotAuthenticated", "NotFound", "NotPermitted", "OpenedPort", "OutputEvent", "PortInfo",
        "Process", "ProcessInfo", "Project", "Ran", "Result", "Run", "RunEvent", "Sandbox",
        "SandboxEvent", "SandboxInfo", "SignedUrl", "SnapshotInfo", "StoredFile", "Stream",
        "TemplateInfo", "TemplateTag", "Terminal", "TooMany", "Unavailable", "UnsafeArchive",
    }  # fmt: skip


def test_a_client_does_not_show_its_key(connect: Connect) -> None:
    """Neither a repr nor an error contains it."""
    with connect("http://127.0.0.1:9", KEY) as client:
        assert KEY not in repr(client)
        with pytest.raises(Unavailable) as failed:
            client.get(ID)
    assert KEY not in str(failed.value)


def test_no_answer_is_told_with_the_address_that_was_asked(connect: Connect) -> None:
    """The address holds no password, if one was given with it."""
    with (
        connect("http://me:s3cret@127.0.0.1:9", KEY) as client,
        pytest.raises(
            Unavailable, match=r"^no answer from the API at http://127\.0\.0\.1:9: "
        ) as no,
    ):
        client.get(ID)
    assert "s3cret" not in str(no.value)


@pytest.mark.parametrize("below", ["", "/", "/docs", "/docs/", "/v1", "/v1/"])
def test_an_address_may_be_copied_with_what_is_below_it(connect: Connect, below: str) -> None:
    """A panel, a browser or an example may show it like this."""
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        reply(handler, 200, b'{"items": []}', "application/json")

    with served(answer) as url, connect(f"{url}{below}", KEY) as client:
        client.secrets()
    assert asked == ["/v1/secrets"]


def test_an_address_below_which_the_api_is_not_is_named(connect: Connect) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, 404, b"<html>", "text/html")

    with (
        served(answer) as url,
        connect(f"{url}/elsewhere", KEY) as client,
        pytest.raises(NotFound) as failed,
    ):
        client.list()
    who = f"{url}/elsewhere/v1/executions (server {SERVER!r})"
    assert str(failed.value).startswith(f"{who} answered 404 Not Found")
    assert "is the address right?" in str(failed.value)


@pytest.mark.parametrize("command", ["echo hi", ["echo", "hi"], ("echo", "hi")])
def test_a_command_is_sent_as_it_was_written(
    connect: Connect, command: str | Sequence[str]
) -> None:
    """A line stays a line, and is not a list of letters."""
    sent: list[Any] = []

    def answer(request: Request) -> None:
        sent.append(json.loads(request.body)["command"])
        reply(request, 404, b"{}", "application/json")

    with served(answer) as url, connect(url, KEY) as client, pytest.raises(NotFound):
        client.submit(command=command)
    assert sent == [command if isinstance(command, str) else list(command)]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999", "nowhere", "http://[", "ftp://127.0.0.1"]
)
def test_an_address_that_cannot_be_reached_is_our_own_error(connect: Connect, url: str) -> None:
    """The caller sees no error of the HTTP library."""
    with pytest.raises(Unavailable), connect(url, KEY) as client:
        client.get(ID)


@pytest.mark.parametrize("url", ["localhost:8080", "nowhere", "ftp://127.0.0.1"])
def test_an_address_without_http_is_told_how_it_must_begin(connect: Connect, url: str) -> None:
    with pytest.raises(Unavailable) as failed, connect(url, KEY) as client:
        client.get(ID)
    assert str(failed.value) == "the API's address must begin with http:// or https://"


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
def test_what_is_not_our_api_is_told_as_no_answer(
    connect: Connect, status: int, kind: str, body: bytes
) -> None:
    """Proxies and other servers may answer as well."""
    with (
        served(lambda request: reply(request, status, body, kind)) as url,
        connect(url, KEY) as client,
        pytest.raises(Unavailable),
    ):
        client.get(ID)


def test_a_connection_that_breaks_is_our_own_error(connect: Connect) -> None:
    """The answer ends before it is complete."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        thread = Thread(target=hang_up)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connect(url, KEY) as client, pytest.raises(Unavailable):
            client.get(ID)
        thread.join()


def test_a_problem_document_comes_through_whole(connect: Connect) -> None:
    """The error has all its fields."""
    problem = {
        "type": "urn:runner:problem:not-found", "title": "Not Found", "status": 404,
        "detail": "no such execution", "instance": "urn:runner:request:x",
    }  # fmt: skip
    body = json.dumps(problem).encode()
    with (
        served(lambda request: reply(request, 404, body, "application/problem+json")) as url,
        connect(url, KEY) as client,
        pytest.raises(NotFound) as refused,
    ):
        client.get(ID)
    assert isinstance(refused.value, ApiError)
    assert (refused.value.type, refused.value.detail) == (problem["type"], problem["detail"])


def test_an_id_leads_to_no_other_route(connect: Connect) -> None:
    """Whatever is given as an id stays one segment of the path."""
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.path)
        reply(request, 404, b"{}", "application/problem+json")

    with served(answer) as url, connect(url, KEY) as client, pytest.raises(NotFound):
        client.get("../audit?x=/y")
    assert seen == ["/v1/executions/..%2Faudit%3Fx%3D%2Fy"]


def test_a_stream_survives_keep_alives_and_breaks(connect: Connect) -> None:
    """Comments are no events; after each break, the stream resumes and loses no event.

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

    with served(answer) as url, connect(url, KEY) as client:
        events = list(client.events(ID))
    assert [each.id for each in events] == [1, 2, 3]
    assert [each.data["state"] for each in events] == ["queued", "starting", "succeeded"]
    assert asked == [None, "1", "2"]


def test_keys_are_listed_to_the_last_page(connect: Connect) -> None:
    """They come newest first, as the API returns them."""
    asked: list[str] = []
    key = dict.fromkeys(each.name for each in fields(ApiKey))

    def answer(request: Request) -> None:
        asked.append(request.path)
        page = {"items": [{**key, "id": str(len(asked))}]}
        following = {"next_cursor": None if len(asked) == 3 else f"after {len(asked)}"}
        reply(request, 200, json.dumps({**page, **following}).encode(), "application/json")

    with served(answer) as url, connect(url, KEY) as client:
        assert [each.id for each in client.keys.list()] == ["1", "2", "3"]
    assert asked[1:] == [f"/v1/keys?cursor=after+{n}&limit=200" for n in (1, 2)]


def test_the_token_of_a_new_key_is_in_no_repr() -> None:
    """A logged key would be known to others."""
    key = ApiKey(**dict.fromkeys((each.name for each in fields(ApiKey)), "x"))  # type: ignore[arg-type]  # by name
    assert KEY not in repr(NewApiKey(key, KEY))


def test_an_execution_is_waited_for_by_its_id(connect: Connect) -> None:
    """It may have been submitted by another process."""
    ended = {
        "id": ID, "state": "succeeded", "attempt": 1, "created_at": "t", "started_at": None,
        "ended_at": "t", "project": None, "metadata": {}, "image": "python", "size": "small",
        "queue_position": None, "estimated_start_s": None, "result": None,
    }  # fmt: skip

    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path.endswith("/events"):
            reply(request, 200, event(1, state="succeeded"), "text/event-stream")
        else:
            reply(request, 200, json.dumps(ended).encode(), "application/json")

    with served(answer) as url, connect(url, KEY) as client:
        assert client.wait(ID).state == "succeeded"
