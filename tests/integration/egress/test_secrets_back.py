"""A secret that the proxy sets does not come back, whoever answers and however."""

import gzip
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from runner.egress.gateway import EgressGateway
from tests.support.proxying import Server, Way, recording, way_out
from tests.support.upstreams import Authority

pytestmark = pytest.mark.asyncio(loop_scope="package")

TOKEN = "Canary-7Fd2.x9Qm"  # noqa: S105 - made up, and searched for
HOST, OTHER = "example.test", "other.test"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n"


def whole(body: bytes, *fields: bytes) -> bytes:
    """Return an answer."""
    return HEAD % len(body) + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def trailing() -> bytes:
    """Return an answer with the secret in its trailer."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"2\r\nok\r\n0\r\nX: " + SECRET + b"\r\n\r\n"


def chunked(*pieces: bytes) -> bytes:
    """Return an answer in chunks."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + chunks + b"0\r\n\r\n"


SECRET = TOKEN.encode()
TEXT = b'{"Authorization": "Bearer ' + SECRET + b'"}'
ANSWERS = {
    "body": whole(TEXT),
    "body in chunks": chunked(TEXT[:30], TEXT[30:]),
    "field": whole(b"ok", b"X-Echo: " + SECRET),
    "field name": whole(b"ok", SECRET + b": 1"),
    "field name in lower case": whole(b"ok", SECRET.lower() + b": 1"),
    "reason": b"HTTP/1.1 200 " + SECRET + b"\r\nContent-Length: 2\r\n\r\nok",
    "interim": b"HTTP/1.1 103 Early\r\nX: " + SECRET + b"\r\n\r\n" + whole(b"ok"),
    "trailer": trailing(),
    "malformed field": whole(b"ok", SECRET + b" : 1"),
    "malformed status": b"HTTP/1.1 " + SECRET + b"\r\n\r\n",
    "gzip, declared": whole(gzip.compress(TEXT), b"Content-Encoding: gzip"),
    "gzip": whole(gzip.compress(TEXT)),
    "gzip in pieces": chunked(*(gzip.compress(TEXT)[at : at + 1] for at in range(60))),
    "gzip, second member": whole(gzip.compress(b"first") + gzip.compress(TEXT)),
    "gzip, past a slice": whole(gzip.compress(b"x" * 65_530 + TEXT)),
    "zlib": whole(zlib.compress(TEXT)),
}


def leaks(heard: bytes) -> bool:
    """Return whether the secret can be read in what came back."""
    pieces = heard.partition(b"\r\n\r\n")[2]
    if b"chunked" in heard:
        pieces = b"".join(pieces.split(b"\r\n")[1::2])
    if SECRET.lower() in heard.lower() or SECRET in pieces:
        return True
    while pieces:
        unpacker = zlib.decompressobj(47)
        try:
            if SECRET in unpacker.decompress(pieces):
                return True
        except zlib.error:
            return False
        pieces = unpacker.unused_data
    return False


Ask = Callable[[EgressGateway, Way, Server], Awaitable[bytes]]


def tls(host: str, path: str) -> Ask:
    """Return how to ask a host over TLS."""

    async def ask(proxy: EgressGateway, way: Way, server: Server) -> bytes:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{server.port}\r\n\r\n".encode()
        return await way.say_inside_tls(host, server.port, proxy.ca_pem, request)

    return ask


async def plain(proxy: EgressGateway, way: Way, server: Server) -> bytes:
    """Ask the other host over plain HTTP."""
    where = b"%b:%d" % (OTHER.encode(), server.port)
    return await way.say(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (where, where))


INJECT = {"header": "Authorization", "secret": "token", "prefix": "Bearer "}
WAYS: dict[str, tuple[dict[str, Any], Ask]] = {
    "the rule that sets it": ({"host": HOST, "methods": ["GET"]}, tls(HOST, "/set/")),
    "another rule of the host": ({"host": HOST, "path_prefix": "/free/"}, tls(HOST, "/free/")),
    "another port of the host": ({"host": HOST}, tls(HOST, "/")),
    "another host by TLS": ({"host": OTHER, "methods": ["GET"]}, tls(OTHER, "/")),
    "another host by HTTP": ({"host": OTHER, "scheme": "http"}, plain),
}


def rules(way: str, port: int, *, sets: bool) -> list[dict[str, Any]]:
    """Return the rule for the request, and one that sets the secret somewhere."""
    asked = {**WAYS[way][0], "port": port}
    elsewhere = 443 if way == "another port of the host" else port
    setting = {"host": HOST, "port": elsewhere, "path_prefix": "/set/", "inject": INJECT}
    return [asked, setting] if sets else [asked]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answer", ANSWERS)
