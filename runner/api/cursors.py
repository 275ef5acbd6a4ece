"""What listings are asked by: cursors, opaque to clients and checked all the same, and moments."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi.exceptions import RequestValidationError
from pydantic import AwareDatetime, BeforeValidator

from runner.words.paths import MAX_BYTES, file_path


def rfc3339(value: object) -> object:
    """Refuse the bare numbers that pydantic would take for seconds since 1970."""
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d[Tt ]", value):
        raise ValueError("must be a date and time with its offset, as in RFC 3339")
    return value


Row = TypeVar("Row")
Moment = Annotated[AwareDatetime, BeforeValidator(rfc3339)]
MAX_LENGTH = 96
MAX_PATH_LENGTH = 4 * MAX_BYTES // 3 + 4
"""Of base64."""
MAX_SEQ = 2**62
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
LAST = datetime(9000, 1, 1, tzinfo=UTC)


def page(
    found: Sequence[Row], limit: int, place: Callable[[Row], UUID | int | str]
) -> tuple[Sequence[Row], str | None]:
    """Return the first `limit` rows of one more, and the cursor of the rest if there is any."""
    shown = found[:limit]
    return shown, encode(place(shown[-1])) if len(found) > limit else None


def encode(value: UUID | int | str) -> str:
    """Return a cursor that points behind an id, a number or a name."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def decode_id(cursor: str | None) -> UUID | None:
    """Return the id a cursor points behind. Raises RequestValidationError."""
    if cursor is None:
        return None
    try:
        return UUID(_text(cursor))
    except ValueError:
        raise _invalid() from None


def decode_seq(cursor: str | None) -> int:
    """Return the number a cursor points behind; 0 for none. Raises RequestValidationError."""
    if cursor is None:
        return 0
    text = _text(cursor)
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_SEQ:
        raise _invalid()
    return int(text)


def decode_name(cursor: str | None) -> str | None:
    """Return the name a cursor points behind. Raises RequestValidationError."""
    if cursor is None:
        return None
    text = _text(cursor)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise _invalid()
    return text


def decode_path(cursor: str | None) -> str:
    """Return the path a cursor points behind; none is before all. Raises RequestValidationError."""
    if cursor is None:
        return ""
    try:
        return file_path(_text(cursor))
    except ValueError:
        raise _invalid() from None


def in_range(moment: datetime | None) -> datetime | None:
    """Return a moment of a filter within the years that PostgreSQL and every zone can express."""
    return None if moment is None else min(max(moment, FIRST), LAST)


def _text(cursor: str) -> str:
    try:
        return base64.b64decode(
            cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True
        ).decode()
    except (binascii.Error, UnicodeError, ValueError):
        raise _invalid() from None


def invalid(parameter: str, message: str) -> RequestValidationError:
    """Return the refusal of a query parameter."""
    return RequestValidationError(
        [{"type": "value_error", "loc": ("query", parameter), "msg": message, "input": None}]
    )


def _invalid() -> RequestValidationError:
    return invalid("cursor", "the cursor did not come from this API")
