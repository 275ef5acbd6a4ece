"""Calls in the Connect protocol, byte by byte, as E2B's clients make them."""

import base64
import json
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

STREAM = "application/connect+json"
_HEAD = struct.Struct(">BI")
END = 2


def call(client: httpx.Client, method: str, message: object, **headers: str) -> httpx.Response:
    """Make a unary call."""
    return client.post(f"/{method}", json=message, headers=named(headers))


def done(client: httpx.Client, method: str, message: object, **headers: str) -> dict[str, Any]:
    """Make a unary call that succeeds; return its answer."""
    answer = call(client, method, message, **headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def refused(client: httpx.Client, method: str, message: object, **headers: str) -> str:
    """Make a unary call that fails; return its code."""
    answer = call(client, method, message, **headers)
    assert answer.status_code >= 400, answer.text
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert set(told) == {"code", "message"}, told
    return str(told["code"])


def frame(message: object, flags: int = 0) -> bytes:
    """Return a message as a client sends it in a stream."""
    payload = message if isinstance(message, bytes) else json.dumps(message).encode()
    return _HEAD.pack(flags, len(payload)) + payload


def frames(response: httpx.Response) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield a stream's messages as they come, and their flags."""
    held = bytearray()
    for chunk in response.iter_raw():
        held += chunk
        while len(held) >= _HEAD.size:
            flags, length = _HEAD.unpack_from(held)
            if len(held) < _HEAD.size + length:
                break
            yield flags, json.loads(held[_HEAD.size : _HEAD.size + length])
            del held[: _HEAD.size + length]
    assert not held, "the stream ended inside a message"


@contextmanager
def opened(
    client: httpx.Client, method: str, message: object, **headers: str
) -> Iterator[Iterator[tuple[int, dict[str, Any]]]]:
    """Make a call with a streamed answer; yield its messages, with flags."""
    content = frame(message)
    given = {"Content-Type": STREAM, **named(headers)}
    with client.stream("POST", f"/{method}", content=content, headers=given) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"] == STREAM
        yield frames(response)


def streamed(
    client: httpx.Client, method: str, message: object, **headers: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Make a call with a streamed answer; return its messages and its end."""
    with opened(client, method, message, **headers) as coming:
        *messages, (flags, end) = coming
    assert flags == END
    assert all(flag == 0 for flag, _ in messages)
    return [each for _, each in messages], end


def sent(client: httpx.Client, method: str, messages: Iterable[bytes]) -> dict[str, Any]:
    """Make a call with streamed messages; return its end, or its error's whole end."""
    headers = {"Content-Type": STREAM}
    with client.stream("POST", f"/{method}", content=messages, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        *_, (flags, end) = frames(answer)
    assert flags == END
    return end


def bash(line: str, **fields: object) -> dict[str, Any]:
    """Return what starts a line of bash."""
    return {"process": {"cmd": "/bin/bash", "args": ["-c", line]}, "stdin": False, **fields}


def written(messages: Iterable[dict[str, Any]], kind: str = "stdout") -> bytes:
    """Return what a process wrote."""
    pieces = (each["event"].get("data", {}).get(kind) for each in messages)
    return b"".join(base64.b64decode(each) for each in pieces if each)


def coded(data: bytes) -> str:
    """Return bytes as JSON has them."""
    return base64.b64encode(data).decode()


def named(headers: dict[str, str]) -> dict[str, str]:
    """Return headers with their names as HTTP has them."""
    return {name.replace("_", "-"): value for name, value in headers.items()}
