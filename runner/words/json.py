"""Reads JSON strictly: an object that holds a key twice is refused, as it has two meanings."""

import json
from typing import Any


class RepeatedKey(ValueError):
    """An object holds a key twice; parsers differ in which of the values they take."""

    def __init__(self) -> None:
        super().__init__("a key appears twice")


def read_json(text: str, **hooks: Any) -> Any:
    """Return the value of a JSON text; `hooks` are those of `json.loads`.

    Raises RepeatedKey, and whatever `json.loads` raises.
    """
    return json.loads(text, object_pairs_hook=_distinct, **hooks)


def strict_decoder(**hooks: Any) -> json.JSONDecoder:
    """Return what reads many JSON texts as `read_json` does; to make it takes as long as a text."""
    return json.JSONDecoder(object_pairs_hook=_distinct, **hooks)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RepeatedKey
    return found
