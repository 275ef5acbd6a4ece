"""Ways past the egress proxy, spoken to the real proxy in front of a real server."""

import asyncio
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from runner.verify.bench import Bench
from runner.verify.check import Attempt, Check, Group, Observation, Severity, Trial
from runner.verify.outside import Answer, Outside

Speech = Callable[[Outside], tuple[bytes, ...]]
Rules = tuple[Any, ...]

_INSIDE = b"GET /inside HTTP/1.1\r\nHost: %b:%d\r\n\r\n"


def _connect(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    head = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (host, outside.port)
    return head, _INSIDE % (host, outside.port)


def _absolute(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    return (b"GET http://%b:%d/ HTTP/1.1\r\nHost: %b:%d\r\n\r\n"
            % (host, outside.port, host, outside.port),)  # fmt: skip


def _socks(host: bytes, outside: Outside) -> tuple[bytes, ...]:
    request = b"\x05\x01\x00\x03" + bytes([len(host)]) + host + outside.port.to_bytes(2)
    return b"\x05\x01\x00", request, _INSIDE % (host, outside.port)


_METHODS = {"connect": _connect, "http": _absolute, "socks5": _socks}


def _seen(answer: Answer) -> Observation:
    return Observation(breached=bool(answer.arrived), saw=answer.why)


def _asked(speech: Speech, guarded: Rules, bare: Rules, **budgets: int) -> Attempt:
    """Return an attempt to reach the server; without the control, by rules that permit it."""

    async def attempt(bench: Bench, is_guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        policy = outside.policy(*(guarded if is_guarded else bare), **budgets)
        return _seen(await outside.ask(policy, *speech(outside)))

    return attempt


_UNCOVERED: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.{id_}.{method}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title}, asked for by {method}",
        meaning="hosts that nobody permitted could be reached",
        source=source,
        control="rules cover whole labels",
        attempt=_asked(
            partial(speak, host),
            (f"http://{rule}:PORT",),
            (f"http://{host.decode()}:PORT",),
        ),
    )
    for id_, title, host, rule, source in (
        ("prefix", "evilexample.test is not example.test", b"evilexample.test", "example.test",
         "sandbox-runtime tests"),
        ("suffix", "example.test.evil is not example.test", b"example.test.evil", "example.test",
         "sandbox-runtime tests"),
        ("prefix-wildcard", "evilexample.test is not below example.test", b"evilexample.test",
         "*.example.test", "sandbox-runtime tests"),
        ("apex", "example.test is not below itself", b"example.test", "*.example.test",
         "sandbox-runtime tests"),
        ("subdomain", "www.example.test is not example.test", b"www.example.test", "example.test",
         "sandbox-runtime tests"),
    )
    for method, speak in _METHODS.items()
)  # fmt: skip


def _spelled(host: bytes, reaches: str) -> Attempt:
    """Return an attempt to reach loopback by an odd spelling, by every method.

    Without the control: what the system's own connect makes of that spelling.
    """

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        if not guarded:
            _, writer = await asyncio.open_connection(reaches, outside.port)
            writer.close()
            return Observation(breached=True, saw="connected")
        policy = outside.policy("http://*.example.test:PORT", "http://example.test:PORT")
        answers = [await outside.ask(policy, *speak(host, outside)) for speak in _METHODS.values()]
        reached = [answer for answer in answers if answer.arrived]
        return _seen(reached[0]) if reached else _seen(answers[0])

    return attempt


