"""Names that clients give to files: one rule for all, whatever stores them.

A name is refused rather than repaired: what is stored is what was named, and no two names are
one file. Whatever any layer below might read as another path is refused, in every spelling known:
dots, separators, their percent-encodings, and characters that only look like them.
"""

import re
import unicodedata

MAX_BYTES = 512
MAX_PARTS = 16
MAX_PART_BYTES = 200

_LOOK_ALIKES = frozenset(
    # Unicode UTS #39 (confusables.txt): of the solidus, the reverse solidus and the full stop.
    # Letters and digits of living scripts that are on that list, too, are left out of this one.
    "\u1735\u2041\u2044\u2215\u2571\u27cb\u29f8\u2cc6\u31d3\u3033"
    "\u2216\u27cd\u29f5\u29f9\u2572"
    "\u0701\u0702\u2024\u2025\u2026\ua4f8\ua4fa\ua60e\U00010a50\U0001d16d"
    # What a decoder puts for bytes that are no UTF-8, such as overlong forms of the above.
    "\ufffd"
)
_ESCAPE = re.compile(r"%(?:u[0-9A-Fa-f]{4}|[0-9A-Fa-f]{2})")
_DRIVE = re.compile(r"[A-Za-z]:")


def file_path(path: str) -> str:
    """Return the path if it is plainly relative and downward. Raises ValueError saying why not."""
    if (reason := _fault(path)) is not None:
        raise ValueError(reason)
    return path


def file_prefix(prefix: str) -> str:
    """Return what paths may begin with: nothing, a path, or one with a slash at its end."""
    if prefix:
        file_path(prefix.removesuffix("/"))
    return prefix


def _fault(path: str) -> str | None:
    """Return what is wrong with a path; None if nothing is."""
    parts = path.split("/")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode"
    checks = (
        (not path, "must not be empty"),
        (size > MAX_BYTES, f"must not exceed {MAX_BYTES} bytes"),
        (len(parts) > MAX_PARTS, f"must not have more than {MAX_PARTS} parts"),
        ("\\" in path, "must not hold a backslash"),
        (_ESCAPE.search(path), "must not hold percent-escapes once it is decoded"),
        (_DRIVE.match(path), "must not begin with a drive letter"),
        (not path.isprintable(), "must not hold control, format or unassigned characters"),
        (not _LOOK_ALIKES.isdisjoint(path), "must not hold look-alikes of `/`, `\\` and `.`"),
        (
            unicodedata.normalize("NFKC", path) != path,
            "must be in Unicode's normal form NFKC: another spelling would be another name",
        ),
        (
            not all(parts),
            "must be relative, without empty parts or a slash at its end",
        ),
        (any(part in {".", ".."} for part in parts), "must not have `.` or `..` for a part"),
        (
            any(part != part.strip() or part.endswith(".") for part in parts),
            "must not have parts with a space at either end or a dot at their end",
        ),
        (
            any(len(part.encode()) > MAX_PART_BYTES for part in parts),
            f"must not have parts above {MAX_PART_BYTES} bytes",
        ),
    )
    return next((reason for wrong, reason in checks if wrong), None)
