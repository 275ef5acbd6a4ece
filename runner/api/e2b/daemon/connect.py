"""The Connect protocol, as far as it is needed (https://connectrpc.com/docs/protocol).

JSON alone, and no compression: no version of the E2B SDKs sends anything else. This module knows
bytes and codes; it knows neither requests nor sandboxes.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from enum import StrEnum
from http import HTTPStatus
from typing import Any

UNARY = "application/json"
STREAM = "application/connect+json"
MAX_MESSAGE = 4 * 2**20
"""Bytes of one message of a stream: more than a start, or a reasonable piece of input, needs."""
MAX_TIMEOUT_DIGITS = 10
"""The protocol's own bound: a timeout is a number of milliseconds with at most so many digits."""

_HEAD = struct.Struct(">BI")
HEADER = _HEAD.size
"""Bytes before each message of a stream: its flags and its length."""
_COMPRESSED = 0b01
_END = 0b10


class Code(StrEnum):
    """An error, in the protocol's words."""

    CANCELED = "canceled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATA_LOSS = "data_loss"
    UNAUTHENTICATED = "unauthenticated"


STATUS: Mapping[Code, HTTPStatus] = {
    # 499 in the protocol's table, which has no name in HTTP: the client is not there to read it.
    Code.CANCELED: HTTPStatus.REQUEST_TIMEOUT,
    Code.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    Code.NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST,
    Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
    Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
}
"""The HTTP status of a unary answer that fails. A stream that fails has status 200."""


class ConnectError(Exception):
    """A call failed, in the form that its client is told."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def body(self) -> dict[str, str]:
        """Return it as JSON."""
        return {"code": self.code.value, "message": self.message}


def envelope(message: Mapping[str, Any], flags: int = 0) -> bytes:
    """Return one message of a stream."""
    payload = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    return _HEAD.pack(flags, len(payload)) + payload


def last(error: ConnectError | None = None) -> bytes:
    """Return the end of a stream, which says whether the call has failed."""
    return envelope({} if error is None else {"error": error.body()}, _END)


class Envelopes:
    """Takes a stream's bytes as they come, and gives its messages."""

    def __init__(self, most: int = MAX_MESSAGE) -> None:
        self._most = most
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the messages that are complete now. Raises ConnectError for any other than ours.

        A message that is declared too long is refused before it is held.
        """
        self._held += data
        while len(self._held) >= _HEAD.size:
            flags, length = _HEAD.unpack_from(self._held)
            if flags & _COMPRESSED:
                raise ConnectError(
                    Code.UNIMPLEMENTED,
                    "compressed messages are not supported: send them as they are",
                )
            if flags:
                raise ConnectError(
                    Code.INVALID_ARGUMENT, f"a client's message has no flags, but this has {flags}"
                )
            if length > self._most:
                raise ConnectError(
                    Code.RESOURCE_EXHAUSTED,
                    f"a message has {length} bytes, above the limit of {self._most}: "
                    "send it in parts",
                )
            end = _HEAD.size + length
            if len(self._held) < end:
                return
            message = bytes(self._held[_HEAD.size : end])
            del self._held[:end]
            yield message

    def finish(self) -> None:
        """Note that no more comes. Raises ConnectError in the middle of a message."""
        if self._held:
            raise ConnectError(Code.INVALID_ARGUMENT, "the stream ended inside a message")


def timeout(header: str | None) -> float | None:
    """Return how many seconds a `Connect-Timeout-Ms` header permits; None for no limit.

    Zero means no limit, too, as E2B has it. Raises ConnectError.
    """
    if header is None:
        return None
    if not (header.isascii() and header.isdecimal() and len(header) <= MAX_TIMEOUT_DIGITS):
        raise ConnectError(
            Code.INVALID_ARGUMENT,
            f"Connect-Timeout-Ms must be a number of at most {MAX_TIMEOUT_DIGITS} digits",
        )
    return int(header) / 1000 or None


def check(version: str | None, encoding: str | None) -> None:
    """Refuse what this server does not speak. Raises ConnectError.

    `version` is of the protocol, and `encoding` of the body or of the stream's messages.
    """
    if version not in {None, "1"}:
        raise ConnectError(
            Code.INVALID_ARGUMENT, f'Connect-Protocol-Version must be "1", not {version!r:.40}'
        )
    if encoding not in {None, "", "identity"}:
        raise ConnectError(
            Code.UNIMPLEMENTED, f"compression {encoding!r:.40} is not supported: send identity"
        )
