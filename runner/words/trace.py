"""A place in a distributed trace, as W3C Trace Context writes it (`traceparent`).

https://www.w3.org/TR/trace-context/: version, trace id, span id and flags, in hexadecimal digits.
"""

import re
import secrets
from dataclasses import dataclass, replace

_PARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)
_INVALID_VERSION = "ff"
_VERSION = "00"
_SAMPLED = 1
LONGEST = 512
"""Longest text that is looked at. Version 00 takes 55 characters; later ones may add to them."""


@dataclass(frozen=True, slots=True)
class TracePlace:
    """One span's place in its trace. `sampled` says whether spans of it are exported."""

    trace_id: str
    span_id: str
    sampled: bool

    @classmethod
    def read(cls, text: str) -> "TracePlace | None":
        """Return what a `traceparent` says; None if it is not valid."""
        found = _PARENT.fullmatch(text) if len(text) <= LONGEST else None
        if found is None or found["version"] == _INVALID_VERSION:
            return None
        if found["version"] == _VERSION and found["more"] is not None:
            return None
        if not (found["trace"].strip("0") and found["span"].strip("0")):
            return None
        return cls(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))

    @classmethod
    def new(cls, *, sampled: bool) -> "TracePlace":
        """Return the place of the first span of a new trace."""
        return cls(_random(16), _random(8), sampled)

    def child(self) -> "TracePlace":
        """Return the place of a new span in the same trace."""
        return replace(self, span_id=_random(8))

    def decided(self, *, sampled: bool) -> "TracePlace":
        """Return the same place in a trace that is exported or not."""
        return replace(self, sampled=sampled)

    @property
    def text(self) -> str:
        """The place as a `traceparent`."""
        return f"{_VERSION}-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}"


def _random(size: int) -> str:
    """Return a random id that is not all zeros, which would be invalid."""
    while not (text := secrets.token_hex(size)).strip("0"):
        continue
    return text
