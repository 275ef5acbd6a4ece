"""Reads the host that the first message of TLS names (RFC 8446 §4.1.2, RFC 6066 §3).

Nothing else in TLS is looked at, and the bytes are passed on unchanged. A server must not find
another name in them than this reader does. So everything that could be read in two ways is refused:
other records, trailing bytes, a repeated extension, a name that is not ASCII.
"""

from dataclasses import dataclass

MAX_HELLO = 16 * 1024

_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_ECH = 0xFE0D
_HOST_NAME = 0
_RECORD_HEADER = 5
_MAX_RECORD = 2**14


class BadHello(Exception):
    """The bytes are not a ClientHello, or could be read in more than one way."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The host that a ClientHello names."""

    server_name: str | None
    encrypted: bool
    """Whether it has an encrypted ClientHello (ECH), whose inner name nobody outside can see."""


def parse(data: bytes) -> Hello | None:
    """Return what the ClientHello at the beginning of the bytes says; None if more are needed.

    The ClientHello may be spread over several records. Raises BadHello.
    """
    message = bytearray()
    at = 0
    while True:
        if len(data) - at < _RECORD_HEADER:
            _check_start(data[at:])
            return None
        kind, major, length = data[at], data[at + 1], int.from_bytes(data[at + 3 : at + 5])
        if kind != _HANDSHAKE or major != 3 or not 0 < length <= _MAX_RECORD:  # noqa: PLR2004 - SSL 3 and all of TLS
            raise BadHello("these are not the first bytes of TLS")
        message += data[at + _RECORD_HEADER : at + _RECORD_HEADER + length]
        if message and message[0] != _CLIENT_HELLO:
            raise BadHello("the first message of TLS is no ClientHello")
        if len(message) >= 4:  # noqa: PLR2004 - type and length
            size = 4 + int.from_bytes(message[1:4])
            if size > MAX_HELLO:
                raise BadHello(f"a ClientHello of {size} bytes; {MAX_HELLO} are read")
            if len(message) > size:
                raise BadHello("more than a ClientHello in its records")
            if len(message) == size:
                return _hello(_Reader(bytes(message[4:])))
        if len(data) - at < _RECORD_HEADER + length:
            return None
        at += _RECORD_HEADER + length


def _check_start(rest: bytes) -> None:
    if rest and rest[0] != _HANDSHAKE:
        raise BadHello("these are not the first bytes of TLS")


class _Reader:
    """Takes fields off the front of a message."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, size: int) -> bytes:
        if len(self._data) < size:
            raise BadHello("a ClientHello whose lengths do not add up")
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size))

    def vector(self, prefix: int) -> "_Reader":
        return _Reader(self.take(self.number(prefix)))


def _hello(message: _Reader) -> Hello:
    message.take(2 + 32)  # version and random
    message.vector(1)  # session id
    message.vector(2)  # cipher suites
    message.vector(1)  # compression
    extensions: dict[int, _Reader] = {}
    if message:
        listed = message.vector(2)
        while listed:
            kind = listed.number(2)
            if kind in extensions:
                raise BadHello("an extension appears twice")
            extensions[kind] = listed.vector(2)
    if message:
        raise BadHello("bytes after the extensions")
    names = extensions.get(_SERVER_NAME)
    return Hello(_server_name(names) if names else None, _ECH in extensions)


def _server_name(extension: _Reader) -> str:
    names = extension.vector(2)
    kind = names.number(1)
    name = names.vector(2)
    if kind != _HOST_NAME or names or extension:
        raise BadHello("more than one server name")
    raw = b""
    while name:
        raw += name.take(1)
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise BadHello("a server name that is not ASCII") from None
