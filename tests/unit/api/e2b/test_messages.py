"""Messages of E2B's clients: protocol buffers as JSON, as lenient as that mapping is."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.messages import (
    ConnectRequest,
    ListDirRequest,
    MoveRequest,
    SendInputRequest,
    SendSignalRequest,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
    WatchDirRequest,
    parsed,
    resolved,
)

EVERY = (
    ConnectRequest,
    ListDirRequest,
    MoveRequest,
    SendInputRequest,
    SendSignalRequest,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
    WatchDirRequest,
)
BASH: dict[str, Any] = {"cmd": "/bin/bash", "args": ["-l", "-c", "true"]}


def test_a_start_as_the_sdks_send_it() -> None:
    """With and without an environment, a folder, a terminal and a word on stdin."""
    plain = parsed(StartRequest, json.dumps({"process": BASH, "stdin": False}).encode())
    assert plain.launch(60.0).argv == ("/bin/bash", "-l", "-c", "true")
    assert plain.launch(60.0).timeout_s == 60.0
    assert not plain.launch(None).stdin
    old = parsed(StartRequest, json.dumps({"process": BASH}).encode())
    assert old.launch(None).stdin
    typed = parsed(
        StartRequest,
        json.dumps(
            {
                "process": {**BASH, "envs": {"A": "1"}, "cwd": "~/x"},
                "pty": {"size": {"cols": "80", "rows": 24}},
                "tag": "t",
                "unknown": {"later": True},
            }
        ).encode(),
    ).launch(None)
    assert (typed.terminal and typed.terminal.columns, typed.cwd, typed.tag) == (80, "x", "t")
    assert dict(typed.env) == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "data"),
    [("AP_-", b"\0\xff\xfe"), ("AP/+", b"\0\xff\xfe"), ("/w==", b"\xff"), ("/w", b"\xff"),
     ("_w", b"\xff"), ("", b"")],
)  # fmt: skip
def test_bytes_come_in_both_alphabets_with_and_without_padding(text: str, data: bytes) -> None:
    asked = {"process": {"pid": 1}, "input": {"stdin": text}}
    assert parsed(SendInputRequest, json.dumps(asked).encode()).input.data == data


def test_both_spellings_and_nulls_are_read() -> None:
    camel = parsed(WatchDirRequest, b'{"path": "x", "includeEntry": true, "recursive": null}')
    snake = parsed(WatchDirRequest, b'{"path": "x", "include_entry": true}')
    assert camel == snake


@pytest.mark.parametrize("signal", ["SIGNAL_SIGKILL", 9])
def test_a_signal_is_named_or_numbered(signal: object) -> None:
    asked = {"process": {"pid": 1}, "signal": signal}
    assert parsed(SendSignalRequest, json.dumps(asked).encode()).signal == 9


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (SendSignalRequest, '{"process": {"pid": 1}}'),
        (SendSignalRequest, '{"process": {"pid": 1}, "signal": 2}'),
        (ConnectRequest, '{"process": {}}'),
        (ConnectRequest, '{"process": {"pid": 1, "tag": "x"}}'),
        (ConnectRequest, '{"process": {"pid": -1}}'),
        (ConnectRequest, '{"process": {"pid": 4294967296}}'),
        (SendInputRequest, '{"process": {"pid": 1}, "input": {}}'),
        (SendInputRequest, '{"process": {"pid": 1}, "input": {"stdin": "*"}}'),
        (SendInputRequest, '{"process": {"pid": 1}, "input": {"stdin": 5}}'),
        (StartRequest, "{}"),
        (StartRequest, '{"process": {"cmd": ""}}'),
        (StartRequest, '{"process": {"cmd": "a\\u0000b"}}'),
        (StartRequest, '{"process": {"cmd": "a", "envs": {"A=B": "c"}}}'),
        (StartRequest, '{"process": {"cmd": "a", "envs": {"": "c"}}}'),
        (StartRequest, '{"process": {"cmd": "a"}, "pty": {"size": {"cols": 0, "rows": 1}}}'),
        (StartRequest, '{"process": {"cmd": "a", "args": ["' + "x" * 200_000 + '"]}}'),
        (StreamInputRequest, "{}"),
        (StreamInputRequest, '{"start": {"process": {"pid": 1}}, "keepalive": {}}'),
        (MoveRequest, '{"source": "a"}'),
        (ListDirRequest, '{"path": "' + "x" * 5000 + '"}'),
        (ListDirRequest, '{"path": "x", "depth": -1}'),
        (ListDirRequest, "[]"),
        (ListDirRequest, '{"path": "a", "path": "b"}'),
        (ListDirRequest, "[" * 100 + "]" * 100),
        (ListDirRequest, "not JSON"),
    ],
)
def test_what_a_message_may_not_say_is_an_invalid_argument(kind: Any, text: str) -> None:
    with pytest.raises(ConnectError) as refused:
        parsed(kind, text.encode())
    assert refused.value.code is Code.INVALID_ARGUMENT
    assert len(refused.value.message) < 2000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(
            ["process", "pid", "tag", "input", "stdin", "pty", "size", "cols", "rows", "cmd",
             "args", "envs", "cwd", "signal", "path", "depth", "start", "data", "keepalive"]
        ) | st.text(max_size=5),
        inner, max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.sampled_from(EVERY), values)
def test_any_json_is_read_or_refused(kind: Any, said: object) -> None:
    with suppress(ConnectError):
        parsed(kind, json.dumps(said).encode())


@pytest.mark.parametrize(
    ("path", "meant"),
    [("", "."), ("~", "."), ("~/", "."), ("~//a", "a"), ("~/a/b", "a/b"), ("a", "a"), ("/a", "/a"),
     ("a/~", "a/~")],
)  # fmt: skip
def test_paths_begin_at_home(path: str, meant: str) -> None:
    assert resolved(path) == meant


def test_there_is_no_other_home() -> None:
    with pytest.raises(ConnectError, match="~root"):
        resolved("~root/x")
