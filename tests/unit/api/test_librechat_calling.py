"""What code says that waits for LibreChat's tools, and what its tokens hold, may be hostile."""

import base64
import json
from typing import Any

import pytest
from pydantic import ValidationError

from runner.api.edge.json import MAX_ELEMENTS
from runner.api.librechat.calling import (
    MAX_CALLS,
    CallingCode,
    CodeOrResults,
    Going,
    ToolOutcome,
    wanted_calls,
)
from runner.api.librechat.replay import ASKED
from runner.words.errors import Invalid

NAMES = {"look_up": "look-up"}
CALL = '{"name": "look_up", "input": {}}'


def said(text: str) -> list[dict[str, Any]]:
    """Return what the API reads in a line that code has written."""
    return wanted_calls(f"earlier\n{ASKED}{text}\n".encode(), NAMES)


def test_code_says_what_it_waits_for() -> None:
    assert said(f"[{CALL}]") == [{"name": "look_up", "input": {}}]


@pytest.mark.parametrize(
    "value",
    ["NaN", "-Infinity", "1e999", r'"\ud800"', r'{"\udfff": 1}', "[" * 100 + "]" * 100],
    ids=["nan", "infinity", "overflow", "surrogate", "surrogate-key", "deep"],
)
def test_a_call_that_no_answer_could_hold_is_none(value: str) -> None:
    """Otherwise, the code would have the API fail."""
    assert said('[{"name": "look_up", "input": {"a": 1}}]')
    assert said(f'[{{"name": "look_up", "input": {{"a": {value}}}}}]') == []


@pytest.mark.parametrize(
    "text",
    ["", "{}", "7", "[7]", "[[]]", '["x"]', '[{"name": 1}]', '[{"name": "rm", "input": {}}]', "[]"],
)
def test_what_is_no_call_is_none(text: str) -> None:
    assert said(text) == []


def test_calls_beyond_the_most_are_not_read() -> None:
    """The code is then refused, however many more it names."""
    found = said(f"[{', '.join([CALL] * (MAX_CALLS + 500))}]")
    assert len(found) == MAX_CALLS + 1
    with pytest.raises(Invalid, match="more than 1000 calls"):
        Going(code=CallingCode(code="1")).waiting(found, NAMES)


def test_a_token_holds_no_more_values_than_a_body_may() -> None:
    """A body counts its values. A token is one text, in which millions would fit."""
    going = Going(code=CallingCode(code="1"))
    plain = json.loads(base64.urlsafe_b64decode(going.token))

    def with_empty_lists(number: int) -> str:
        call = {"id": "call_1", "name": "look-up", "input": {}}
        outcome = {"call_id": "call_1", "result": [[]] * number}
        held = {**plain, "known": [[call, outcome]]}
        return base64.urlsafe_b64encode(json.dumps(held).encode()).decode()

    assert Going.of(with_empty_lists(1000)).known
    with pytest.raises(Invalid, match=f"must not hold more than {MAX_ELEMENTS}"):
        Going.of(with_empty_lists(MAX_ELEMENTS))


@pytest.mark.parametrize("result", ["\ud800", [float("inf")], {"\udc00": 1}])
def test_a_result_that_no_token_could_hold_is_refused(result: object) -> None:
    """Otherwise, the next answer would fail."""
    assert ToolOutcome(call_id="call_1", result=[1.5, "x"])
    with pytest.raises(ValidationError, match="finite numbers and valid Unicode"):
        ToolOutcome(call_id="call_1", result=result)
    with pytest.raises(ValidationError):
        CodeOrResults.model_validate(
            {"continuation_token": "x", "tool_results": [{"call_id": "1", "result": result}]}
        )