_SPELLINGS: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.spelling.{id_}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title} reaches nothing, by whatever method",
        meaning="what was judged would not be what is connected to",
        source=source,
        control="one spelling of each name",
        undemonstrable=""
        if reaches
        else "no policy takes such a name: it is refused before any rule is looked at",
        attempt=_spelled(host, reaches),
    )
    for id_, title, host, reaches, source in (
        ("decimal", "An address as one number", b"2130706433", "2130706433", "OWASP SSRF"),
        ("octal", "An address in octal", b"0177.0.0.1", "0177.0.0.1", "OWASP SSRF"),
        ("hex", "An address in hexadecimal", b"0x7f.0.0.1", "0x7f.0.0.1", "OWASP SSRF"),
        ("short", "A shortened address", b"127.1", "127.1", "OWASP SSRF"),
        ("mapped", "IPv4 inside IPv6", b"[::ffff:127.0.0.1]", "127.0.0.1", "OWASP SSRF"),
        ("literal", "A bare address", b"127.0.0.1", "127.0.0.1", "OWASP SSRF"),
        ("nul", "A NUL inside a name", b"example.test\x00.evil", "", "Claude Code SOCKS5 bypass"),
        ("percent-nul", "%00 inside a name", b"example.test%00.evil", "", "OpenShell #1498"),
        ("space", "A space inside a name", b"example.test .evil", "", "OpenShell #1552"),
        ("backslash", "A backslash inside a name", b"example.test\\.evil", "", "OpenShell #1498"),
        ("userinfo", "User information before a name", b"example.test@evilexample.test", "",
         "RFC 3986 section 7.6"),
        ("zone", "A zone identifier", b"[::1%25lo]", "", "RFC 6874"),
        ("brackets", "A name in brackets", b"[example.test]", "", "GHSA-qwrf-gfpj-qvj6"),
        ("empty-label", "An empty label", b"www..example.test", "", "sandbox-runtime tests"),
        ("long-label", "An overlong label", b"a" * 64 + b".example.test", "", "RFC 1035"),
        ("full-width", "Full-width dots", "evil。test".encode(), "", "UTS 46"),
        ("hash", "A fragment in a name", b"evilexample.test#.example.test", "", "OWASP SSRF"),
        ("slash", "A path in a name", b"evilexample.test/.example.test", "", "OWASP SSRF"),
    )
)  # fmt: skip


