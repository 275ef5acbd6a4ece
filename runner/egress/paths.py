"""Whether a request's path lies below a prefix, however the server may read that path.

The proxy sends the path byte for byte as it was checked, so the only question is what the server
makes of it. Servers differ: they decode percent-encoding never, once or twice, accept overlong
UTF-8, drop path parameters, take backslashes for slashes, or fold characters that look like a dot.
A prefix has no percent sign, so all of them read it alike. A path that begins with the prefix can
leave it in one way only: by a segment that some server reads as `..`. The path is therefore read
as each of them would, and refused if one reading has such a segment, or if its bytes have no
single meaning to begin with.
"""

import re
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

_NOT_AN_OCTET = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SEPARATORS = re.compile(r"[/\\]")
# Windows drops dots and spaces at the end of a name, and some frameworks read `+` as a space.
_DOTS = re.compile(r"[ +]*\.[ .+]*")
# Dots, slashes and backslashes of the "best fit" tables by which Windows makes ASCII of Unicode,
# as far as compatibility decomposition (UAX #15) does not make the same of them.
_BEST_FIT = str.maketrans(
    {"\u2044": "/", "\u2215": "/", "\u29f8": "/", "\u2216": "\\", "\u00a5": "\\", "\u20a9": "\\",
     "\u00b7": ".", "\u2219": ".", "\u22c5": ".", "\u30fb": ".", "\uff65": "."}
)  # fmt: skip


def is_ambiguous(path: str) -> bool:
    """Return whether some server may read this path as one that leads elsewhere."""
    # `%u002e` is a dot to IIS, and nothing to RFC 3986.
    if _NOT_AN_OCTET.search(path):
        return True
    try:
        # Strict: refuses overlong forms (CVE-2000-0884, CVE-2008-2938), surrogates, other charsets.
        decoded = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        return True
    # A percent sign that is left would be decoded by whoever decodes twice (CVE-2021-42013).
    if "%" in decoded or any(unicodedata.category(each) == "Cc" for each in decoded):
        return True
    return any(_climbs(reading) for reading in (path, *_readings(decoded)))


def _readings(decoded: str) -> Iterator[str]:
    yield decoded
    # Characters without a width are dropped by some normalisations.
    shown = "".join(each for each in decoded if unicodedata.category(each) != "Cf")
    yield unicodedata.normalize("NFKC", shown).translate(_BEST_FIT)
    # The low byte alone, where a code unit is squeezed into an octet (Node's CVE-2018-12116).
    yield "".join(chr(ord(each) & 0xFF) for each in decoded)


def _climbs(reading: str) -> bool:
    """Whether a segment, without its parameters, is made of dots and what may be dropped."""
    segments = _SEPARATORS.split(reading)
    return any(_DOTS.fullmatch(each.partition(";")[0]) for each in segments)
