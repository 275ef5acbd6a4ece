"""Processes by E2B's daemon: started, followed, fed, signalled, and left alone."""

import base64
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.connect import bash, call, coded, done, frame, opened, refused, sent, streamed
from tests.support.connect import written as out
from tests.support.deployment import PATIENCE_S, Deployment
from tests.support.e2b import control, create, within

PROCESS = "process.Process"
START, CONNECT, LIST = f"{PROCESS}/Start", f"{PROCESS}/Connect", f"{PROCESS}/List"
SEND, SIGNAL, CLOSE = f"{PROCESS}/SendInput", f"{PROCESS}/SendSignal", f"{PROCESS}/CloseStdin"
STREAM_INPUT, UPDATE = f"{PROCESS}/StreamInput", f"{PROCESS}/Update"


@pytest.fixture(scope="module")
def inside(deployed: Deployment) -> Iterator[httpx.Client]:
    """Return a client inside a sandbox."""
    client = control(deployed, "e2b-processes")
    made = create(client)
    yield within(deployed, made)
    assert client.delete(f"/sandboxes/{made['sandboxID']}").status_code == 204


def running(inside: httpx.Client) -> list[int]:
    """Return the numbers of the running processes."""
    return [each["pid"] for each in done(inside, LIST, {})["processes"]]


def until_gone(inside: httpx.Client, pid: int) -> None:
    """Wait until a process has ended."""
    deadline = time.monotonic() + PATIENCE_S
    while pid in running(inside):
        assert time.monotonic() < deadline, "the process goes on"
        time.sleep(0.05)


def test_a_process_is_streamed_from_its_start_to_its_end(inside: httpx.Client) -> None:
    """Start, both outputs, and the end with its code."""
    line = 'echo "$A"; pwd; echo warn >&2; exit 3'
    asked = bash(line)
    asked["process"] |= {"envs": {"A": "1 ü"}, "cwd": "/tmp"}  # noqa: S108 - in the sandbox
    messages, end = streamed(inside, START, asked)
    assert messages[0]["event"]["start"]["pid"] > 0
    assert out(messages) == "1 ü\n/tmp\n".encode()
    assert out(messages, "stderr") == b"warn\n"
    assert messages[-1]["event"]["end"] == {
        "exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3",
    }  # fmt: skip
    assert end == {}


def test_a_signal_ends_it_in_gos_words(inside: httpx.Client) -> None:
    messages, _ = streamed(inside, START, bash("kill -9 $$"))
    ended = messages[-1]["event"]["end"]
    assert (ended["exitCode"], ended.get("exited", False)) == (-1, False)
    assert ended["error"] == "signal: SIGKILL"


def test_what_it_leaves_behind_is_not_waited_for(inside: httpx.Client) -> None:
    started = time.monotonic()
    messages, _ = streamed(inside, START, bash("sleep 600 & echo left"))
    assert out(messages) == b"left\n"
    assert time.monotonic() - started < PATIENCE_S


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"process": {"cmd": "/no/such/program"}}, "invalid_argument"),
        ({"process": {"cmd": "/bin/true", "cwd": "/no/such/folder"}}, "invalid_argument"),
        ({"process": {"cmd": "/bin/true", "cwd": "~root"}}, "invalid_argument"),
        ({"process": {"cmd": ""}}, "invalid_argument"),
        ({}, "invalid_argument"),
    ],
    ids=["no program", "no folder", "another's home", "no command", "nothing"],
)
def test_a_process_that_cannot_start_says_why(
    inside: httpx.Client, asked: dict[str, object], code: str
) -> None:
    messages, end = streamed(inside, START, asked)
    assert messages == []
    assert end["error"]["code"] == code


def test_a_missing_folder_is_named(inside: httpx.Client) -> None:
    asked = {"process": {"cmd": "/bin/true", "cwd": "/no/such/folder"}}
    assert "cwd: /no/such/folder" in streamed(inside, START, asked)[1]["error"]["message"]


@pytest.mark.parametrize("user", ["root", "postgres"])
def test_only_one_user_is_there(inside: httpx.Client, user: str) -> None:
    """Another is refused by name; the control is the one who is there."""
    other = f"Basic {base64.b64encode(f'{user}:'.encode()).decode()}"
    mine = f"Basic {base64.b64encode(b'user:').decode()}"
    messages, end = streamed(inside, START, bash("true"), Authorization=other)
    assert (messages, end["error"]["code"]) == ([], "permission_denied")
    assert user in end["error"]["message"]
    assert refused(inside, "filesystem.Filesystem/Stat", {"path": "/"}, Authorization=other) == (
        "permission_denied"
    )
    assert streamed(inside, START, bash("true"), Authorization=mine)[1] == {}


