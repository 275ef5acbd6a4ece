"""The SDK's sandboxes against a server that plays the API: on loopback, speaking real HTTP."""

import errno
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from agent_runner import FileTooLarge, Gone, OutputEvent, Ran, Sandbox
from agent_runner.living import Kept
from agent_runner.living_answers import SANDBOX as SANDBOX_INFO
from tests.support.answering import Request, reply, served
from tests.support.flavours import Connect, made

KEY = "rk_aaaaaaaaaaaa_" + "S" * 43
SANDBOX: dict[str, Any] = {
    "id": "0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2",
    "state": "running",
    "reason": None,
    "detail": None,
    "created_at": "2026-01-05T12:00:00Z",
    "started_at": "2026-01-05T12:00:00Z",
    "ended_at": None,
    "expires_at": None,
    "timeout_s": None,
    "on_timeout": "kill",
    "auto_resume": False,
    "on_shortage": "keep",
    "kept_as": None,
    "lives_until": None,
    "project": None,
    "image": "python",
    "size": "nano",
    "limits": {"cpu": 1.0, "memory_mb": 64, "pids": 32, "disk_mb": 32},
    "isolation": "container",
    "egress": [],
    "egress_policy": None,
    "metadata": {},
}
PROCESS: dict[str, Any] = {
    "process": 3,
    "state": "running",
    "command": ["cat"],
    "tag": None,
    "terminal": False,
    "stdin": False,
    "started_at": "2026-01-05T12:00:00Z",
    "ended_at": None,
    "exit_code": None,
    "signal": None,
    "timed_out": False,
    "output_bytes": 4,
}
STDOUT = {
    "content": "one\n",
    "encoding": "utf-8",
    "truncated": False,
    "total_bytes": 4,
    "omitted_bytes": 0,
    "omitted_at": None,
}
NOTHING = {**STDOUT, "content": "", "total_bytes": 0}

Answers = dict[str, Callable[[BaseHTTPRequestHandler], None]]


@contextmanager
def played(connect: Connect, answers: Answers) -> Iterator[tuple[Sandbox, list[tuple[str, bytes]]]]:
    """Answer each request by its method and the end of its path; yield a sandbox and the log."""
    asked: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            route = f"{self.command} {self.path.rpartition(SANDBOX['id'])[2]}"
            asked.append((route, body))
            answers[route.partition("?")[0]](self)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _any  # noqa: N815 - names it looks for

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with connect(f"http://127.0.0.1:{server.server_port}", KEY) as client:
                answers["POST /v1/sandboxes"] = told(SANDBOX)
                yield client.sandboxes.create(size="nano"), asked
        finally:
            server.shutdown()
            thread.join()


def told(body: Any, status: int = 200, kind: str = "application/json") -> Any:
    """Return a function that answers with a complete body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(raw)))
        handler.end_headers()
        handler.wfile.write(raw)

    return answer


def event(kind: str, id_: int, **data: object) -> bytes:
    """Return an event of a process's output."""
    return f"id: {id_}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def streamed(*parts: bytes) -> Any:
    """Return a function that answers each request with one part, like a broken stream."""
    left = list(parts)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        told(left.pop(0), kind="text/event-stream")(handler)

    return answer


def test_a_command_that_ends_in_time_takes_one_request(connect: Connect) -> None:
    ended = {**PROCESS, "state": "ended", "exit_code": 7}
    answer = {**ended, "stdout": STDOUT, "stderr": NOTHING, "omitted_bytes": 0, "next_offset": 4}
    with played(connect, {"POST /processes": told(answer)}) as (sandbox, asked):
        ran = sandbox.run(["cat"], stdin="one\n", cwd="/tmp")  # noqa: S108 - in a sandbox
    assert (ran.exit_code, ran.ok, ran.stdout.text) == (7, False, "one\n")
    assert [route for route, _ in asked[1:]] == ["POST /processes"]
    assert json.loads(asked[1][1]) == {
        "command": ["cat"],
        "stdin": {"text": "one\n"},
        "cwd": "/tmp",  # noqa: S108 - in a sandbox
        "wait_s": 300,
        "output_kb": 256,
    }


