"""A report is taken as what it claims to be, or not at all."""

import json

import pytest

from runner.errors import ProtocolViolation
from runner.sandbox.channel import Collected, Ended, NotStarted, Ready, parse


def test_reports_are_parsed_into_their_kinds() -> None:
    """One of each shape."""
    assert parse(b'{"say": "ready", "version": 1}') == Ready(version=1)
    assert parse(b'{"say": "not_started", "error": "ENOENT"}') == NotStarted(error="ENOENT")
    assert parse(
        b'{"say": "ended", "exit_code": 0, "signal": null, "stdout": 1, "stderr": 0,'
        b' "disk_full": false}'
    ) == Ended(exit_code=0, signal=None, stdout=1, stderr=0, disk_full=False)
    assert parse(b'{"say": "collected", "refused": [["a", "b"]], "refused_total": 1}') == Collected(
        refused=[("a", "b")], refused_total=1
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"ready"',
        b"\xff",
        b"{",
        b'{"version": 1}',
        b'{"say": "unknown"}',
        b'{"say": null}',
        b'{"say": ["ready"]}',
        b'{"say": "ready"}',
        b'{"say": "ready", "version": "1"}',
        b'{"say": "ready", "version": true}',
        b'{"say": "ready", "version": 1.0}',
        b'{"say": "ready", "version": 1, "more": 1}',
        b'{"say": "ready", "version": 1, "version": 1}',
        b'{"say": "ready", "say": "ready", "version": 1}',
        b'{"say": "ready", "version": NaN}',
        b'{"say": "ready", "version": Infinity}',
        b'{"say": "ready", "version": ' + b"9" * 100_000 + b"}",
        b'{"say": "ready", "version": ' + b"[" * 100_000 + b"}",
        b'{"say": "not_started", "error": "No such file\\u001b[2J"}',
        b'{"say": "artifact", "path": "", "size": 0}',
        b'{"say": "artifact", "path": "a", "size": -1}',
        b'{"say": "counted", "stdout": 9007199254740992, "stderr": 0}',
    ],
)
def test_anything_else_is_a_violation(payload: bytes) -> None:
    """Malformed, ambiguous, mistyped, out of range, or with a field too many or too few."""
    with pytest.raises(ProtocolViolation):
        parse(payload)


def test_a_violation_does_not_repeat_what_was_sent() -> None:
    """A hostile text does not reach logs and results through an error."""
    with pytest.raises(ProtocolViolation) as caught:
        parse(json.dumps({"say": "ready", "version": "canary"}).encode())
    assert "canary" not in caught.value.detail
