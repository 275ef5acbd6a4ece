"""Reports of a context of Python to the node, in lines of JSON."""

from __future__ import annotations

import binascii
import fcntl
import json
import math
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTROL_OUT = 4
ABOVE = 64
PIECE = 16 * 1024
MOST_INLINE = 192 * 1024
"""A value that is no text is reported up to this length as JSON, as it cannot be cut."""


class Reports:
    """Tells what happens, in lines that begin with the token."""

    def __init__(self, token: str) -> None:
        self._token = token
        # No child process has this descriptor.
        self._fd = fcntl.fcntl(CONTROL_OUT, fcntl.F_DUPFD_CLOEXEC, ABOVE)
        os.close(CONTROL_OUT)
        self._lines = bytearray()

    def say(self, say: str, **fields: object) -> None:
        """Report something."""
        self._lines += f"{self._token} {json.dumps({'say': say, **fields})}\n".encode()
        if len(self._lines) > PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what was reported; before that, what was printed."""
        for output in (sys.stdout, sys.stderr):
            try:
                output.flush()
            except (OSError, ValueError, AttributeError):
                # The code has closed it or put something else in its place.
                continue
        while self._lines:
            size = os.write(self._fd, self._lines)
            del self._lines[:size]

    def result(self, values: dict[str, Any], *, main: bool) -> None:
        """Report a result, by kind."""
        for mime, value in values.items():
            if isinstance(value, bytes):
                text, is_json = binascii.b2a_base64(value, newline=False).decode(), False
            elif isinstance(value, str):
                text, is_json = value, False
            else:
                text, is_json = dumped(value), True
                if len(text) > MOST_INLINE:
                    continue
            for at in range(0, max(len(text), 1), PIECE):
                self.say("value", mime=mime, json=is_json, text=text[at : at + PIECE])
        self.say("result", main=main)
        self.flush()


def dumped(value: object) -> str:
    """Return a value as JSON; what JSON does not know becomes text."""
    try:
        return json.dumps(value, allow_nan=False, default=str)
    except (ValueError, TypeError):
        return json.dumps(plain(value), default=str)


def plain(value: object) -> object:
    """Return the same with null for numbers that JSON does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
