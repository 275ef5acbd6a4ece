"""What is wrong with a value that pydantic refused, in plain words."""

from collections.abc import Mapping
from typing import Any

_PREFIX = "Value error, "


def complaint(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, without the value; `error` is one of `errors()`."""
    if error["type"] == "extra_forbidden":
        return "unknown field"
    return str(error["msg"]).removeprefix(_PREFIX)
