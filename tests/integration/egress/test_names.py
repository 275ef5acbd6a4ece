"""Names by which somebody might reach a host that is not permitted, by every method and rule."""

from pathlib import Path

import pytest

from runner.egress.gateway import EgressGateway
from runner.egress.session import MAX_TEXT
from tests.support.proxying import METHODS, connect, inside, recording, way_out

pytestmark = pytest.mark.asyncio(loop_scope="package")

RULES = {"exact": "example.test", "wildcard": "*.example.test"}

NEVER = {
    "nul": b"www.example.test\x00.evil",
    "nul at the end": b"www.example.test\x00",
    "percent nul": b"www.example.test%00.evil",
    "percent dot": b"www%2eexample.test",
    "newline": b"www.example.test\nX: y",
    "carriage return": b"www.example.test\r\nX: y",
    "tab": b"www.example.test\t",
    "space": b"evil.test .example.test",
    "escape": b"\x1b[2J.example.test",
    "delete": b"www\x7f.example.test",
    "backslash": b"evilexample.test\\.example.test",
    "slash": b"evilexample.test/.example.test",
    "question": b"evilexample.test?.example.test",
    "fragment": b"evilexample.test#.example.test",
    "user": b"www.example.test@evilexample.test",
    "user and password": b"www.example.test:x@evilexample.test",
    "brackets": b"[www.example.test]",
    "half brackets": b"[::1",
    "comma": b"www.example.test,evilexample.test",
    "semicolon": b"www.example.test;evilexample.test",
    "two dots": b"www..example.test",
    "leading dot": b".example.test",
    "two trailing dots": b"www.example.test..",
    "only a dot": b".",
    "empty": b"",
    "star": b"*.example.test",
    "long label": b"a" * 64 + b".example.test",
    "long name": b"a." * 120 + b"example.test",
    "leading hyphen": b"-a.example.test",
    "full-width dot": "www。example。test".encode(),
    "full-width letter": "\uff57ww.example.test".encode(),
    "umlaut, undecoded": "bücher.example.test".encode(),
    "latin-1": b"b\xfccher.example.test",
    "soft hyphen": "www.exam\u00adple.test".encode(),
    "zero width": "www.example.test\u200b".encode(),
    "broken punycode": b"xn--a.example.test",
    "empty punycode": b"xn--.example.test",
    "prefix": b"evilexample.test",
    "suffix": b"example.test.evil",
    "another": b"other.test",
    "parent": b"test",
    "dotted": b"127.0.0.1",
    "dotted, dot": b"127.0.0.1.",
    "decimal": b"2130706433",
    "hex": b"0x7f000001",
    "hex part": b"0x7f.0.0.1",
    "octal": b"0177.0.0.1",
    "leading zeros": b"127.000.000.001",
    "short": b"127.1",
    "zero": b"0",
    "unspecified": b"0.0.0.0",
    "overflowing": b"256.256.256.256",
    "loopback 6": b"[::1]",
    "mapped": b"[::ffff:127.0.0.1]",
    "mapped in hex": b"[::ffff:7f00:1]",
    "NAT64": b"[64:ff9b::7f00:1]",
    "6to4": b"[2002:7f00:1::]",
    "zone": b"[fe80::1%25lo]",
    "bare IPv6": b"::1",
    "local name": b"localhost",
}

SAME = {
    "exact": (b"example.test", b"EXAMPLE.test", b"example.test.", b"eXaMpLe.TeSt."),
    "wildcard": (b"www.example.test", b"WWW.Example.test", b"www.EXAMPLE.test."),
}


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", NEVER)
async def test_another_host_is_not_reached(
    proxy: EgressGateway, tmp_path: Path, spelling: str, method: str, kind: str
) -> None:
    """The server receives nothing; the refusal is recorded in printable characters."""
    async with recording() as server:
        rule = f"http://{RULES[kind]}:{server.port}"
        async with way_out(proxy, tmp_path, rule) as way:
            heard = await way.say(*METHODS[method](NEVER[spelling], server.port))
        assert bytes(server.arrived) == b""
    assert b"HTTP/1.1 200" not in heard
    assert way.reasons, "no record"
    assert all(each.outcome == "denied" for each in way.told)
    assert all(each.host.isprintable() and each.detail.isprintable() for each in way.told)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", SAME)
