"""Makes text of unknown origin safe for a log, a terminal and a database (which keeps no NUL)."""

import codecs
import re
import unicodedata
from collections.abc import Callable

MOST_TOLD = 1000
_LONG_WORD = re.compile(r'([^\s"]{255})[^\s"]+?(?=[;:,]?(?:[\s"]|$))')
"""Longer than any host name."""
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"


def replaced(_: str) -> str:
    """Return the replacement character."""
    return "\N{REPLACEMENT CHARACTER}"


def escaped(character: str) -> str:
    """Return the character as Python's `repr` escapes it."""
    return repr(character)[1:-1]


def numbered(character: str) -> str:
    """Return the character by its number, as JSON escapes it."""
    return f"\\u{ord(character):04x}"


def printable(text: str, instead: Callable[[str], str] = replaced) -> str:
    """Return the text with something harmless in place of each character that is not printable.

    Spaces of every kind count as printable, and so do the two joiners that Persian and Indic words
    need. Characters that change the direction of text do not: they make names look like others.
    """
    if text.isprintable():
        return text
    return "".join(c if _is_printable(c) else instead(c) for c in text)


def counted(count: int, name: str) -> str:
    """Return a number of things: 1 sandbox, 2 sandboxes, 3,000 bytes."""
    plural = f"{name}es" if name.endswith("x") else f"{name}s"
    return f"{count:,} {name if count == 1 else plural}"


def shortened(line: str) -> str:
    """Return a line for people: at most `MOST_TOLD` characters, with long words cut.

    Mask secrets before you call this: half a secret would no longer be found.
    """
    return _LONG_WORD.sub(r"\1", line)[:MOST_TOLD]


def _is_printable(character: str) -> bool:
    return (
        character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"
    )


_LONGEST = 4
"""Bytes of the longest character (RFC 3629)."""
_CONTINUATION = range(0x80, 0xC0)
"""The bytes of a character after its first one."""


def is_utf8(data: bytes) -> bool:
    """Return whether all of the bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def whole_characters(data: bytes) -> int:
    """Return how many bytes remain without a character at the end that is not complete yet."""
    tail = data[-_LONGEST:]
    # The last bytes suffice for the decoder: in UTF-8, the start of a character is always visible.
    return len(data) - len(tail) + codecs.utf_8_decode(tail, "replace", False)[1]  # noqa: FBT003 - the standard library's signature


def character_start(data: bytes, at: int) -> int:
    """Return `at`, or the place of the character's first byte if `at` is inside a character."""
    start = at
    while _within(data, start) and at - start < _LONGEST - 1:
        start -= 1
    return at if _within(data, start) else start


def character_end(data: bytes, at: int) -> int:
    """Return `at`, or the place after the character's last byte if `at` is inside a character."""
    end = at
    while _within(data, end) and end - at < _LONGEST - 1:
        end += 1
    return at if _within(data, end) else end


def _within(data: bytes, at: int) -> bool:
    return at < len(data) and data[at] in _CONTINUATION
