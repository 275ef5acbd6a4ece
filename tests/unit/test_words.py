"""Text and JSON from elsewhere, made safe or refused."""

from collections.abc import Callable

import pytest

from runner.words.json import RepeatedKey, read_json
from runner.words.text import escaped, numbered, printable, replaced


@pytest.mark.parametrize(
    ("instead", "shown"),
    [
        (replaced, "a\N{REPLACEMENT CHARACTER}é\N{REPLACEMENT CHARACTER}"),
        (escaped, "a\\né\\u202e"),
        (numbered, "a\\u000aé\\u202e"),
    ],
)
def test_what_is_not_printable_is_shown_as_something_harmless(
    instead: Callable[[str], str], shown: str
) -> None:
    assert printable("a\né\u202e", instead) == shown


def test_what_words_are_spelled_with_is_shown_as_it_is() -> None:
    """Japanese and French spaces, and the joiners of Persian."""
    text = "売上\u3000集計 9.41\u202fAM \u0645\u06cc\u200c\u062e"
    assert printable(text, escaped) == text


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_an_object_that_holds_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(RepeatedKey):
        read_json(text)


def test_hooks_are_those_of_json() -> None:
    assert read_json('{"a": 1, "b": {"a": 1.5}}', parse_float=str) == {"a": 1, "b": {"a": "1.5"}}
