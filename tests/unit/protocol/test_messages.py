"""A message is accepted as what it claims to be, or refused."""

import json

import pytest

from runner.protocol.commands import (
    COMMANDS,
    INVOCATION,
    Clean,
    Collect,
    Command,
    Invocation,
    Live,
    Load,
    Ping,
    PlaceFile,
    Prepare,
    RunProgram,
    Terminate,
)
from runner.protocol.events import EVENTS, ArtifactOffered, Loaded, SupervisorEvent
from runner.verify.forged import forged
from runner.words.errors import ProtocolViolation
from tests.support.protocol import EXAMPLES

SENT: tuple[Command, ...] = (
    Ping(),
    Load(),
    Prepare(),
    PlaceFile("a/b", 3),
    RunProgram(program_bytes=1, stdin_bytes=2, output_bytes=3, egress=True, trust="certificate"),
    Terminate(),
    Collect(names_bytes=9, max_files=1, max_bytes=2, again=True),
    Clean(),
    Live(secret="0f" * 32, alone_s=60, egress=True, trust="certificate"),
)


@pytest.mark.parametrize("event", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_an_event_is_read_as_it_was_written(event: SupervisorEvent) -> None:
    assert EVENTS.decode(EVENTS.encode(event)) == event


@pytest.mark.parametrize("command", SENT, ids=lambda each: str(each.name))
def test_a_command_is_read_as_it_was_written(command: Command) -> None:
    assert COMMANDS.decode(COMMANDS.encode(command)) == command


def test_every_message_has_an_example_here() -> None:
    assert [each.name for each in SENT] == list(COMMANDS.kinds)
    assert list(EXAMPLES) == list(EVENTS.kinds)


def test_a_program_is_read_as_it_was_written() -> None:
    """Its texts may be any that Python can hold, such as a path that is not UTF-8."""
    program = Invocation(("python3", "\udcff"), {"A": "\N{SNAKE}"}, "/workspace", interpret=True)
    assert json.loads(program.encode()) == {
        "argv": ["python3", "\udcff"],
        "env": {"A": "\N{SNAKE}"},
        "cwd": "/workspace",
        "interpret": True,
    }
    plain = Invocation(("true",), {}, "/", interpret=False)
    assert INVOCATION.validate_json(plain.encode()) == plain


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b'{"say": "loaded", "failed": NaN}', "not JSON"),
        (b'{"say": "loaded", "failed": -Infinity}', "not JSON"),
        (b'{"say": "loaded", "failed": 1.0}', "not JSON"),
        (b'{"say": "loaded", "failed": ' + b"9" * 100_000 + b"}", "not JSON"),
        (b'{"say": "loaded", "failed": ' + b"[" * 100_000 + b"}", "not JSON"),
        (b"null", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b'"alive"', "not a JSON object"),
        (b'{"failed": []}', "names no known kind"),
        (b'{"say": "unknown"}', "names no known kind"),
        (b'{"say": null}', "names no known kind"),
        (b'{"say": ["alive"]}', "names no known kind"),
        (b'{"say": "alive", "say": "alive"}', "names a field twice"),
        (b'{"say": "loaded", "failed": [], "failed": []}', "names a field twice"),
        (b'{"say": "loaded"}', "'loaded' with wrong failed: "),
        (b'{"say": "loaded", "failed": ["x", 1]}', "'loaded' with wrong failed.1: "),
        (b'{"say": "alive", "more": 1}', "'alive' with a field that it does not have"),
    ],
)
def test_what_is_no_event_is_told_by_message_and_field(payload: bytes, why: str) -> None:
    """It is malformed, ambiguous, of the wrong type, or has a field too many or too few."""
    with pytest.raises(ProtocolViolation, match="the sandbox sent") as caught:
        EVENTS.decode(payload)
    assert why in caught.value.detail


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/passwd", "empty"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("./a", "empty, `.` or `..`"),
        ("../../etc/passwd", "empty, `.` or `..`"),
        ("a/../b", "empty, `.` or `..`"),
        ("a\nb", "control characters"),
        ("\x9b2J", "control characters"),
        ("\0", "control characters"),
        ("\N{SNAKE}" * 257, "longer than 1024 bytes"),
        ("\udcff", "JSON"),
    ],
)
def test_an_artifact_has_a_plain_path(path: str, why: str) -> None:
    """It leads nowhere else, and can be printed."""
    with pytest.raises(ProtocolViolation, match="'artifact' with wrong") as caught:
        EVENTS.decode(forged(ArtifactOffered("a", 1), path=path))
    assert why in caught.value.detail


@pytest.mark.parametrize("path", ["a/b", "...", "\\xff", "\N{SNAKE}" * 256, "a b", "~", "-rf"])
def test_any_other_name_of_an_artifact_is_kept(path: str) -> None:
    offered = ArtifactOffered(path, 1)
    assert EVENTS.decode(EVENTS.encode(offered)) == offered


@pytest.mark.parametrize(
    "payload",
    [
        forged(Loaded(failed=()), failed="canary"),
        forged(Loaded(failed=()), canary="canary"),
        forged(Loaded(failed=()), say="canary"),
        forged(ArtifactOffered("a", 1), path="canary" * 1000),
        b"canary",
    ],
)
def test_a_violation_does_not_repeat_what_was_sent(payload: bytes) -> None:
    """A hostile text does not reach logs and results through an error."""
    with pytest.raises(ProtocolViolation) as caught:
        EVENTS.decode(payload)
    assert "canary" not in caught.value.detail
    assert len(caught.value.detail) < 300
