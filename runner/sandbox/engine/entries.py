"""Reads an archive of which nothing is believed: one entry at a time, and little of it in memory.

It must be what the supervisor has tar write, which is `--format=gnu --sparse`. Headers of pax are
refused: what they hold has no bound, and `tarfile` would gather it.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, TypeAlias

ENCODING, ERRORS = "utf-8", "surrogateescape"
"""How a name becomes text that becomes the same bytes again."""
MOST_PIECES = 100_000
"""How many pieces a file with holes may have."""
_LONGEST_NAME = 8192
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
_NAMES = {tarfile.GNUTYPE_LONGNAME: "name", tarfile.GNUTYPE_LONGLINK: "linkname"}
# Where the header of a file with holes has its pieces, whether more follow, and the file's size.
# Each piece is two numbers: its offset, and how many bytes it has.
_PIECES, _MORE, _SIZE = slice(386, 482), 482, slice(483, 495)
_FURTHER, _STILL_MORE = slice(0, 504), 504
_NUMBER = 12
_BINARY = 0x80
"""The first byte of a positive number that is not written in octal digits."""
_OCTAL = re.compile(rb"[0-7]*[\0 ]*")

Piece: TypeAlias = tuple[int, int]


def read_entries(source: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, Iterator[bytes]]]:
    """Yield each entry with its content, whose holes are filled: read it before the next entry.

    An entry's size is that of its content. Raises ValueError and TarError where it is no archive.
    """
    names: dict[str, str] = {}
    while any(header := _read(source, _BLOCK)):
        entry = tarfile.TarInfo.frombuf(header, ENCODING, ERRORS)
        if entry.size < 0 or entry.type in {
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.SOLARIS_XHDTYPE,
        }:
            raise ValueError("it is not what tar writes in its GNU format")
        if (which := _NAMES.get(entry.type)) is not None:
            names[which] = _name(source, entry.size)
            continue
        entry.name = names.get("name", entry.name)
        entry.linkname = names.get("linkname", entry.linkname)
        names = {}
        packed = entry.size if entry.isreg() else 0
        pieces = [(0, packed)]
        if entry.type == tarfile.GNUTYPE_SPARSE:
            entry.size = _number(header[_SIZE])
            pieces = _pieces(source, header)
            _check(pieces, packed, entry.size)
        content = _content(source, pieces, entry.size if entry.isreg() else 0)
        yield entry, content
        for _ in content:
            pass
        _read(source, -packed % _BLOCK)


def _read(source: IO[bytes], size: int) -> bytes:
    found = source.read(size)
    if len(found) < size:
        raise ValueError("it ends in the middle")
    return found


def _name(source: IO[bytes], size: int) -> str:
    if size > _LONGEST_NAME:
        raise ValueError(f"a name is longer than {_LONGEST_NAME} bytes")
    written = _read(source, size)
    _read(source, -size % _BLOCK)
    return written.partition(b"\0")[0].decode(ENCODING, ERRORS)


def _number(field: bytes) -> int:
    if field[0] == _BINARY:
        return int.from_bytes(field[1:], "big")
    # `int` would take a sign: a piece of negative length makes a file longer than its header says,
    # and what is beyond that would be read as the header of a further entry.
    if not _OCTAL.fullmatch(field):
        raise ValueError("a number is not written in octal digits")
    return int(field.rstrip(b"\0 ") or b"0", 8)


def _pieces(source: IO[bytes], header: bytes) -> list[Piece]:
    found = list(_pieces_in(header[_PIECES]))
    more = header[_MORE]
    while more:
        further = _read(source, _BLOCK)
        found.extend(_pieces_in(further[_FURTHER]))
        if len(found) > MOST_PIECES:
            raise ValueError(f"a file has more than {MOST_PIECES} pieces")
        more = further[_STILL_MORE]
    return found


def _pieces_in(table: bytes) -> Iterator[Piece]:
    for at in range(0, len(table), 2 * _NUMBER):
        if table[at] == 0:
            return
        middle = at + _NUMBER
        yield _number(table[at:middle]), _number(table[middle : middle + _NUMBER])


def _check(pieces: Sequence[Piece], packed: int, size: int) -> None:
    """Raise ValueError unless these are in order and hold what is packed of the file."""
    end = 0
    for offset, length in pieces:
        if offset < end:
            raise ValueError("pieces of a file overlap")
        end = offset + length
    if end > size or sum(length for _, length in pieces) != packed:
        raise ValueError("the pieces of a file are not the file")


def _content(source: IO[bytes], pieces: Sequence[Piece], size: int) -> Iterator[bytes]:
    at = 0
    for offset, length in pieces:
        yield from _zeros(offset - at)
        for done in range(0, length, _CHUNK):
            yield _read(source, min(_CHUNK, length - done))
        at = offset + length
    yield from _zeros(size - at)


def _zeros(count: int) -> Iterator[bytes]:
    for done in range(0, count, _CHUNK):
        yield bytes(min(_CHUNK, count - done))
