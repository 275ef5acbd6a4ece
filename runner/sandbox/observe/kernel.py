"""Files of the kernel in `/proc` and `/sys`, read with no more than it takes.

Several dozen are read for each run that follows another in its sandbox; text layers and path
objects around each cost five times the reading.
"""

import os

PIECE = 64 * 1024


def read(path: str) -> str:
    """Return what the file says now. Raises OSError."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        said = b""
        while piece := os.read(file, PIECE):
            said += piece
        return said.decode()
    finally:
        os.close(file)


def told(path: str) -> str | None:
    """Return what the file says, without the line's end; None where this kernel has none."""
    try:
        return read(path).strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    """Return the number that the file says; None where there is no file, or no number in it."""
    text = told(path) or ""
    return int(text) if text.isdigit() else None


def link(path: str) -> str:
    """Return what the link says. Raises OSError."""
    return os.readlink(path)


def entries(folder: str) -> list[str]:
    """Return the names in the folder. Raises OSError."""
    return os.listdir(folder)
