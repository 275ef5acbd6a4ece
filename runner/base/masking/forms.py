"""Forms of a value that programs print by accident."""

import base64
import html
import json
import re
from collections.abc import Iterator
from itertools import compress
from urllib.parse import quote, quote_plus

MIN_PIECE = 8
"""Shortest part of a value that is masked by itself; shorter text means too little."""
_BYTES_PER_LINE = 32
"""Bytes of a value for each line that is masked by itself; the longest lines are. This limits their
number, and no usual key, certificate or settings file has more lines."""
_HEXADECIMAL = re.compile("%[0-9A-F]{2}")
_SHELL_SPECIAL = re.compile(r"([^\w@%+=:,./-])")
_QUOTES_IN_HTML = (
    ("&quot;", "&#x27;"),  # Python, React
    ("&#34;", "&#39;"),  # Jinja, Go
    ("&quot;", "&#039;"),  # PHP
    ("&quot;", "&#39;"),
    ("&quot;", "&apos;"),  # XML
    ("&quot;", "'"),
)

_BREAKS = b" \t\r\n\v\f\\:"
"""Characters that encoders, and those who print their output, put into base64 and hex."""
_PLAIN = bytes.maketrans(b"-_", b"+/")
_IS_KEPT = bytes(each not in _BREAKS for each in range(256))


def written(value: str) -> set[bytes]:
    """Return what represents the value in text, and what represents its longer lines."""
    found = set(_escaped(value))
    lines = sorted(
        {line.strip() for line in value.splitlines()}, key=lambda each: (-len(each), each)
    )
    for line in lines[: 1 + len(value) // _BYTES_PER_LINE]:
        if len(line) >= MIN_PIECE:
            found.update(_escaped(line))
    return {form.encode("utf-8", "replace") for form in found} - {b""}


def _escaped(value: str) -> Iterator[str]:
    yield value
    if value.isalnum() and value.isascii():
        return
    # Browsers' encodeURIComponent and Python's quote leave different characters unchanged.
    for percent in (
        *(quote(value, safe=safe, errors="replace") for safe in ("", "/", "!'()*~")),
        quote_plus(value, errors="replace"),
    ):
        yield percent
        yield _HEXADECIMAL.sub(lambda found: found[0].lower(), percent)
    for string in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield string
        yield string.replace("/", "\\/")  # PHP
    yield repr(value)[1:-1]
    yield ascii(value)[1:-1]
    yield repr(value.encode("utf-8", "replace"))[2:-1]
    yield repr('"' + value)[2:-1]  # in single quotes, as in $'…' of a shell's trace
    yield value.replace("'", "'\\''")  # the trace of `set -x`
    yield value.replace("'", "'\"'\"'")  # Python's shlex
    yield _SHELL_SPECIAL.sub(r"\\\1", value)  # printf %q
    text = html.escape(value, quote=False)
    yield text
    for double, single in _QUOTES_IN_HTML:
        yield text.replace('"', double).replace("'", single)


def encoded(value: str) -> set[bytes]:
    """Return what represents the value in the compact form of a text: its base64 and hex."""
    raw = value.encode("utf-8", "replace")
    whole = base64.b64encode(raw)
    found = {whole, whole.rstrip(b"="), raw.hex().encode(), raw.hex().upper().encode()}
    # Inside longer data, the value is at one of three offsets, and its outer bits mix with others.
    for offset, mixed in ((0, 0), (1, 2), (2, 3)):
        inner = base64.b64encode(bytes(offset) + raw).rstrip(b"=")
        found.add(inner[mixed : -1 if (offset + len(raw)) % 3 else None])
    return {form for form in found if len(form) >= MIN_PIECE}


def compact(text: bytes) -> tuple[bytes, bytes]:
    r"""Return the text as if base64 and hex had no line breaks in it, and one alphabet.

    The second value says for each byte of the text, by one byte, whether the first one holds it.
    Breaks are white space, colons, backslashes and, as in strings of JSON, `\n` and `\r`.
    """
    joined = text.replace(b"\\n", b"  ").replace(b"\\r", b"  ")
    return joined.translate(_PLAIN, _BREAKS), joined.translate(_IS_KEPT)


def positions(kept: bytes) -> list[int]:
    """Return where each byte of a compact text is in the original text."""
    return list(compress(range(len(kept)), kept))
