"""Two submissions with one key are compared by what the client sent, in every version."""

import hashlib
import json
from typing import Any, Literal

import pytest

from runner.api.idempotency import PIECE, fingerprint
from runner.api.idempotency import matches as matches_own
from runner.api.requests import Submission

SENT: dict[str, Any] = {
    "command": ["python3", "in.py"],
    "files": {"in.py": {"text": "print(1)"}},
    "limits": {"cpu": 1, "timeout_s": 2.5},
    "stdin": "é",
    "metadata": {"b": "2", "a": "1"},
}
STORED_BY_1 = bytes.fromhex("6f79b36fe20625b869bf17a5e88818519553b38b89212c215daba02b4bae147d")
"""The hash that the version that hashed the whole model stored for it."""


class NextSubmission(Submission):
    """A submission as a later version may define it: with one more field."""

    colour: Literal["none", "green"] = "none"


LONG = 'é\n\ud83d😀"\\' * PIECE
"""Longer than a piece, with characters of every kind of escape, and a lone surrogate."""


def parse(sent: dict[str, Any], model: type[Submission] = Submission) -> Submission:
    """Return the body that an API makes of the sent JSON."""
    return model.model_validate_json(json.dumps(sent))


def matches(stored: bytes, sent: dict[str, Any], body: Submission) -> bool:
    """Return whether a body matches what is stored."""
    return matches_own(stored, fingerprint(sent), sent, body)


LATER = {"artifacts", "output_keep"}
"""Fields that were added to submissions since then."""


def by_1(body: Submission) -> bytes:
    """Return what the first version stored: a hash of the whole model with its defaults."""
    asked = body.model_dump(mode="json", exclude={"wait_s", *LATER})
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def test_the_same_body_is_the_same_whatever_its_order_and_spacing() -> None:
    turned = json.loads(json.dumps(dict(reversed(SENT.items())), indent=2))
    assert matches(fingerprint(SENT), turned, parse(turned))


@pytest.mark.parametrize(
    "sent",
    [
        SENT,
        {},
        {"stdin": LONG, LONG: "a"},
        {"a": [], "b": {}, "c": [1, True, None, 2.5e300, "x", [{"é": ""}, -0.0]]},
    ],
    ids=["submission", "nothing", "long", "every kind"],
)
def test_what_is_written_in_pieces_is_what_was_written_at_once(sent: dict[str, Any]) -> None:
    """Stored hashes of what `json.dumps` writes stay valid."""
    at_once = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    assert fingerprint(sent) == b"\x02" + hashlib.sha256(at_once.encode()).digest()


def test_how_long_a_client_waits_does_not_count() -> None:
    again = {**SENT, "wait_s": 20}
    assert matches(fingerprint(SENT), again, parse(again))


@pytest.mark.parametrize(
    "other",
    [
        {"stdin": "e"},
        {"command": ["python3", "in.py", ""]},
        {"files": {"in.py": {"base64": "cHJpbnQoMSk="}}},
        {"limits": {"cpu": 1, "timeout_s": 2.6}},
        {"size": "medium"},
        {"on_worker_loss": "retry"},
    ],
)
def test_another_body_is_another(other: dict[str, Any]) -> None:
    sent = {**SENT, **other}
    assert not matches(fingerprint(SENT), sent, parse(sent))
    assert not matches(by_1(parse(SENT)), sent, parse(sent))


def test_a_field_that_a_later_version_adds_changes_nothing() -> None:
    assert matches(fingerprint(SENT), SENT, parse(SENT, NextSubmission))


def test_the_hash_of_the_whole_model_would_change() -> None:
    """The control: why a new version answered 409 to a repeated submission."""
    assert by_1(parse(SENT)) != by_1(parse(SENT, NextSubmission))


@pytest.mark.parametrize("model", [Submission, NextSubmission])
def test_what_the_version_before_stored_still_matches(model: type[Submission]) -> None:
    """The stored bytes match, also after a later version has added a field."""
    assert by_1(parse(SENT)) == STORED_BY_1
    assert matches(STORED_BY_1, SENT, parse(SENT, model))


def test_what_the_version_before_could_not_be_asked_does_not_match() -> None:
    sent = {**SENT, "colour": "green"}
    assert not matches(STORED_BY_1, sent, parse(sent, NextSubmission))