def _private(
    speak: Callable[[bytes, Outside], tuple[bytes, ...]], host: bytes, rule: str
) -> Attempt:
    """Return an attempt to reach a private address; without the control, its network is trusted."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        gateway = outside.strict if guarded else outside.trusting
        policy = outside.policy(rule)
        return _seen(await outside.ask(policy, *speak(host, outside), gateway=gateway))

    return attempt


_PRIVATE: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.private.{id_}.{method}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title} is not connected to, asked for by {method}",
        meaning="a name of the attacker's could lead to services of the operator's",
        source="OWASP SSRF; CubeSandbox #1697",
        control="addresses that are not public are refused",
        attempt=_private(speak, host, f"http://{host.decode()}:PORT"),
    )
    for id_, title, host in (
        ("name", "A permitted name with a private address", b"example.test"),
        ("address", "A permitted address that is private", b"127.0.0.1"),
    )
    for method, speak in _METHODS.items()
)


def _vector(prefix: int, data: bytes) -> bytes:
    return len(data).to_bytes(prefix) + data


def _hello(*extensions: bytes, record: int = 2**14) -> bytes:
    body = b"\3\3" + bytes(32) + b"\0" + _vector(2, b"\x13\x01") + b"\1\0"
    message = b"\1" + _vector(3, body + _vector(2, b"".join(extensions)))
    return b"".join(
        b"\x16\3\1" + _vector(2, message[at : at + record]) for at in range(0, len(message), record)
    )


def _sni(name: bytes) -> bytes:
    return struct.pack(">H", 0) + _vector(2, _vector(2, b"\0" + _vector(2, name)))


_PADDING = struct.pack(">H", 21) + _vector(2, bytes(2000))
_ECH = struct.pack(">H", 0xFE0D) + _vector(2, b"x" * 40)


def _tunnelled(*requests: bytes) -> Speech:
    def speech(outside: Outside) -> tuple[bytes, ...]:
        port = str(outside.port).encode()
        head = b"CONNECT example.test:%d HTTP/1.1\r\nHost: x\r\n\r\n" % outside.port
        return head, *(request.replace(b"PORT", port) for request in requests)

    return speech


_TLS: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.tls.{id_}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=title,
        meaning="a tunnel to a permitted host could end at another one behind the same front",
        source=source,
        control="the name inside TLS is the one that was decided on",
        attempt=_asked(
            _tunnelled(first),
            ("example.test:PORT",),
            ("tcp://example.test:PORT",),
        ),
    )
    for id_, title, first, source in (
        ("other-name", "A tunnel that names another host inside is cut", _hello(_sni(b"evil.test")),
         "domain fronting; e2b #1597"),
        ("no-name", "A tunnel that names no host inside is cut", _hello(), "gh-aw-firewall #8878"),
        ("encrypted", "A tunnel whose host is encrypted is cut", _hello(_sni(b"example.test"), _ECH),
         "RFC 9849 (ECH)"),
        ("late-name", "A name behind the first kilobyte is read", _hello(_PADDING, _sni(b"evil.test")),
         "gh-aw-firewall #8878"),
        ("fragments", "A name in many records is read", _hello(_sni(b"evil.test"), record=7),
         "gh-aw-firewall #8878"),
        ("two-names", "Two names inside are refused",
         _hello(_sni(b"example.test"), _sni(b"evil.test")), "RFC 6066 section 3"),
        ("not-tls", "What is not TLS is cut on a TLS port", b"SSH-2.0-x\r\n\r\n\r\n", "e2b #1597"),
        ("plain-http", "Plain HTTP is cut on a TLS port", b"GET / HTTP/1.1\r\n\r\n", "e2b #1597"),
    )
)  # fmt: skip


_HTTP: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.http.{id_}",
        group=Group.EGRESS,
        severity=severity,
        title=title,
        meaning=meaning,
        source=source,
        control="every request inside a plain tunnel is judged",
        attempt=_asked(_tunnelled(request), (rule,), ("tcp://example.test:PORT",)),
    )
    for id_, title, request, rule, meaning, source, severity in (
        ("other-host", "A request for another host is refused",
         b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "http://example.test:PORT",
         "another site behind the same front could be reached", "domain fronting", Severity.CRITICAL),
        ("two-hosts", "A request with two hosts is refused",
         b"GET / HTTP/1.1\r\nHost: example.test:PORT\r\nHost: evil.test\r\n\r\n",
         "http://example.test:PORT", "proxy and server could read different ones",
         "RFC 9112 section 3.2", Severity.CRITICAL),
        ("absolute", "A request that names a host in its first line is refused inside a tunnel",
         b"GET http://evil.test/ HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n",
         "http://example.test:PORT", "proxy and server could read different ones",
         "RFC 9112 section 3.2.2", Severity.HIGH),
        ("two-lengths", "A request of two lengths is refused",
         b"POST / HTTP/1.1\r\nHost: example.test:PORT\r\nContent-Length: 3\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "http://example.test:PORT", "a second request could be hidden in the first",
         "CWE-444", Severity.CRITICAL),
        ("bad-chunk", "A request with a malformed chunk is refused",
         b"POST / HTTP/1.1\r\nHost: example.test:PORT\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
         "http://example.test:PORT", "a second request could be hidden in the first",
         "CVE-2025-43859", Severity.CRITICAL),
        ("upgrade", "An upgrade is refused",
         b"GET / HTTP/1.1\r\nHost: example.test:PORT\r\nConnection: upgrade\r\n"
         b"Upgrade: websocket\r\n\r\n",
         "http://example.test:PORT", "what follows would be judged by nobody",
         "RFC 9110 section 7.8", Severity.HIGH),
        ("bare-newlines", "Control characters in a field are refused",
         b"GET / HTTP/1.1\r\nHost: example.test:PORT\r\nX: a\x00b\r\n\r\n",
         "http://example.test:PORT", "fields could be smuggled", "CWE-93", Severity.HIGH),
        ("nested-connect", "A tunnel inside a tunnel is refused",
         b"CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test\r\n\r\n",
         "http://example.test:PORT", "a server that is a proxy could lead anywhere",
         "RFC 9110 section 9.3.6", Severity.HIGH),
    )
)  # fmt: skip

_KEPT: tuple[Check, ...] = (
    Trial(
        id="egress.http.method",
        group=Group.EGRESS,
        title="A method that the rule does not name is refused",
        meaning="data could be written where only reading was meant",
        source="docs/operations/egress.md",
        control="methods of a rule",
        attempt=_asked(
            _tunnelled(b"DELETE / HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n"),
            ({"host": "example.test", "scheme": "http", "methods": ["GET"]},),
            ("http://example.test:PORT",),
        ),
    ),
    *(
        Trial(
            id=f"egress.http.path.{id_}",
            group=Group.EGRESS,
            title=f"{path.decode()} is not below /open",
            meaning="other parts of a permitted host could be reached",
            source="CWE-22",
            control="path of a rule",
            attempt=_asked(
                _tunnelled(b"GET %b HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n" % path),
                ({"host": "example.test", "scheme": "http", "path_prefix": "/open/"},),
                ("http://example.test:PORT",),
            ),
        )
        for id_, path in (
            ("other", b"/closed"),
            ("dots", b"/open/../closed"),
            ("encoded-dots", b"/open/%2e%2e/closed"),
            ("encoded-slash", b"/open/..%2fclosed"),
            ("double-slash", b"/open//../closed"),
            ("backslash", b"/open/..\\closed"),
        )
    ),
)


def _later(first: bytes, second: bytes) -> Attempt:
    """Return an attempt to reach a second host on a connection that was let through once."""

    async def attempt(bench: Bench, is_guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        port = str(outside.port).encode()
        rules = ["http://example.test:PORT"]
        if not is_guarded:
            rules.append("http://evilexample.test:PORT")
        said = [part.replace(b"PORT", port) for part in (first, second)]
        answer = await outside.ask(outside.policy(*rules), *said)
        return Observation(breached=b"/second" in answer.arrived, saw=answer.why)

    return attempt


def _budget(name: str, least: int, most: int, times: int, needed: int) -> Attempt:
    """Return an attempt to use more than a budget; without the control the budget is larger."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        budgets = {name: least if guarded else most}
        policy = outside.policy("http://example.test:PORT", **budgets)
        answer = await outside.ask(policy, *_absolute(b"example.test", outside), times=times)
        return Observation(breached=answer.arrived.count(b"GET / ") >= needed, saw=answer.why)

    return attempt


