"""Requests of a hostile client to the egress proxy, by each of its methods."""

from collections.abc import Callable
from typing import Any

from runner.verify.bench import Bench
from runner.verify.check import Observation
from runner.verify.outside import Answer, Outside
from runner.verify.trial import Attempt

Speech = Callable[[Outside], tuple[bytes, ...]]
Rules = tuple[Any, ...]

_INSIDE = b"GET /inside HTTP/1.1\r\nHost: %b:%d\r\n\r\n"


def connect(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    """Ask for a tunnel, and for a page inside it."""
    head = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (host, outside.port)
    return head, _INSIDE % (host, outside.port)


def absolute(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    """Ask a proxy for a page."""
    return (b"GET http://%b:%d/ HTTP/1.1\r\nHost: %b:%d\r\n\r\n"
            % (host, outside.port, host, outside.port),)  # fmt: skip


def socks(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    """Ask SOCKS5 for a tunnel, and for a page inside it."""
    request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + outside.port.to_bytes(2)
    return b"\x05\x01\x00", request, _INSIDE % (host, outside.port)


METHODS = {"connect": connect, "http": absolute, "socks5": socks}


def seen(answer: Answer) -> Observation:
    """Return the observation: whether anything reached the server."""
    return Observation(breached=bool(answer.arrived), saw=answer.why)


def asked(speech: Speech, guarded: Rules, bare: Rules, **budgets: int) -> Attempt:
    """Return an attempt to reach the server; without the control, rules permit it."""

    async def attempt(bench: Bench, is_guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        policy = outside.policy(*(guarded if is_guarded else bare), **budgets)
        return seen(await outside.ask(policy, *speech(outside)))

    return attempt


def tunnelled(*requests: bytes) -> Speech:
    """Return a client that opens a permitted tunnel and sends this inside it."""

    def speech(outside: Outside) -> tuple[bytes, ...]:
        port = str(outside.port).encode()
        head = b"CONNECT example.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % outside.port
        return head, *(request.replace(b"PORT", port) for request in requests)

    return speech
