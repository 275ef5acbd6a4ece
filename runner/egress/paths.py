"""Comparison of a request's path with a prefix, however the server may read that path.

The proxy sends exactly the bytes of the path that it checked, so the only question is how the
server reads them. Servers differ: they decode percent-encoding never, once or twice, accept
overlong UTF-8, drop path parameters, take backslashes for slashes, or fold characters that look
like a dot. A prefix has no percent sign, so all servers read it alike. A path that begins with the
prefix can leave it in only one way: by a segment that some server reads as `..`. So the path is
read as each of these servers would, and refused if one reading has such a segment, or if its bytes
have no single meaning to begin with.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

_NOT_AN_OCTET = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = re.compile(r"[/\\]")
# Windows drops dots and spaces at the end of a name, and some frameworks read `+` as a space.
_DOTS = re.compile(r"[ +]*\.[ .+]*")
# Dots, slashes and backslashes in the "best fit" tables by which Windows turns Unicode into ASCII,
# except those that compatibility decomposition (UAX #15) turns into the same characters.
_BEST_FIT = str.maketrans(
    {"\u2044": "/", "\u2215": "/", "\u29f8": "/", "\u2216": "\\", "\u00a5": "\\", "\u20a9": "\\",
     "\u00b7": ".", "\u2219": ".", "\u22c5": ".", "\u30fb": ".", "\uff65": "."}
)  # fmt: skip


def is_ambiguous(path: str) -> bool:
    """Return whether some server may read this path as one that leads elsewhere."""
    # IIS reads `%u002e` as a dot; RFC 3986 gives it no meaning.
    if _NOT_AN_OCTET.search(path):
        return True
    try:
        # Strict decoding refuses overlong forms (CVE-2000-0884, CVE-2008-2938), surrogates, and
        # other charsets.
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return True
    # A server that decodes twice would decode a percent sign that is left (CVE-2021-42013).
    if "%" in decoded or any(unicodedata.category(each) == "Cc" for each in decoded):
        return True
    return any(_climbs(reading) for reading in (path, *_readings(decoded)))


def _readings(decoded: str) -> Iterator[str]:
    yield decoded
    # Some normalisations drop characters without a width.
    shown = "".join(each for each in decoded if unicodedata.category(each) != "Cf")
    yield unicodedata.normalize("NFKC", shown).translate(_BEST_FIT)
    # A server that squeezes a code unit into an octet keeps its low byte (CVE-2018-12116 in Node).
    yield "".join(chr(ord(each) & 0xFF) for each in decoded)


def _climbs(reading: str) -> bool:
    """Return whether a segment, without its parameters, has only dots and droppable characters."""
    segments = _SEPARATORS.split(reading)
    return any(_DOTS.fullmatch(each.partition(";")[0]) for each in segments)