def test_one_that_takes_longer_is_followed_from_where_the_answer_ended(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This works across broken connections, without losing or repeating a byte."""
    for half in ("_sync", "_async"):
        monkeypatch.setattr(f"agent_runner.{half}.processes.RESUME_AFTER_S", 0.01)
    begun = {**PROCESS, "stdout": STDOUT, "stderr": NOTHING, "omitted_bytes": 0, "next_offset": 4}
    output = streamed(
        event("stdout", 8, content="two\n", encoding="utf-8"),
        event("stderr", 9, content="/w==", encoding="base64"),
        event("ended", 9, exit_code=0, timed_out=False),
    )
    with played(connect, {"POST /processes": told(begun), "GET /processes/3/output": output}) as (
        sandbox,
        asked,
    ):
        ran = sandbox.run("cat")
    assert (ran.exit_code, ran.stdout.raw, ran.stderr.raw) == (0, b"one\ntwo\n", b"\xff")
    assert [route.partition("?")[2] for route, _ in asked[2:]] == [
        "offset=4&follow=true",
        "offset=8&follow=true",
        "offset=9&follow=true",
    ]


def test_output_that_was_lost_during_the_request_is_told(connect: Connect) -> None:
    ended = {**PROCESS, "state": "ended", "exit_code": 0, "omitted_bytes": 5, "next_offset": 9}
    answer = {**ended, "stdout": STDOUT, "stderr": NOTHING}
    with played(connect, {"POST /processes": told(answer)}) as (sandbox, _):
        ran = sandbox.run("cat")
    assert (ran.stdout.raw, ran.stdout.truncated, ran.stdout.omitted_bytes) == (b"one\n", True, 5)
    assert ran.stderr.truncated


def test_output_tells_gaps_and_the_end(connect: Connect) -> None:
    told_of = (
        event("gap", 100, offset=0, omitted_bytes=100)
        + event("stdout", 101, offset=100, content="x", encoding="utf-8")
        + event("ended", 101, offset=101, signal="SIGKILL", timed_out=True)
    )
    answers = {"GET /processes/3": told(PROCESS), "GET /processes/3/output": streamed(told_of)}
    with played(connect, answers) as (sandbox, _):
        process = sandbox.process(3)
        events = list(process.output())
    assert events == [
        OutputEvent("gap", 100, b"", omitted_bytes=100),
        OutputEvent("stdout", 101, b"x"),
        OutputEvent("ended", 101, b"", signal="SIGKILL", timed_out=True),
    ]
    assert process.offset == 101


def test_a_sandbox_that_has_ended_says_why(connect: Connect) -> None:
    gone = {"status": 410, "title": "Gone", "detail": "it has ended: expired", "reason": "expired"}
    answers = {
        "GET /processes": told(gone, 410, "application/problem+json"),
        "DELETE ": told(b"", 204),
    }
    with played(connect, answers) as (sandbox, asked), sandbox, pytest.raises(Gone) as refused:
        sandbox.processes()
    assert refused.value.reason == "expired"
    assert asked[-1][0] == "DELETE ", "the context kills its sandbox"


def test_what_is_missing_of_a_file_is_no_error_of_exists(connect: Connect) -> None:
    """A sandbox that does not exist is an error."""
    missing = {"status": 404, "detail": "a: No such file or directory", "reason": "ENOENT"}
    unknown = {"status": 404, "detail": "no such sandbox"}
    for body in (missing, unknown):
        answers = {"GET /files/stat": told(body, 404, "application/problem+json")}
        with played(connect, answers) as (sandbox, _):
            if body is missing:
                assert not sandbox.files.exists("a")
            else:
                with pytest.raises(Exception, match="no such sandbox"):
                    sandbox.files.exists("a")


def test_a_file_is_streamed_in(connect: Connect) -> None:
    """It is sent in chunks if its length is unknown."""
    entry = {"path": "a", "kind": "file", "size": 2, "mode": "0755", "modified_at": "x",
             "target": None}  # fmt: skip

    def take(handler: BaseHTTPRequestHandler) -> None:
        assert handler.headers["Transfer-Encoding"] == "chunked"
        while size := int(handler.rfile.readline(), 16):
            handler.rfile.read(size + 2)
        handler.rfile.readline()
        told(entry)(handler)

    with played(connect, {"PUT /files/content": take}) as (sandbox, asked):
        assert sandbox.files.write("a", iter([b"x", b"y"]), mode=0o755).mode == "0755"
    assert asked[1][0] == "PUT /files/content?path=a&mode=0755&parents=true"


def test_output_with_a_gap_is_not_taken_for_whole(connect: Connect) -> None:
    """Whoever asks late gets what is left, marked as truncated, and nothing from behind the gap."""
    output = streamed(
        event("stdout", 1, offset=0, content="a", encoding="utf-8")
        + event("gap", 101, offset=1, omitted_bytes=100)
        + event("stdout", 102, offset=101, content="b", encoding="utf-8")
        + event("ended", 102, offset=102, exit_code=0, timed_out=False)
    )
    answers = {"GET /processes/3": told(PROCESS), "GET /processes/3/output": output}
    with played(connect, answers) as (sandbox, _):
        ran = sandbox.process(3).finish(None, None, 1024)
    assert ran.stdout.raw == b"a"
    assert ran.stdout.truncated
    assert ran.stderr.truncated


@pytest.mark.parametrize(
    ("exit_code", "signal", "status"),
    [(3, None, 3), (None, "SIGTERM", 143), (None, "SIG35", 163)],
)
def test_a_status_is_what_a_shell_would_tell(
    exit_code: int | None, signal: str | None, status: int
) -> None:
    stream = Kept(1).stream
    ran = Ran(1, exit_code, signal, timed_out=False, stdout=stream, stderr=stream)
    assert ran.status == status


def test_the_beginning_of_output_is_kept_and_the_rest_counted() -> None:
    kept = Kept(4)
    for piece in (b"ab", b"cde", b"f"):
        kept.take(piece)
    stream = kept.stream
    assert (stream.raw, stream.total_bytes, stream.omitted_bytes) == (b"abcd", 6, 2)
    again = Kept(8, stream)
    again.take(b"g")
    assert again.stream.raw == b"abcd", "what follows a gap is not put in front of it"


def test_output_that_lost_its_beginning_keeps_what_follows() -> None:
    """A program may write faster than anybody reads; the end of it says more than nothing."""
    kept = Kept(4)
    kept.lose(0)
    kept.lose(7)
    kept.take(b"ab")
    kept.take(b"cdef")
    kept.take(b"g")
    stream = kept.stream
    assert (stream.raw, stream.head, stream.tail) == (b"abcd", b"", b"abcd")
    assert (stream.truncated, stream.total_bytes, stream.omitted_bytes) == (True, 14, 10)


def test_output_that_lost_its_middle_keeps_its_beginning() -> None:
    kept = Kept(4)
    kept.take(b"ab")
    kept.lose(7)
    kept.take(b"cd")
    stream = kept.stream
    assert (stream.raw, stream.head, stream.tail) == (b"ab", b"ab", b"")
    assert (stream.truncated, stream.total_bytes, stream.omitted_bytes) == (True, 11, 9)


def test_a_file_is_not_read_beyond_what_its_reader_wants_to_hold(connect: Connect) -> None:
    """A program in the sandbox decides how large it is; reading in pieces takes it all."""

    def answer(request: Request) -> None:
        reply(request, 200, b"x" * 1000, "application/octet-stream")

    with served(answer) as url, connect(url, KEY) as api:
        files = made(api, Sandbox, SANDBOX_INFO.read(SANDBOX)).files
        assert files.read("a.txt", most_bytes=1000) == b"x" * 1000
        with pytest.raises(FileTooLarge, match="more than 999 bytes") as raised:
            files.read("a.txt", most_bytes=999)
        assert (raised.value.filename, raised.value.errno) == ("a.txt", errno.EFBIG)
        with files.open("a.txt") as pieces:
            assert b"".join(pieces) == b"x" * 1000
