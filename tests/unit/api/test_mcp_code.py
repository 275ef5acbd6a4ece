"""A model gets a bounded part of a run's results, and the number of the others."""

import base64

import pytest

from runner.api.mcp.code import MOST_BASE64, MOST_KINDS, MOST_SHOWN, MOST_SHOWN_TEXT, ShownRun
from runner.api.mcp.results import MAX_PICTURES, MAX_TEXT, Part, Picture
from runner.door.replies import ResultReply, RunEndedReply, ValueReply
from runner.door.streams import RunPart
from runner.door.wire import Chunk

DONE = ResultReply(main=False, truncated=False)
END = RunEndedReply(1, 0, None, timed_out=False, gone=False)
TINY = base64.b64encode(b"\x89PNG\r\n\x1a\n")


def value(mime: str, data: bytes) -> tuple[RunPart, RunPart]:
    """Return one kind of a result."""
    return ValueReply(mime, json=False), Chunk(b"D", data)


def shown(*parts: RunPart, times: int = 1) -> list[Part]:
    """Return what a model gets of results, each of these parts so often."""
    ran = ShownRun()
    for _ in range(times):
        for part in parts:
            ran.take(part)
    ran.take(END)
    how, *rest = ran.result(1.0).parts
    assert how == "ok"
    return rest


def length(parts: list[Part]) -> int:
    return sum(len(each.data if isinstance(each, Picture) else each.encode()) for each in parts)


@pytest.mark.parametrize(
    ("mime", "data"),
    [
        ("text/plain", b"y" * 16_000),
        ("text/plain", b"y"),
        ("text/plain", b""),
        ("image/png", TINY),
        ("image/png", b"A" * (MOST_BASE64 // 3)),
        ("image/png", b"A" * (MOST_BASE64 + 4)),
        ("image/png", b"A"),
        ("a/" + "b" * 250, b""),
    ],
)
def test_however_many_results_a_run_has_a_model_gets_some(mime: str, data: bytes) -> None:
    """The results that it does not get are counted."""
    times = 3000
    parts = shown(*value(mime, data), DONE, times=times)
    *some, last = parts
    assert 1 <= len(some) <= MOST_SHOWN
    assert length(parts) < MAX_PICTURES + MOST_SHOWN_TEXT + 1000
    assert isinstance(last, str)
    assert f"[{times - len(some):,} further results left out" in last


def test_few_results_are_all_shown_and_nothing_is_said_to_be_left_out() -> None:
    parts = shown(*value("text/plain", b"y" * MAX_TEXT), DONE, times=4)
    assert parts == ["y" * MAX_TEXT] * 4


def test_a_short_result_is_shown_after_one_that_there_was_no_room_for() -> None:
    large = [*value("text/plain", b"y" * MAX_TEXT), DONE] * 5
    *_, short, left_out = shown(*large[:-3], *value("image/png", TINY), DONE, *large[-3:])
    assert isinstance(short, Picture)
    assert "[1 further" in str(left_out)


@pytest.mark.parametrize("data", [b"A", b"AAAAA", b"\xff\xfeA", b"=", b""])
def test_a_picture_that_is_not_in_base64_is_a_sentence(data: bytes) -> None:
    (said,) = shown(*value("image/png", data), *value("text/plain", b"x"), DONE)
    assert said == "[a result that says it is image/png, but is not in base64]"


def test_a_picture_is_preferred_and_kinds_beyond_some_are_left_out() -> None:
    kinds = [part for each in range(MOST_KINDS) for part in value(f"a/{each}", b"x")]
    (picture,) = shown(*value("text/plain", b"x"), *value("image/png", TINY), DONE)
    assert picture == Picture(base64.b64decode(TINY), "image/png")
    (said,) = shown(*kinds, *value("text/plain", b"late"), DONE)
    assert "cannot be shown here" in str(said)
