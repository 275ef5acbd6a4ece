"""Filters of lists as E2B's clients write them, without services."""

import pytest
from fastapi.exceptions import RequestValidationError

from runner.api.e2b.sandboxes import MOST_LABELS, _metadata


def test_labels_are_quoted_twice() -> None:
    assert _metadata("a%2520b=c%253Dd&e=") == {"a b": "c=d", "e": ""}
    assert _metadata(None) == {}
    assert len(_metadata("&".join(f"{n}=1" for n in range(MOST_LABELS)))) == MOST_LABELS


@pytest.mark.parametrize(
    ("text", "said"),
    [("&".join(f"{n}=1" for n in range(MOST_LABELS + 1)), "at most 64"),
     ("a=%2500", "NUL"), ("a%2500=b", "NUL"), ("a=%00", "NUL"), ("a=\0", "NUL")],
)  # fmt: skip
def test_labels_that_cannot_be_are_refused(text: str, said: str) -> None:
    """The answer is an error of the client and says what is wrong. PostgreSQL takes no NUL."""
    with pytest.raises(RequestValidationError) as refused:
        _metadata(text)
    assert said in refused.value.errors()[0]["msg"]
