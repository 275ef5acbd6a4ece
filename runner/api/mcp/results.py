"""Results for a model to read: short, and honest about what was left out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from runner.words.text import character_end, printable, whole_characters

HALF = 8 * 1024
MAX_TEXT = 2 * HALF
"""Bytes of one output that a model gets: about 4000 tokens, half of them from its end."""
MAX_PICTURES = 576 * 1024
"""Bytes of all pictures in one result: as base64 in one event, they stay below the MiB that the
official client reads of an event."""

SIGNATURES: Mapping[bytes, str] = MappingProxyType(
    {
        b"\x89PNG\r\n\x1a\n": "image/png",
        b"\xff\xd8\xff": "image/jpeg",
        b"GIF87a": "image/gif",
        b"GIF89a": "image/gif",
    }
)
"""How files of pictures that models can see begin. WebP is told apart in `picture_type`."""
LINE = 200
"""Bytes of a line of output that a progress notification holds."""
HEAD = 12
"""Bytes that are enough to recognize a picture."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that a model sees."""

    data: bytes = field(repr=False)
    media_type: str


Part = str | Picture


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The answer of a tool. `failed` says that the tool failed, not the program that it ran."""

    parts: tuple[Part, ...]
    failed: bool = False


def of_lines(*lines: str) -> ToolResult:
    """Return a result of these lines."""
    return ToolResult(("\n".join(lines),))


def picture_type(head: bytes) -> str | None:
    """Return the media type of a picture by how its bytes begin; None for any other file.

    A name proves nothing: a program gives its files whatever names it likes.
    """
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in SIGNATURES.items() if head.startswith(start)), None)


def too_large(media_type: str, size: int) -> str:
    """Return what a model is told in place of a picture that is too large."""
    return (
        f"[{media_type} of {size:,} bytes left out: a result holds {MAX_PICTURES:,} bytes of "
        "pictures; make it smaller, for example with fewer dots per inch, and ask again]"
    )


class Excerpt:
    """The beginning and the end of an output, however long it is."""

    def __init__(self, half: int = HALF) -> None:
        self._half = half
        self._head = bytearray()
        self._tail = bytearray()
        self._lost = 0
        self.total = 0
        """Bytes of the whole output."""

    def take(self, data: bytes) -> None:
        """Take the next bytes of the output."""
        self.total += len(data)
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:] if room > 0 else data
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def lose(self, count: int) -> None:
        """Count bytes that the sandbox no longer had when they were to be read."""
        self.total += count
        self._lost += count

    @property
    def last_line(self) -> str:
        """The last line that is not empty, for a progress notification."""
        said = bytes((self._tail or self._head)[-LINE:]).decode(errors="replace").strip()
        return printable(said.rpartition("\n")[2])

    def __str__(self) -> str:
        tail = bytes(self._tail[-self._half :])
        left_out = self.total - len(self._head) - len(tail)
        if left_out <= 0:
            return (bytes(self._head) + tail).decode(errors="replace")
        head = bytes(self._head[: whole_characters(bytes(self._head))])
        tail = tail[character_end(tail, 0) :]
        left_out = self.total - len(head) - len(tail)
        return (
            f"{head.decode(errors='replace')}\n"
            f"[… {left_out:,} of {self.total:,} bytes left out here …]\n"
            f"{tail.decode(errors='replace')}"
        )


def outputs(stdout: Excerpt, stderr: Excerpt) -> list[str]:
    """Return both outputs as lines, each under its name; what is empty is left out."""
    return [
        f"{name}:\n{str(each).rstrip()}"
        for name, each in (("stdout", stdout), ("stderr", stderr))
        if each.total
    ]
