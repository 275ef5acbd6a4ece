"""Bodies of several parts (RFC 2046 5.1, RFC 7578), read as they come, with bounds on everything.

Nothing of a part is gathered: whoever reads one gets its bytes piece by piece.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

MAX_HEAD = 16 * 1024
"""Bytes before a part's own: its headers, in which a name may have 4 KiB."""
MAX_PARTS = 100
_BOUNDARY = re.compile(
    r";\s*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70}))(?=[\s;]|\Z)", re.IGNORECASE
)
_PARAMETER = re.compile(rb';\s*([a-zA-Z*]+)=(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*))')
_ESCAPED = re.compile(rb"\\(.)")
_QUOTED = {b"%22": b'"', b"%0D": b"\r", b"%0A": b"\n"}
"""How browsers write these characters in a name (HTML, "multipart form data")."""


class Malformed(ValueError):
    """A body is not what its head says, or is above a bound."""


@dataclass(frozen=True, slots=True)
class FormPart:
    """One part: its field, its file's name if it has one, and its bytes, to be read once."""

    name: str
    filename: str | None
    chunks: AsyncIterator[bytes] = field(repr=False)


def boundary(content_type: str) -> bytes | None:
    """Return what separates the parts; None if the body has no parts. Raises Malformed."""
    kind, _, _ = content_type.partition(";")
    if not kind.strip().lower().startswith("multipart/"):
        return None
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise Malformed("a multipart body must name its boundary, of at most 70 characters")
    return (found[1] or found[2]).encode("latin-1")


class Multipart:
    """The parts of one body."""

    def __init__(self, mark: bytes, body: AsyncIterator[bytes]) -> None:
        self._mark = b"\r\n--" + mark
        self._body = body
        # The first boundary may stand at the very beginning.
        self._held = bytearray(b"\r\n")

    async def parts(self) -> AsyncGenerator[FormPart, None]:
        """Yield each part; what its reader has left of it is skipped. Raises Malformed."""
        await _skip(self._until_mark())
        count = 0
        while await self._goes_on():
            count += 1
            if count > MAX_PARTS:
                raise Malformed(
                    f"there are more than {MAX_PARTS} parts: send further files in another request"
                )
            name, filename = _names(await self._head())
            chunks = self._until_mark()
            yield FormPart(name, filename, chunks)
            await _skip(chunks)
        self._held.clear()
        await _skip(self._body)

    async def _goes_on(self) -> bool:
        """Return whether another part follows the boundary that was read, and not the end."""
        while len(self._held) < 2:  # noqa: PLR2004 - what the last boundary has more
            await self._more()
        return not self._held.startswith(b"--")

    async def _head(self) -> bytes:
        """Return a part's headers, and what is on the boundary's line before them."""
        while (at := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > MAX_HEAD:
                raise Malformed(f"a part's headers are above {MAX_HEAD} bytes")
            await self._more()
        head = bytes(self._held[:at])
        del self._held[: at + 4]
        if len(head) > MAX_HEAD:
            raise Malformed(f"a part's headers are above {MAX_HEAD} bytes")
        return head

    async def _until_mark(self) -> AsyncGenerator[bytes, None]:
        """Yield the bytes before the next boundary, and read the boundary."""
        tail = len(self._mark) - 1
        while (at := self._held.find(self._mark)) < 0:
            if len(self._held) > tail:
                piece = bytes(self._held[:-tail])
                del self._held[:-tail]
                yield piece
            await self._more()
        piece = bytes(self._held[:at])
        del self._held[: at + len(self._mark)]
        if piece:
            yield piece

    async def _more(self) -> None:
        chunk = await anext(self._body, None)
        if chunk is None:
            raise Malformed("the body ends before its last boundary")
        self._held += chunk


async def _skip(chunks: AsyncIterator[bytes]) -> None:
    async for _ in chunks:
        # A body that is there already never waits by itself.
        await asyncio.sleep(0)


def _names(head: bytes) -> tuple[str, str | None]:
    """Return the field's name and the file's name that a part's headers give. Raises Malformed."""
    for line in head.split(b"\r\n")[1:]:
        title, _, value = line.partition(b":")
        if title.strip().lower() != b"content-disposition":
            continue
        given = {
            found[1].lower(): _plain(found[2]) if found[2] is not None else found[3]
            for found in _PARAMETER.finditer(value)
        }
        try:
            name = given.get(b"name", b"").decode()
            filename = given.get(b"filename")
            return name, None if filename is None else filename.decode()
        except UnicodeDecodeError:
            raise Malformed("the names of a part must be UTF-8") from None
    raise Malformed("each part needs a Content-Disposition")


def _plain(quoted: bytes) -> bytes:
    plain = _ESCAPED.sub(rb"\1", quoted)
    for written, meant in _QUOTED.items():
        plain = plain.replace(written, meant)
    return plain
