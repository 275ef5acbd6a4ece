"""Text of unknown origin, made fit for a log, a terminal and a database (which keeps no NUL)."""

from collections.abc import Callable


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
    """Return the text with something harmless instead of each character that is not printable."""
    return "".join(c if c.isprintable() else instead(c) for c in text)
