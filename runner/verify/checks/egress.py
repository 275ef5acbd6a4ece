"""Ways past the egress proxy by the requested name, by its address, and inside TLS."""

import asyncio
import struct
from collections.abc import Callable
from functools import partial

from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.outside import Outside
from runner.verify.speech import METHODS, asked, seen, tunnelled
from runner.verify.trial import Attempt, Trial

_UNCOVERED: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.{id_}.{method}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title}, by {method}",
        meaning="hosts that nobody permitted could be reached",
        source=source,
        control="rules match whole labels",
        attempt=asked(
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
    for method, speak in METHODS.items()
)  # fmt: skip


def _spelled(host: bytes, reaches: str) -> Attempt:
    """Return an attempt to reach loopback by an odd spelling, by every method.

    Without the control, the system's own connect decides what the spelling means.
    """

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        if not guarded:
            _, writer = await asyncio.open_connection(reaches, outside.port)
            writer.close()
            return Observation(breached=True, saw="connected")
        policy = outside.policy("http://*.example.test:PORT", "http://example.test:PORT")
        answers = [await outside.ask(policy, *speak(host, outside)) for speak in METHODS.values()]
        reached = [answer for answer in answers if answer.arrived]
        return seen(reached[0]) if reached else seen(answers[0])

    return attempt


_SPELLINGS: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.spelling.{id_}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title} reaches nothing, by any method",
        meaning="the proxy could connect to another host than the one that it checked",
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
        ("full-width", "A name with full-width dots", "evil。test".encode(), "", "UTS 46"),
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
        return seen(await outside.ask(policy, *speak(host, outside), gateway=gateway))

    return attempt


_PRIVATE: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.private.{id_}.{method}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=f"{title} is not reached, by {method}",
        meaning="an attacker's name could lead to the operator's services",
        source="OWASP SSRF; CubeSandbox #1697",
        control="addresses that are not public are refused",
        attempt=_private(speak, host, f"http://{host.decode()}:PORT"),
    )
    for id_, title, host in (
        ("name", "A permitted name with a private address", b"example.test"),
        ("address", "A permitted private address", b"127.0.0.1"),
    )
    for method, speak in METHODS.items()
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


_TLS: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.tls.{id_}",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title=title,
        meaning="a tunnel to a permitted host could end at another one behind the same front",
        source=source,
        control="the name inside TLS is the one that was decided on",
        attempt=asked(
            tunnelled(first),
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
        ("late-name", "A name after the first kilobyte is read", _hello(_PADDING, _sni(b"evil.test")),
         "gh-aw-firewall #8878"),
        ("fragments", "A name in many records is read", _hello(_sni(b"evil.test"), record=7),
         "gh-aw-firewall #8878"),
        ("two-names", "Two names inside TLS are refused",
         _hello(_sni(b"example.test"), _sni(b"evil.test")), "RFC 6066 section 3"),
        ("not-tls", "A connection that is not TLS is cut on a TLS port", b"SSH-2.0-x\r\n\r\n\r\n", "e2b #1597"),
        ("plain-http", "Plain HTTP is cut on a TLS port", b"GET / HTTP/1.1\r\n\r\n", "e2b #1597"),
    )
)  # fmt: skip

CHECKS: tuple[Check, ...] = (*_UNCOVERED, *_SPELLINGS, *_PRIVATE, *_TLS)
