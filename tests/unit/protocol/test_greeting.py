"""Both ends use the highest generation that both speak, or part with a reason."""

import pytest

from runner.protocol import greeting
from runner.protocol.greeting import FIRST_WORDS, Greeting, Ready, agreed, first_word, framed
from runner.words.errors import ImageIncompatible, ProtocolViolation


@pytest.mark.parametrize(
    ("theirs", "picked"), [((1,), 1), ((1, 2), 2), ((3, 2, 1), 3), ((3, 9), 3), ((2, 2), 2)]
)
def test_the_highest_common_generation_is_picked(
    monkeypatch: pytest.MonkeyPatch, theirs: tuple[int, ...], picked: int
) -> None:
    """The order in which they are offered does not matter."""
    monkeypatch.setattr(greeting, "GENERATIONS", (1, 2, 3))
    assert agreed(Greeting(theirs), "python") == picked


def test_without_a_common_one_both_sides_and_the_way_out_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(greeting, "GENERATIONS", (3, 4))
    with pytest.raises(ImageIncompatible) as caught:
        agreed(Greeting((2, 1)), "data")
    assert caught.value.detail == (
        "the supervisor of the sandbox image 'data' speaks generations 1, 2 of the protocol, and "
        "this worker speaks generations 3, 4; `runner images build data`, run from this worker's "
        "version, makes an image that fits"
    )


def test_an_image_from_before_generations_is_recognised_by_its_first_bytes() -> None:
    """Such an image has always sent these bytes, and always will."""
    sent = bytearray(b'C\0\0\0\x1e{"say": "ready", "version": 4}')
    assert first_word(sent) == (Ready(version=4), len(sent))
    with pytest.raises(ImageIncompatible, match="from before there were generations"):
        agreed(Ready(version=4), "python")


def test_a_greeting_that_is_not_whole_is_waited_for() -> None:
    """This holds for every cut."""
    whole = framed(FIRST_WORDS.encode(Greeting((1, 2))))
    for cut in range(len(whole)):
        assert first_word(bytearray(whole[:cut])) is None
    assert first_word(bytearray(whole + b"more")) == (Greeting((1, 2)), len(whole))


@pytest.mark.parametrize("length", [0, greeting.LONGEST + 1, 2**32 - 1])
def test_a_greeting_of_a_wrong_length_is_refused_by_its_header(length: int) -> None:
    with pytest.raises(ProtocolViolation, match="wrong length"):
        first_word(bytearray(greeting.HEADER.pack(b"C", length)))