def test_a_time_limit_ends_the_process(inside: httpx.Client) -> None:
    """And the stream says that it was the limit."""
    messages, end = streamed(
        inside, START, bash("echo begun; exec sleep 600"), Connect_Timeout_Ms="1500"
    )
    assert end["error"]["code"] == "deadline_exceeded"
    until_gone(inside, messages[0]["event"]["start"]["pid"])


def test_a_process_outlives_its_client_and_is_found_again(inside: httpx.Client) -> None:
    """By its number and its tag; what it wrote before is not repeated, unless that is asked for."""
    line = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after"
    with opened(inside, START, bash(line, tag="lasting")) as coming:
        pid = next(coming)[1]["event"]["start"]["pid"]
        assert out([next(coming)[1]]) == b"before\n"
    assert pid in running(inside)
    (found,) = (each for each in done(inside, LIST, {})["processes"] if each["pid"] == pid)
    assert found["tag"] == "lasting"
    assert found["config"] == {"cmd": "/bin/bash", "args": ["-c", line]}
    with (
        opened(inside, CONNECT, {"process": {"pid": pid}}) as new,
        opened(inside, CONNECT, {"process": {"tag": "lasting"}, "replay": True}) as every,
    ):
        assert next(new)[1] == next(every)[1] == {"event": {"start": {"pid": pid}}}
        streamed(inside, START, bash("touch go"))
        assert out(each for _, each in new if "event" in each) == b"after\n"
        assert out(each for _, each in every if "event" in each) == b"before\nafter\n"
    _, end = streamed(inside, CONNECT, {"process": {"pid": pid}})
    assert end["error"]["code"] == "not_found"


def test_a_silent_stream_says_that_it_is_alive(inside: httpx.Client) -> None:
    line = "while [ ! -e speak ]; do sleep 0.05; done; echo spoken"
    with opened(inside, START, bash(line), Keepalive_Ping_Interval="1") as coming:
        next(coming)
        assert next(coming)[1] == {"event": {"keepalive": {}}}
        streamed(inside, START, bash("touch speak"))
        assert out(each for _, each in coming if "event" in each) == b"spoken\n"


def test_input_goes_in_and_ends(inside: httpx.Client) -> None:
    """Stdin that was asked for takes bytes until it is closed; without it, nothing is taken."""
    with opened(inside, START, bash("cat", stdin=True)) as coming:
        which = {"pid": next(coming)[1]["event"]["start"]["pid"]}
        for piece in (b"one\n", b"\x00\xff"):
            done(inside, SEND, {"process": which, "input": {"stdin": coded(piece)}})
        typed = {"process": which, "input": {"pty": coded(b"x")}}
        assert refused(inside, SEND, typed) == "failed_precondition"
        done(inside, CLOSE, {"process": which})
        assert out(each for _, each in coming if "event" in each) == b"one\n\x00\xff"
    with opened(inside, START, bash("sleep 600")) as coming:
        which = {"pid": next(coming)[1]["event"]["start"]["pid"]}
        given = {"process": which, "input": {"stdin": coded(b"x")}}
        assert refused(inside, SEND, given) == "failed_precondition"
        done(inside, SIGNAL, {"process": which, "signal": "SIGNAL_SIGTERM"})
        *_, ended, end = (each for _, each in coming)
        assert ended["event"]["end"]["status"] == "signal: SIGTERM"
        assert end == {}
    assert refused(inside, SIGNAL, {"process": which, "signal": 9}) == "not_found"


