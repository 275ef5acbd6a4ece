"""Masks the secrets that the proxy sets for a sandbox in everything that servers send back.

The proxy masks every secret of the execution in the answers of every server that it looks into. A
secret that one rule sets may come back through another rule for the same host, or from another host
that knows it. A body may be gzip or zlib without saying so. The proxy unpacks one such layer on the
side, and cuts the answer off if it finds a secret inside. docs/operations/egress.md lists what gets
through nevertheless.
"""

import zlib
from collections.abc import Iterable, Iterator

from runner.base.masking import Masker
from runner.egress.decide import Denied

_GZIP_OR_ZLIB = 47
"""With this value of `wbits`, zlib tells the two formats apart by their headers."""
_SLICE = 16 * 1024
"""Bytes to look at before others get a turn; they take some milliseconds with the worst secrets."""
_ROOM = 2**20
_RATIO = 200
"""A body that unpacks to more than `_ROOM` and more than this many times its size is refused."""
_BETWEEN = b"\0"
"""Separates the parts: it is in no header field, and in no secret that a field could hold."""


class Hidden:
    """The secrets that no answer may hold.

    Making one takes half a second for the worst secrets, so do it in a thread.
    """

    def __init__(self, values: Iterable[str]) -> None:
        known = tuple(values)
        self._anywhere = Masker(known)
        # Field names lose their case on the way (RFC 9113 §8.2.1 has them in lower case).
        self._in_names = Masker(value.lower() for value in known)

    def __bool__(self) -> bool:
        return bool(self._anywhere)

    def text(self, text: str) -> str:
        """Return the text, masked. It may quote the server."""
        return self._anywhere.text(text)

    def reason(self, reason: bytes) -> bytes:
        """Return the reason of a status line, masked."""
        return self._anywhere.whole(reason)

    def fields(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return header fields, masked. Their names are as the server wrote them."""
        if not self or not fields:
            return fields
        names = self._anywhere.whole(_BETWEEN.join(name for name, _ in fields)).lower()
        values = self._anywhere.whole(_BETWEEN.join(value for _, value in fields))
        hidden = self._in_names.whole(names).split(_BETWEEN)
        return list(zip(hidden, values.split(_BETWEEN), strict=True))

    def body(self) -> "Body":
        """Return a mask for the body of one answer."""
        return Body(self._anywhere)


class Body:
    """Masks one body that comes in pieces."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.stream()
        self._inside = _Inside(masker) if masker else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the output that is certain so far, in steps, so that others get turns in between.

        Raises Denied if the body must not go on.
        """
        if self._inside is None:
            yield data
            return
        for _ in self._inside.looks(data):
            yield b""
        for at in range(0, len(data), _SLICE):
            yield self._mask.feed(data[at : at + _SLICE])

    def rest(self) -> bytes:
        """Return the output that was held back."""
        return self._mask.rest()


class _Inside:
    """Looks for secrets inside a packed body."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.stream()
        self._unmasked = b""
        self._unpacker: zlib._Decompress | None = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._packed = 0
        self._unpacked = 0

    def looks(self, data: bytes) -> Iterator[None]:
        full = False
        while (data or full) and self._unpacker is not None:
            try:
                unpacked = self._unpacker.decompress(data, _SLICE)
            except zlib.error:
                # It is not packed, or is damaged here: nothing that follows would unpack either.
                self._unpacker = None
                return
            rest = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            self._packed += len(data) - len(rest)
            self._check(unpacked)
            # If the output fills its limit, the unpacker may hold more, even without more data.
            full = len(unpacked) == _SLICE
            if self._unpacker.eof:
                # Another member may follow (RFC 1952 §2.2).
                self._unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
            data = rest
            yield

    def _check(self, unpacked: bytes) -> None:
        self._unpacked += len(unpacked)
        if self._unpacked > _ROOM + _RATIO * self._packed:
            raise Denied("packed_answer", "the answer is packed too tightly to be looked into")
        masked = self._mask.feed(unpacked)
        self._unmasked += unpacked
        if not self._unmasked.startswith(masked):
            raise Denied("packed_answer", "the answer repeats a secret in compressed form")
        self._unmasked = self._unmasked[len(masked) :]