async def test_every_spelling_of_the_permitted_host_is_one_name(
    proxy: EgressGateway, tmp_path: Path, kind: str, method: str
) -> None:
    """It is reached; the server and the record get the same spelling."""
    for host in SAME[kind]:
        name = host.lower().rstrip(b".")
        async with recording() as server:
            rule = f"http://{RULES[kind]}:{server.port}"
            async with way_out(proxy, tmp_path, rule) as way:
                heard = await way.say(*METHODS[method](host, server.port))
            assert heard.endswith(b"ok"), host
            assert b"\r\nHost: %b:%d\r\n" % (name, server.port) in server.arrived
        assert {each.host for each in way.told} == {name.decode()}


@pytest.mark.parametrize("method", METHODS)
async def test_the_apex_is_not_below_itself(
    proxy: EgressGateway, tmp_path: Path, method: str
) -> None:
    """Nor is a name below an exact rule."""
    for kind, host in (("wildcard", b"example.test"), ("exact", b"www.example.test")):
        async with recording() as server:
            rule = f"http://{RULES[kind]}:{server.port}"
            async with way_out(proxy, tmp_path, rule) as way:
                await way.say(*METHODS[method](host, server.port))
            assert bytes(server.arrived) == b""
        assert way.reasons == ["no_rule"]


@pytest.mark.parametrize("method", METHODS)
async def test_an_international_name_is_asked_for_by_its_a_label(
    proxy: EgressGateway, tmp_path: Path, method: str
) -> None:
    """Upper and lower case count the same."""
    for host in (b"xn--bcher-kva.test", b"XN--Bcher-KVA.test"):
        async with recording() as server:
            rule = f"http://bücher.test:{server.port}"
            async with way_out(proxy, tmp_path, rule) as way:
                heard = await way.say(*METHODS[method](host, server.port))
        assert heard.endswith(b"ok")


@pytest.mark.parametrize(
    "target", ["{0}:{1}:{1}", "{0}:{1},{1}", "{0}:0{1}x", "{0}:-{1}", "{0}:+{1}", "{0}:",
                  "{0}:0", "{0}:65536", "{0}:99999999", "{0}: {1}", "{0}:{1}/", "{0}", ":{1}", ""]
)  # fmt: skip
async def test_a_port_is_one_number(proxy: EgressGateway, tmp_path: Path, target: str) -> None:
    """A CONNECT request must have one."""
    async with recording() as server:
        rule = f"http://example.test:{server.port}"
        named = target.format("example.test", server.port).encode()
        async with way_out(proxy, tmp_path, rule) as way:
            heard = await way.say(
                b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\n" % named,
                inside(b"example.test", server.port),
            )
        assert bytes(server.arrived) == b""
    assert heard.startswith((b"HTTP/1.1 400", b"HTTP/1.1 403"))
    assert len(way.reasons) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_another_port_is_another_rule(
    proxy: EgressGateway, tmp_path: Path, method: str
) -> None:
    """A rule permits only its own port."""
    async with recording() as server, recording() as beside:
        rule = f"http://example.test:{server.port}"
        async with way_out(proxy, tmp_path, rule) as way:
            await way.say(*METHODS[method](b"example.test", beside.port))
        assert bytes(beside.arrived) == b""
    assert way.reasons == ["no_rule"]


async def test_a_refused_tunnel_says_what_is_needed(proxy: EgressGateway, tmp_path: Path) -> None:
    """The page that the agent can read says it."""
    async with way_out(proxy, tmp_path, "example.test") as way:
        heard = await way.say(*connect(b"other.test", 443))
    assert heard.startswith(b"HTTP/1.1 403")
    assert b'egress: ["other.test"]' in heard


@pytest.mark.parametrize("length", [300, 20_000, 60_000])
@pytest.mark.parametrize("filler", [b"a", b'"', b"\x00"])
async def test_what_the_proxy_tells_is_bounded(
    proxy: EgressGateway, tmp_path: Path, length: int, filler: bytes
) -> None:
    """A name, a method or a malformed line may be of any length; the proxy still reports it.

    What is stored of it is shorter, but it is cut only after secrets have been masked.
    """
    noise = filler * length
    for said in (
        b"CONNECT %b:443 HTTP/1.1\r\nHost: x\r\n\r\n" % noise,
        b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (noise, noise),
        b"%b http://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n" % noise,
        b"GET http://example.test/ HTTP/1.1\r\nHost: example.test\r\nX %b\r\n\r\n" % noise,
    ):
        async with way_out(proxy, tmp_path, {"host": "example.test", "scheme": "http",
                                             "methods": ["PUT"]}) as way:  # fmt: skip
            await way.say(said)
        assert len(way.told) == 1
        assert len(way.told[0].host) <= MAX_TEXT
        assert len(way.told[0].detail) <= MAX_TEXT
