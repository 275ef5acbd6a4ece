"""Secrets' values, starred out of bytes that are to be stored.

Looked for are the value and what programs print of it by accident: base64, percent-encoding, a
string of JSON or Python, single lines of a value that has several. It is no wall against a
program that means to give its secrets away: any other encoding passes. Stars take as much room as
what they hide, so that sizes stay true.
"""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

MIN_PIECE = 8
"""A part of a value is looked for by itself from this length on; less means too little."""
MIN_CUT = 4
"""Of a value that the end of the output cuts off, as many bytes are starred, too."""
_BASE64_LINES = (64, 76)  # RFC 7468 and RFC 2045: where encoders break lines
_HEXADECIMAL = re.compile("%[0-9A-F]{2}")


class Masker:
    """What to star out of everything that one run leaves."""

    def __init__(self, values: Iterable[str]) -> None:
        found = {form.encode("utf-8", "replace") for value in values for form in _forms(value)}
        self._patterns = tuple(sorted(found - {b""}))

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def text(self, text: str) -> str:
        """Return the text with each secret starred."""
        return self.whole(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def whole(self, data: bytes) -> bytes:
        """Return the bytes, which are all there are, with each secret starred."""
        hidden, _ = _hidden(data, self._patterns)
        return hidden

    def stream(self) -> "Stream":
        """Return a mask for bytes that come in pieces."""
        return Stream(self._patterns)


class Stream:
    """Masks bytes that come in pieces, a secret that lies across several of them included.

    Held back is only what may be the beginning of a secret: other output is not delayed.
    """

    def __init__(self, patterns: tuple[bytes, ...]) -> None:
        self._patterns = patterns
        self._held = b""
        self._starred = 0
        """How much of the beginning of `_held` belongs to a secret that was found already."""

    def feed(self, data: bytes) -> bytes:
        """Return what is certain so far."""
        if not self._patterns:
            return data
        raw = self._held + data
        held = max((_begun(raw, pattern) for pattern in self._patterns), default=0)
        cut = len(raw) - held
        hidden, spans = _hidden(raw, self._patterns, self._starred)
        self._held = raw[cut:]
        self._starred = max((end - cut for start, end in spans if start < cut < end), default=0)
        return hidden[:cut]

    def rest(self) -> bytes:
        """Return what was held back; stars for a secret that was cut off."""
        raw, self._held = self._held, b""
        return raw if len(raw) < MIN_CUT and not self._starred else b"*" * len(raw)


def _hidden(
    raw: bytes, patterns: Iterable[bytes], starred: int = 0
) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the bytes with stars, and where they are; the first `starred` ones are anyway."""
    spans = [(0, starred)] if starred else []
    for pattern in patterns:
        at = raw.find(pattern)
        while at >= 0:
            spans.append((at, at + len(pattern)))
            at = raw.find(pattern, at + len(pattern))
    hidden = bytearray(raw)
    for start, end in spans:
        hidden[start:end] = b"*" * (end - start)
    return bytes(hidden), spans


def _begun(raw: bytes, pattern: bytes) -> int:
    """Return the length of the longest end of `raw` that is a beginning of the pattern."""
    tail = raw[-(len(pattern) - 1) :] if len(pattern) > 1 else b""
    head = pattern[:MIN_CUT]
    at = tail.find(head)
    while at >= 0:
        if pattern.startswith(tail[at:]):
            return len(tail) - at
        at = tail.find(head, at + 1)
    short = range(min(len(tail), MIN_CUT - 1), 0, -1)
    return next((length for length in short if tail.endswith(pattern[:length])), 0)


def _forms(value: str) -> Iterator[str]:
    yield from _escaped(value)
    lines = [line.strip() for line in value.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= MIN_PIECE:
                yield from _escaped(line)
    yield from _base64(value.encode("utf-8", "replace"))


def _escaped(value: str) -> Iterator[str]:
    yield value
    # What browsers' encodeURIComponent and Python's quote, by default, let stand differs.
    for percent in (
        *(quote(value, safe=safe, errors="replace") for safe in ("", "/", "!'()*~")),
        quote_plus(value, errors="replace"),
    ):
        yield percent
        yield _HEXADECIMAL.sub(lambda found: found[0].lower(), percent)
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]


def _base64(raw: bytes) -> Iterator[str]:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        whole = encode(raw).decode()
        yield whole
        for width in _BASE64_LINES:
            lines = [whole[at : at + width] for at in range(0, len(whole), width)]
            yield from (line for line in lines[:-1] if len(lines) > 1)
            yield from (line for line in lines[1:] if len(line) >= MIN_PIECE)
        # Inside something longer it stands at one of three offsets, its outer bits mixed.
        for offset, mixed in ((0, 0), (1, 2), (2, 3)):
            inner = encode(bytes(offset) + raw).decode().rstrip("=")
            inside = inner[mixed : -1 if (offset + len(raw)) % 3 else None]
            if len(inside) >= MIN_PIECE:
                yield inside
