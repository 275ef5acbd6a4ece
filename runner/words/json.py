"""JSON as strict readers take it: an object that names a key twice means two things."""

import json
from typing import Any


class RepeatedKey(ValueError):
    """An object holds a key twice, and parsers differ in which of its values they take."""

    def __init__(self) -> None:
        super().__init__("a key appears twice")


def read_json(text: str, **hooks: Any) -> Any:
    """Return the value of a JSON text, read with these hooks of `json.loads`.

    Raises RepeatedKey, and whatever else `json.loads` raises.
    """
    return json.loads(text, object_pairs_hook=_distinct, **hooks)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RepeatedKey
    return found
