"""Headers about stored bytes: entity tags, ranges and digests. It only reads and writes them.

RFC 9110 (8.8.3 ETag, 13 conditional requests, 14 ranges), RFC 9530 (digest fields), RFC 3230 (the
older `Digest`, which clients still send).
"""

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError

from runner.store.files import Condition

MAX_HEADER = 1024
_TAG = re.compile(r'"([\x21\x23-\x7e]*)"')
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_DIGESTS = {
    "content-digest": re.compile(r"(?:^|,)\s*sha-256=:([^:,]*):\s*(?=,|;|$)", re.ASCII),
    "repr-digest": re.compile(r"(?:^|,)\s*sha-256=:([^:,]*):\s*(?=,|;|$)", re.ASCII),
    "digest": re.compile(r"(?:^|,)\s*sha-256=([^:,]*)\s*(?=,|$)", re.ASCII | re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` up to but not including `end`."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """A range begins after the end."""


def etag(sha256: str) -> str:
    """Return the strong entity tag of a content."""
    return f'"{sha256}"'


def digest(sha256: str) -> str:
    """Return the value of a digest field of RFC 9530."""
    return f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"


def attachment(path: str) -> str:
    """Return a Content-Disposition that no file name can break out of (RFC 6266, RFC 8187)."""
    return f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2], safe='')}"


def condition(if_match: str | None, if_none_match: str | None) -> Condition:
    """Return what a write requires to be there. Raises RequestValidationError."""
    if if_none_match is not None and if_none_match.strip() != "*":
        raise invalid("if-none-match", "a write may only send `*`: write only if nothing is there")
    return Condition(
        only_new=if_none_match is not None,
        contents=None if if_match is None else tags(if_match, "if-match"),
    )


def tags(header: str, name: str) -> frozenset[str]:
    """Return a header's strong tags; empty for `*` (any). Raises RequestValidationError."""
    if header.strip() == "*":
        return frozenset()
    listed = [part.strip() for part in header.split(",")]
    if not all(_TAG.fullmatch(part.removeprefix("W/")) for part in listed):
        raise invalid(name, "must be `*` or entity tags in quotes")
    # RFC 9110, 13.1.1: a weak tag matches nothing strongly, and so allows no write.
    return frozenset(part.strip('"') for part in listed if not part.startswith("W/")) or _NOTHING


_NOTHING = frozenset({""})


def span(header: str | None, size: int) -> Span | None:
    """Return the requested range, within the size; None for the whole.

    Several ranges and other units are answered with the whole (RFC 9110, 14.2). Raises
    Unsatisfiable.
    """
    asked = None if header is None else _RANGE.fullmatch(header.strip())
    if asked is None or asked.group(1) == asked.group(2) == "":
        return None
    first, last = asked.groups()
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < start:
            return None
    if start >= size:
        raise Unsatisfiable
    return Span(start, end)


def expected(name: str, header: str | None) -> bytes | None:
    """Return the SHA-256 sum in a digest field, if it has one. Raises RequestValidationError."""
    found = None if header is None else _DIGESTS[name].search(header)
    if found is None:
        return None
    try:
        promised = base64.b64decode(found.group(1), validate=True)
    except (binascii.Error, ValueError):
        promised = b""
    if len(promised) != 32:  # noqa: PLR2004 - SHA-256
        raise invalid(name, "its sha-256 is not 32 bytes of base64")
    return promised


def invalid(header: str, message: str) -> RequestValidationError:
    """Return the refusal of a header's value."""
    return RequestValidationError(
        [{"type": "value_error", "loc": ("header", header), "msg": message, "input": None}]
    )
