"""Names of files: one rule for those that clients give and those that programs make.

Every name that a system can give a file is kept, byte for byte, and no two names are one file. No
name is ever a path or a key of ours: what is stored is found by a row in PostgreSQL. So all that is
refused is what leads elsewhere wherever the file is put back, and what no screen or log may get.
"""

import re

MAX_BYTES = 1024
MAX_PARTS = 33
"""As deep as a program's files are collected."""
MAX_PART_BYTES = 255
"""The longest name of Linux (NAME_MAX, limits.h)."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


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
        (any(part in {".", ".."} for part in parts), "must not have `.` or `..` for a part"),
        (
            any(len(part.encode()) > MAX_PART_BYTES for part in parts),
            f"must not have parts above {MAX_PART_BYTES} bytes",
        ),
    )
    return next((reason for wrong, reason in checks if wrong), None)
