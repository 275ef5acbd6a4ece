"""Parameters of listings: cursors, which are opaque to clients but checked, and times."""

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
    """Refuse plain numbers, which pydantic would take as seconds since 1970."""
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
    """Return the first `limit` of `limit` + 1 rows, and a cursor if there are more."""
    shown = found[:limit]
    return shown, encode(place(shown[-1])) if len(found) > limit else None


def encode(value: UUID | int | str) -> str:
    """Return a cursor that points after an id, a number or a name."""
    return base64.urlsafe_b64encode(str(value).encode()).decode().rstrip("=")


def decode_id(cursor: str | None) -> UUID | None:
    """Return the id that a cursor points after. Raises RequestValidationError."""
    if cursor is None:
        return None
    try:
        return UUID(_text(cursor))
    except ValueError:
        raise _invalid() from None


def decode_seq(cursor: str | None) -> int:
    """Return the number that a cursor points after, or 0. Raises RequestValidationError."""
    if cursor is None:
        return 0
    text = _text(cursor)
    if not (text.isascii() and text.isdecimal()) or int(text) > MAX_SEQ:
        raise _invalid()
    return int(text)


def decode_name(cursor: str | None) -> str | None:
    """Return the name that a cursor points after. Raises RequestValidationError."""
    if cursor is None:
        return None
    text = _text(cursor)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", text):
        raise _invalid()
    return text


def decode_path(cursor: str | None) -> str:
    """Return the path that a cursor points after, or "". Raises RequestValidationError."""
    if cursor is None:
        return ""
    try:
        return file_path(_text(cursor))
    except ValueError:
        raise _invalid() from None


def in_range(moment: datetime | None) -> datetime | None:
    """Return a time, moved into the years that PostgreSQL and every time zone can express."""
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
