"""Ways past the egress proxy by HTTP on a permitted connection, and by amounts."""

from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Severity
from runner.verify.speech import absolute, asked, tunnelled
from runner.verify.trial import Attempt, Trial

_HTTP: tuple[Check, ...] = tuple(
    Trial(
        id=f"egress.http.{id_}",
        group=Group.EGRESS,
        severity=severity,
        title=title,
        meaning=meaning,
        source=source,
        control="every request inside a plain tunnel is checked",
        attempt=asked(tunnelled(request), (rule,), ("tcp://example.test:PORT",)),
    )
    for id_, title, request, rule, meaning, source, severity in (
        ("other-host", "A request for another host is refused",
         b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", "http://example.test:PORT",
         "another site behind the same front could be reached", "domain fronting", Severity.CRITICAL),
        ("two-hosts", "A request with two hosts is refused",
         b"GET / HTTP/1.1\r\nHost: example.test:PORT\r\nHost: evil.test\r\n\r\n",
         "http://example.test:PORT", "proxy and server could read different hosts",
         "RFC 9112 section 3.2", Severity.CRITICAL),
        ("absolute", "A request that names a host in its first line is refused inside a tunnel",
         b"GET http://evil.test/ HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n",
         "http://example.test:PORT", "proxy and server could read different hosts",
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
         "http://example.test:PORT", "nobody would check what follows",
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
        attempt=asked(
            tunnelled(b"DELETE / HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n"),
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
            attempt=asked(
                tunnelled(b"GET %b HTTP/1.1\r\nHost: example.test:PORT\r\n\r\n" % path),
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
            ("iis", b"/open/%u002e%u002e/closed"),
            ("overlong", b"/open/%c0%ae%c0%ae/closed"),
        )
    ),
)


def _later(first: bytes, second: bytes) -> Attempt:
    """Return an attempt to reach a second host on a connection that was permitted once."""

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
    """Return an attempt to use more than a budget; without the control, the budget is larger."""

    async def attempt(bench: Bench, guarded: bool) -> Observation:  # noqa: FBT001 - its protocol
        outside = await bench.outside()
        budgets = {name: least if guarded else most}
        policy = outside.policy("http://example.test:PORT", **budgets)
        answer = await outside.ask(policy, *absolute(b"example.test", outside), times=times)
        return Observation(breached=answer.arrived.count(b"GET / ") >= needed, saw=answer.why)

    return attempt


_REST: tuple[Check, ...] = (
    Trial(
        id="egress.http.second-host",
        group=Group.EGRESS,
        severity=Severity.CRITICAL,
        title="Each request on a kept-alive connection is checked",
        meaning="one permitted request would permit all that follow",
        source="CWE-441",
        control="every request is checked",
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
        title="A pipelined request is checked like any other",
        meaning="a forbidden request could follow a permitted one",
        source="RFC 9112 section 9.3.2",
        control="every request is checked",
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
        meaning="a forgotten policy would permit everything",
        source="CVE-2025-66479, OpenSandbox #751",
        control="default deny",
        attempt=asked(
            lambda outside: absolute(b"example.test", outside), (), ("http://example.test:PORT",)
        ),
    ),
)

CHECKS: tuple[Check, ...] = (*_HTTP, *_KEPT, *_REST)