async def test_no_answer_brings_it_back(
    proxy: EgressGateway, authority: Authority, tmp_path: Path, answer: str, way: str
) -> None:
    """The proxy masks it where it can read the answer, and refuses the answer where it cannot."""
    encrypted = authority.context(HOST, OTHER) if WAYS[way][1] is not plain else None
    async with recording(ANSWERS[answer], tls=encrypted, keep=False) as server:
        given = rules(way, server.port, sets=True)
        async with way_out(proxy, tmp_path, *given, values={"token": TOKEN}) as out:
            heard = await WAYS[way][1](proxy, out, server)
    assert heard.startswith(b"HTTP/1.1 "), "no answer at all"
    assert server.arrived, "the server was not asked"
    assert not leaks(heard)
    assert not any(TOKEN in each.detail for each in out.told)


@pytest.mark.parametrize("answer", sorted(set(ANSWERS) - {"interim", "trailer"}))
async def test_without_a_rule_that_sets_it_the_same_answer_is_passed_on(
    proxy: EgressGateway, tmp_path: Path, answer: str
) -> None:
    """The control: these answers hold the secret. Interim ones and trailers never pass."""
    async with recording(ANSWERS[answer], keep=False) as server:
        given = rules("another host by HTTP", server.port, sets=False)
        async with way_out(proxy, tmp_path, *given) as out:
            heard = await plain(proxy, out, server)
    assert leaks(heard)


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"a package" * 99), zlib.compress(b"text"), b"\x1f\x8b\x08 no gzip", b"x\x9cy",
     gzip.compress(b"cut off" * 99)[:-9], gzip.compress(b"a" * 100_000) + bytes(512)],
    ids=["gzip", "zlib", "no gzip", "no zlib", "cut off", "padded"],
)  # fmt: skip
async def test_what_holds_no_secret_is_passed_on_as_it_is(
    proxy: EgressGateway, authority: Authority, tmp_path: Path, body: bytes
) -> None:
    """It may be packed or only seem so: a private registry serves packages in this way."""
    way = "the rule that sets it"
    async with recording(whole(body), tls=authority.context(HOST, OTHER), keep=False) as server:
        given = rules(way, server.port, sets=True)
        async with way_out(proxy, tmp_path, *given, values={"token": TOKEN}) as out:
            heard = await WAYS[way][1](proxy, out, server)
    assert heard.partition(b"\r\n\r\n")[2] == body


async def test_what_unpacks_without_end_is_refused(
    proxy: EgressGateway, authority: Authority, tmp_path: Path
) -> None:
    """Looking into it would cost more than sending it."""
    way = "the rule that sets it"
    bomb = whole(gzip.compress(bytes(64 * 2**20)))
    async with recording(bomb, tls=authority.context(HOST, OTHER), keep=False) as server:
        given = rules(way, server.port, sets=True)
        async with way_out(proxy, tmp_path, *given, values={"token": TOKEN}) as out:
            await WAYS[way][1](proxy, out, server)
    assert out.reasons == ["packed_answer"]


async def test_whole_answers_are_asked_for_from_every_host(
    proxy: EgressGateway, tmp_path: Path
) -> None:
    """Parts and packed forms could not be masked; without a secret, the client chooses."""
    asked = b"Range: bytes=0-3\r\nIf-Range: x\r\nAccept-Encoding: gzip\r\n\r\n"
    arrived = []
    for sets in (True, False):
        async with recording() as server:
            given = rules("another host by HTTP", server.port, sets=sets)
            async with way_out(proxy, tmp_path, *given, values={"token": TOKEN}) as out:
                where = b"%b:%d" % (OTHER.encode(), server.port)
                await out.say(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n%b" % (where, where, asked))
        arrived.append(bytes(server.arrived).lower())
    assert b"range" not in arrived[0]
    assert b"accept-encoding: identity" in arrived[0]
    assert b"range: bytes=0-3" in arrived[1]
    assert b"accept-encoding: gzip" in arrived[1]


async def test_tcp_to_a_host_that_is_sent_a_secret_is_refused(
    proxy: EgressGateway, tmp_path: Path
) -> None:
    """Nothing that it sends there could be masked; the control is the same without the secret."""
    for sets, reasons in ((True, ["not_looked_into"]), (False, [])):
        async with recording() as server:
            tcp = {"host": HOST, "scheme": "tcp", "port": server.port}
            setting = {"host": HOST, "inject": INJECT}
            given = [tcp, setting] if sets else [tcp]
            async with way_out(proxy, tmp_path, *given, values={"token": TOKEN}) as out:
                await out.say(b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n"
                              % (HOST.encode(), server.port), b"\r\n\r\n")  # fmt: skip
        assert out.reasons == reasons
        assert bool(server.arrived) is not sets
