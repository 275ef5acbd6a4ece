"""The node's notes about a process come back from an untrusted supervisor."""

import json
import time

import pytest

from runner.node.residents.processes import ProcessLabel
from runner.words.living import Launch

LONGEST = 1024


def test_a_label_tells_what_was_started_and_until_when() -> None:
    label = ProcessLabel.of(Launch(("sleep", "5"), timeout_s=10, tag="nap"))
    assert ProcessLabel.read(label.text()) == label
    assert (label.argv, label.tag) == (("sleep", "5"), "nap")
    assert label.until == pytest.approx(time.time() + 10, abs=1)


def test_a_process_without_a_limit_has_none() -> None:
    assert ProcessLabel.of(Launch(("a",))).until is None


@pytest.mark.parametrize(
    "argv",
    [("a" * 100_000,), ("a", *("ü" * 500,) * 50), tuple("abc" * 4000), ("\U0001f600" * 9000,) * 4],
)
def test_a_label_is_short_however_long_the_arguments(argv: tuple[str, ...]) -> None:
    label = ProcessLabel.of(Launch(argv, tag='\U0001f600"' * 128))
    assert len(label.text()) <= LONGEST
    assert label.argv[0] == argv[0][: len(label.argv[0])]
    assert ProcessLabel.read(label.text()) == label


@pytest.mark.parametrize(
    "text",
    ["", "x", "{}", "null", json.dumps({"argv": [1], "tag": None, "started_at": 0, "until": None})],
)
def test_a_label_that_makes_no_sense_says_nothing(text: str) -> None:
    assert ProcessLabel.read(text) == ProcessLabel((), None, 0.0, None)
