"""Names of files: one rule, whether a client or a program chose the name.

Every name that a file can have on Linux is kept byte for byte, and different names mean different
files. No name is ever used as a path or a key of ours: a row in PostgreSQL says where the content
is. So the rule refuses only what could lead out of a folder when the file is written somewhere, and
what must not reach a screen or a log.
"""

import re

MAX_BYTES = 1024
MAX_PARTS = 33
"""The greatest depth at which a program's files are collected."""
MAX_PART_BYTES = 255
"""The longest name of Linux (NAME_MAX, limits.h)."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def file_path(path: str) -> str:
    """Return the path if it is relative and leads only downward; else raise ValueError with why."""
    if (reason := _fault(path)) is not None:
        raise ValueError(reason)
    return path


def file_prefix(prefix: str) -> str:
    """Return the prefix if paths may begin with it: empty, a path, or a path and a slash."""
    if prefix:
        file_path(prefix.removesuffix("/"))
    return prefix


def _fault(path: str) -> str | None:
    """Return what is wrong with a path, or None."""
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode"
    parts = path.split("/")
    checks = (
        (not path, "must not be empty"),
        (size > MAX_BYTES, f"must not exceed {MAX_BYTES} bytes"),
        (len(parts) > MAX_PARTS, f"must not have more than {MAX_PARTS} parts"),
        (_CONTROL.search(path), "must not hold control characters"),
        (not all(parts), "must be relative, without empty parts or a slash at its end"),
        (any(part in {".", ".."} for part in parts), "must not have `.` or `..` as a part"),
        (
            any(len(part.encode()) > MAX_PART_BYTES for part in parts),
            f"must not have parts above {MAX_PART_BYTES} bytes",
        ),
    )
    return next((reason for wrong, reason in checks if wrong), None)
