"""The events of a run become lines that E2B's clients of the code interpreter read."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runner.api.e2b.executed import DATA, MOST_DATA, MOST_EXTRA, MOST_HELD, WORDS, ExecutionLines
from runner.door.replies import GapReply, RaisedReply, ResultReply, RunEndedReply, ValueReply
from runner.door.streams import RunPart
from runner.door.wire import Chunk
from runner.words.living import Language

END = RunEndedReply(1, 0, None, timed_out=False, gone=False)
DONE = ResultReply(main=True, truncated=False)


async def lines(*parts: RunPart, language: Language = "python") -> list[dict[str, Any]]:
    """Return the lines that tell of these parts; every one is complete JSON."""

    async def told() -> AsyncIterator[RunPart]:
        for part in parts:
            yield part

    writer = ExecutionLines(told(), language)
    text = b"".join([piece async for piece in writer.written()]).decode()
    assert not writer.within
    return [json.loads(line) for line in text.splitlines()]


def value(mime: str, *pieces: str, is_json: bool = False) -> list[RunPart]:
    """Return the parts of one kind of a result."""
    return [
        ValueReply(mime, is_json),
        *(Chunk(b"D", piece.encode()) for piece in pieces),
    ]


async def result(*parts: RunPart, truncated: bool = False) -> dict[str, Any]:
    """Return the line of one result."""
    first, *_ = await lines(*parts, ResultReply(main=True, truncated=truncated), END)
    return first


async def test_a_result_has_their_word_for_each_kind() -> None:
    assert await result(
        *value("text/plain", "4", "2"),
        *value("text/html", '<b class="x">', "\n\u2028</b>"),
        *value("application/json", '{"a": ', "[1]}", is_json=True),
        *value("application/vnd.runner.chart+json", '{"type": "pie"}', is_json=True),
        *value(DATA, '{"columns": {"a": [1]}, "rows": 1}', is_json=True),
        *value("application/vnd.other", "else"),
        *value("application/vnd.other+json", "[1]", is_json=True),
    ) == {
        "type": "result",
        "text": "42",
        "html": '<b class="x">\n\u2028</b>',
        "json": {"a": [1]},
        "chart": {"type": "pie"},
        "data": {"a": [1]},
        "extra": {"application/vnd.other": "else", "application/vnd.other+json": [1]},
        "is_main_result": True,
    }


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (("'a", "b'"), "ab"),
        (("'",), "'"),
        (("''",), ""),
        (("'a", "b"), "'ab"),
        (('"a\'b"',), '"a\'b"'),
        ((), ""),
    ],
)
async def test_a_strings_representation_is_shown_without_its_quotes(
    pieces: tuple[str, ...], shown: str
) -> None:
    assert (await result(*value("text/plain", *pieces)))["text"] == shown


async def test_a_long_text_is_told_as_it_comes_with_its_quotes() -> None:
    piece = "x" * 65_536
    pieces = ["'", *[piece] * (MOST_HELD // len(piece) + 1), "'"]
    assert (await result(*value("text/plain", *pieces)))["text"] == "".join(pieces)


async def test_a_character_may_be_torn_between_two_pieces() -> None:
    whole = "häßlich".encode()
    parts: list[RunPart] = [
        ValueReply("text/html", json=False),
        Chunk(b"D", whole[:2]),
        Chunk(b"D", whole[2:]),
    ]
    assert (await result(*parts))["html"] == "häßlich"
    (out, *_) = await lines(Chunk(b"O", whole[:2]), Chunk(b"O", whole[2:]), END)
    assert out["text"] == "h"


async def test_kinds_without_a_word_have_a_bound_together() -> None:
    """Data without room is left out; the rest of the result is whole."""
    large = "x" * (MOST_HELD // 2)
    found = await result(
        *value("a/a", large), *value("b/b", large, "x"), *value("text/html", "<b>")
    )
    assert (found["extra"].keys(), found["html"]) == ({"a/a"}, "<b>")


async def test_kinds_without_a_word_are_bounded_in_number_and_by_their_names() -> None:
    """Names alone would fill the API's memory: a sandbox may say ever new ones without text."""
    short = [part for each in range(10 * MOST_EXTRA) for part in value(f"a/{each}")]
    assert len((await result(*short))["extra"]) == MOST_EXTRA
    name = "x" * (MOST_HELD // 8)
    long = [part for each in range(16) for part in value(f"{name}/{each}")]
    found = (await result(*long))["extra"]
    assert 0 < sum(map(len, found)) <= MOST_HELD


@pytest.mark.parametrize("mime", ["application/json", "application/vnd.other+json"])
async def test_json_is_passed_on_unread(mime: str) -> None:
    """The node has checked it. The control: who reads this one fails."""
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(RecursionError):
        json.loads(deep)

    async def told() -> AsyncIterator[RunPart]:
        for part in (*value(mime, deep[:70_000], deep[70_000:], is_json=True), DONE, END):
            yield part

    written = b"".join([each async for each in ExecutionLines(told(), "python").written()])
    assert f'"{WORDS.get(mime, mime)}": {deep}'.encode() in written
    assert written.count(b"\n") == 3


async def test_json_that_had_line_breaks_would_still_be_one_line() -> None:
    for mime in ("application/json", "application/vnd.other+json"):
        found = await result(*value(mime, "[1,\n", "\r\n2]", is_json=True))
        assert [1, 2] in (found.get("json"), found.get("extra", {}).get(mime))


async def test_json_without_text_is_null() -> None:
    found = await result(*value("application/json", is_json=True), *value("a/b", is_json=True))
    assert (found["json"], found["extra"]) == (None, {"a/b": None})


async def test_a_large_table_is_told_by_its_columns() -> None:
    """Beyond all bounds, it is told as it is."""
    for size, whole in ((100_000, False), (MOST_DATA, True)):
        text = "x" * size
        given = json.dumps({"columns": {"a": [text]}, "rows": 1})
        pieces = [given[at : at + 65_536] for at in range(0, len(given), 65_536)]
        found = (await result(*value(DATA, *pieces, is_json=True)))["data"]
        assert found == (json.loads(given) if whole else {"a": [text]})


@pytest.mark.parametrize("given", ["[1]", '"x"', "1", '{"other": 1}', '["columns"]'])
async def test_data_of_another_shape_is_told_as_it_is(given: str) -> None:
    """A sandbox may say anything."""
    assert (await result(*value(DATA, given, is_json=True)))["data"] == json.loads(given)


async def test_a_result_that_was_cut_off_says_so() -> None:
    found = await result(*value("text/html", "<b"), truncated=True)
    assert (found["html"], found["extra"]) == ("<b", {"truncated": True})


async def test_errors_losses_and_ends() -> None:
    raised, lost, count, end = await lines(
        RaisedReply("E", "v", "t"),
        GapReply(7),
        RunEndedReply(3, 1, None, timed_out=False, gone=False),
    )
    assert raised == {"type": "error", "name": "E", "value": "v", "traceback": "t"}
    assert (lost["type"], "7 bytes" in lost["text"]) == ("stderr", True)
    assert count == {"type": "number_of_executions", "execution_count": 3}
    assert end == {"type": "end_of_execution"}
    gone, _ = await lines(RunEndedReply(None, 0, 11, timed_out=False, gone=True))
    assert (gone["name"], "SIGSEGV" in gone["value"]) == ("ContextEnded", True)
    failed = RunEndedReply(1, 3, None, timed_out=False, gone=False)
    assert (await lines(failed, language="bash"))[0]["value"] == "exit code 3"
    assert (await lines(failed))[0]["type"] == "number_of_executions"
