"""Arguments of several commands, checked before anything is connected to."""

from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import StringConstraints, TypeAdapter, ValidationError

from runner.api.fields import Name, Text

MOST_DAYS = 36_500
MOST_AT_ONCE = 100_000


def _taken_as(kind: Any, what: str) -> Callable[[str | None], str | None]:
    """Return a check that accepts what the API accepts, and else raises BadParameter(what)."""
    adapter: TypeAdapter[str] = TypeAdapter(kind)

    def take(text: str | None) -> str | None:
        if text is None:
            return None
        try:
            return adapter.validate_python(text)
        except ValidationError:
            raise typer.BadParameter(what) from None

    return take


tenant_name = _taken_as(
    Name, "a tenant's name is 1 to 63 of a-z, 0-9 and -, and begins with a letter or digit"
)
label = _taken_as(
    Annotated[Text, StringConstraints(min_length=1, max_length=128)],
    "give 1 to 128 characters of valid Unicode",
)
reason = _taken_as(
    Annotated[Text, StringConstraints(min_length=1, max_length=512)],
    "give 1 to 512 characters of valid Unicode",
)