_REST: tuple[Check, ...] = (
    Trial(
        id="egress.http.second-host",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title="A kept-alive connection is judged anew for each request",
        meaning="one permitted request would open the way for all that follow",
        source="CWE-441",
        control="every request is judged",
        attempt=_later(
            b"GET http://example.test:PORT/first HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n",
            b"GET http://evilexample.test:PORT/second HTTP/1.1\r\n"
            b"Host: evilexample.test:PORT\r\n\r\n",
        ),
    ),
    Trial(
        id="egress.http.pipelined",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title="A pipelined request is judged as any other",
        meaning="a request could ride behind a permitted one",
        source="RFC 9112 section 9.3.2",
        control="every request is judged",
        attempt=_later(
            b"GET http://example.test:PORT/first HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n"
            b"GET http://evilexample.test:PORT/second HTTP/1.1\r\n"
            b"Host: evilexample.test:PORT\r\n\r\n",
            b"",
        ),
    ),
    Trial(
        id="egress.budget.connections",
        group=Group.EGRESS,
        severity=Severity.MEDIUM,
        title="Connections are counted",
        meaning="a program could scan or flood a permitted host",
        source="docs/operations/egress.md",
        control="connection budget",
        attempt=_budget("max_connections", 2, 100, 4, 4),
    ),
    Trial(
        id="egress.budget.bytes",
        group=Group.EGRESS,
        severity=Severity.MEDIUM,
        title="Bytes are counted",
        meaning="any amount of data could be carried off",
        source="docs/operations/egress.md",
        control="byte budget",
        attempt=_budget("max_bytes", 300, 10**9, 6, 6),
    ),
    Trial(
        id="egress.nothing-permitted",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title="An empty policy permits nothing",
        meaning="a policy that was forgotten would open everything",
        source="CVE-2025-66479, OpenSandbox #751",
        control="default deny",
        attempt=_asked(
            lambda outside: _absolute(b"example.test", outside), (), ("http://example.test:PORT",)
        ),
    ),
)

CHECKS: tuple[Check, ...] = (
    *_UNCOVERED, *_SPELLINGS, *_PRIVATE, *_TLS, *_HTTP, *_KEPT, *_REST,
)  # fmt: skip
