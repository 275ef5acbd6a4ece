"""Brokered secrets, starred out of everything that the proxy brings back into their sandbox.

Every server that the proxy looks into is masked for every secret of the execution: a secret that
one rule sets may come back by another rule of the same host, or from another host that knows it.
One layer of gzip or zlib that the server does not declare is unpacked beside the answer, which is
cut off where a secret is found inside. What stays open is listed in docs/operations/egress.md.
"""

import zlib
from collections.abc import Iterable, Iterator

from runner.base.masking import Masker
from runner.egress.decide import Denied

_GZIP_OR_ZLIB = 47
"""`wbits` by which zlib tells the two formats apart by their headers."""
_SLICE = 16 * 1024
"""So much is looked at before others have their turn: some milliseconds for the worst secrets."""
_ROOM = 2**20
_RATIO = 200
"""What unpacks to more than `_ROOM` and so many times its size is not looked into, but refused."""
_BETWEEN = b"\0"
"""Stands in no header field and in no secret that one could hold."""


class Hidden:
    """What no answer may hold.

    Making one takes half a second for the worst secrets: leave it to a thread.
    """

    def __init__(self, values: Iterable[str]) -> None:
        known = tuple(values)
        self._anywhere = Masker(known)
        # Field names lose their case on the way (RFC 9113 §8.2.1 has them in lower case).
        self._in_names = Masker(value.lower() for value in known)

    def __bool__(self) -> bool:
        return bool(self._anywhere)

    def text(self, text: str) -> str:
        """Return a text that may quote the server."""
        return self._anywhere.text(text)

    def reason(self, reason: bytes) -> bytes:
        """Return the words of a status line."""
        return self._anywhere.whole(reason)

    def fields(self, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return header fields, whose names come as the server wrote them."""
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
        """Return what is certain so far, in steps that others may come between.

        Raises Denied when the body must not go on.
        """
        if self._inside is None:
            yield data
            return
        for _ in self._inside.looks(data):
            yield b""
        for at in range(0, len(data), _SLICE):
            yield self._mask.feed(data[at : at + _SLICE])

    def rest(self) -> bytes:
        """Return what was held back."""
        return self._mask.rest()


class _Inside:
    """Looks for secrets in what a packed body unpacks to."""

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
                # Not packed, or broken off here: there is nothing more that would unpack.
                self._unpacker = None
                return
            rest = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            self._packed += len(data) - len(rest)
            self._check(unpacked)
            # A full slice may leave more inside the unpacker, though it has taken all of the data.
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