def test_input_is_streamed_in_order(inside: httpx.Client) -> None:
    """However long its client pauses, the pieces arrive as they were sent."""
    with opened(inside, START, bash("head -c 6", stdin=True)) as coming:
        which = {"pid": next(coming)[1]["event"]["start"]["pid"]}

        def pieces() -> Iterator[bytes]:
            yield frame({"start": {"process": which}})
            yield frame({"keepalive": {}})
            for each in (b"ab", b"cd", b"ef"):
                yield frame({"data": {"input": {"stdin": coded(each)}}})

        assert sent(inside, STREAM_INPUT, pieces()) == {}
        assert out(each for _, each in coming if "event" in each) == b"abcdef"


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], "invalid_argument"),
        ([{"keepalive": {}}], "invalid_argument"),
        ([{"data": {"input": {"stdin": "eA=="}}}], "invalid_argument"),
        ([{"start": {"process": {"pid": 4_000_000_000}}}], "not_found"),
    ],
    ids=["nothing", "no start", "data first", "nobody"],
)
def test_a_stream_of_input_begins_with_its_process(
    inside: httpx.Client, messages: list[object], code: str
) -> None:
    end = sent(inside, STREAM_INPUT, (frame(each) for each in messages))
    assert end["error"]["code"] == code


def test_a_terminal_is_typed_at_and_resized(inside: httpx.Client) -> None:
    asked = {
        "process": {"cmd": "/bin/bash", "args": ["--norc"]},
        "pty": {"size": {"cols": 80, "rows": 24}},
    }
    with opened(inside, START, asked) as coming:
        which = {"pid": next(coming)[1]["event"]["start"]["pid"]}
        done(inside, UPDATE, {"process": which, "pty": {"size": {"cols": 120, "rows": 40}}})
        assert refused(inside, CLOSE, {"process": which}) == "failed_precondition"
        wrong = {"process": which, "input": {"stdin": coded(b"x")}}
        assert refused(inside, SEND, wrong) == "failed_precondition"
        typed = b"stty size; exit 7\n"
        done(inside, SEND, {"process": which, "input": {"pty": coded(typed)}})
        *seen, ended, end = (each for _, each in coming)
        assert b"40 120" in out(seen, "pty")
        assert ended["event"]["end"]["exitCode"] == 7
        assert end == {}


def test_a_process_waits_for_a_slow_reader_and_loses_nothing(inside: httpx.Client) -> None:
    """Its reader stops for a while; then all of it arrives."""
    size = 6_000_000
    with opened(inside, START, bash(f"head -c {size} /dev/zero")) as coming:
        next(coming)
        first = next(coming)[1]
        time.sleep(2)
        got = len(out([first])) + len(out(each for _, each in coming if "event" in each))
    assert got == size


def test_an_unknown_process_is_not_found(inside: httpx.Client) -> None:
    for which in ({"pid": 0}, {"pid": 4_000_000_000}, {"tag": "nobody's"}):
        signalled = {"process": which, "signal": "SIGNAL_SIGKILL"}
        assert refused(inside, SIGNAL, signalled) == "not_found"
        assert streamed(inside, CONNECT, {"process": which})[1]["error"]["code"] == "not_found"


def test_what_is_not_the_protocol_is_refused_in_its_words(inside: httpx.Client) -> None:
    assert refused(inside, LIST, {}, Connect_Protocol_Version="2") == "invalid_argument"
    assert refused(inside, LIST, {}, Connect_Timeout_Ms="soon") == "invalid_argument"
    assert refused(inside, LIST, [1]) == "invalid_argument"
    assert refused(inside, SIGNAL, {"process": {"pid": 1}}) == "invalid_argument"
    assert call(inside, f"{PROCESS}/Other", {}).status_code == 404
    for content_type in ("application/connect+proto", "application/proto", "application/json"):
        answer = inside.post(
            f"/{START}", content=frame(bash("true")), headers={"Content-Type": content_type}
        )
        assert b"unimplemented" in answer.content
    for content in (
        b"", b"\0", frame(bash("true"), flags=1), frame(bash("true")) * 2, b"\0\xff\xff\xff\xff",
    ):  # fmt: skip
        end = sent(inside, START, [content])
        assert end["error"]["code"] in {"invalid_argument", "unimplemented", "resource_exhausted"}


def test_a_stream_of_a_sandbox_that_is_killed_says_that_it_is_gone(deployed: Deployment) -> None:
    """The stream ends with a failure, not as if the process had ended."""
    client = control(deployed, "e2b-processes")
    made = create(client)
    other = within(deployed, made)
    with opened(other, START, bash("sleep 600")) as coming:
        next(coming)
        assert client.delete(f"/sandboxes/{made['sandboxID']}").status_code == 204
        *messages, (flags, end) = coming
    assert (messages, flags, end["error"]["code"]) == ([], 2, "unavailable")
    assert other.get("/health").status_code == 502
