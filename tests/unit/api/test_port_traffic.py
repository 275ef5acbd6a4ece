"""Servers inside sandboxes that are hostile, and heads that must not pass in either direction."""

import asyncio
import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

import h11
import pytest

from runner.api.traffic import answered, asked
from runner.api.traffic.cookies import PortCookie
from runner.api.traffic.destination import Nowhere, PortAddresses, PortTarget
from runner.api.traffic.exchange import (
    MAX_HEAD_BYTES,
    MAX_INFORMATIONAL,
    MAX_PIECE_BYTES,
    TURN,
    Exchange,
    Unpassable,
)
from runner.words.errors import PortFault

SANDBOX = UUID("0199f2a1-c0de-7b1f-b0d5-a9c1e7a0f3d2")
PREFIX = f"/v1/sandboxes/{SANDBOX}/ports/8000".encode()
BY_PATH = PortTarget(SANDBOX, 8000, b"/", PREFIX, by_name=False)
BY_NAME = PortTarget(SANDBOX, 8000, b"/", b"", by_name=True)
COOKIE = PortCookie(secure=True)
ISSUER = "https://issuer.example"
OK = b"HTTP/1.1 200 OK\r\n"


class Hostile:
    """A connection whose server says this, in these pieces, whatever it hears."""

    def __init__(self, *said: bytes) -> None:
        self._said: Iterator[bytes] = iter(said)
        self.heard = b""
        self.reads = 0

    async def send(self, data: bytes) -> None:
        """Take what is sent."""
        self.heard += data

    async def receive(self) -> bytes:
        """Return the next piece; empty at the end."""
        self.reads += 1
        return next(self._said, b"")


def forever(piece: bytes) -> Iterator[bytes]:
    """Yield a piece without end."""
    while True:
        yield piece


async def exchanged(server: Any, method: str = "GET") -> tuple[h11.Response, bytes]:
    """Ask, and return the answer with its body."""
    exchange = Exchange(server)
    await exchange.ask(method, b"/", [(b"host", b"localhost")])
    await exchange.finish()
    answer = await exchange.answer()
    assert isinstance(answer, h11.Response)
    return answer, b"".join([piece async for piece in exchange.body()])


async def test_an_answer_is_read_in_each_of_its_forms() -> None:
    """The control: what is in order passes, in one piece or byte by byte."""
    for said, body in (
        (OK + b"Content-Length: 2\r\n\r\nhi and more that is not its", b"hi"),
        (OK + b"\r\nuntil the end", b"until the end"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * MAX_INFORMATIONAL + OK + b"\r\n", b""),
    ):
        assert (await exchanged(Hostile(said)))[1] == body
        assert (await exchanged(Hostile(*(bytes([each]) for each in said))))[1] == body
    assert (await exchanged(Hostile(OK + b"Content-Length: 9\r\n\r\n"), "HEAD"))[1] == b""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.7\r\n",
        OK + b"X: y",
        OK + b"X : y\r\n\r\n",
        OK + b"X: a\0b\r\n\r\n",
        OK + b"Content-Length: 3\r\n\r\nhi",
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffffffff\r\n",
        OK + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 999 Odd\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_INFORMATIONAL + 1) + OK + b"\r\n",
    ],
)
async def test_what_is_no_answer_is_a_fault_of_the_port(said: bytes) -> None:
    with pytest.raises(PortFault):
        await exchanged(Hostile(said))
    with pytest.raises(PortFault):
        await exchanged(Hostile(*(bytes([each]) for each in said)))


@pytest.mark.parametrize(
    "piece", [b"x" * 4096, b"HTTP/1.1 100 Continue\r\n\r\n", OK[:1] + b"\r\n" * 2048]
)
async def test_a_server_that_never_comes_to_the_point_is_not_read_for_ever(piece: bytes) -> None:
    server = Hostile()
    server._said = forever(piece)
    with pytest.raises(PortFault):
        await exchanged(server)
    assert server.reads <= MAX_HEAD_BYTES // len(piece) + MAX_INFORMATIONAL + 2


async def test_chunks_of_a_byte_each_do_not_keep_other_tasks_waiting() -> None:
    """They are passed on together, and another task runs while they are read."""
    chunks = 100_000
    said = OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n"
    server: Any = Hostile(said)
    exchange = Exchange(server)
    await exchange.ask("GET", b"/", [(b"host", b"localhost")])
    await exchange.finish()
    await exchange.answer()
    at_turns: list[int] = []
    read = 0
    next_event = exchange._http.next_event

    def counted() -> Any:
        nonlocal read
        read += 1
        return next_event()

    async def other() -> None:
        while True:
            at_turns.append(read)
            await asyncio.sleep(0)

    exchange._http.next_event = counted  # type: ignore[method-assign]
    beside = asyncio.create_task(other())
    pieces = [piece async for piece in exchange.body()]
    beside.cancel()
    assert b"".join(pieces) == b"x" * chunks
    assert len(pieces) <= 1 + chunks // MAX_PIECE_BYTES
    gaps = [after - before for before, after in pairwise(at_turns)]
    assert read >= chunks and len(gaps) >= read // TURN - 1 and max(gaps) <= TURN


async def test_a_large_answer_is_passed_on_before_its_end() -> None:
    """A piece is bounded, and what has come does not wait for what has not."""
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    exchange = Exchange(Hostile(OK + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 1024, chunk))  # type: ignore[arg-type]
    await exchange.ask("GET", b"/", [(b"host", b"localhost")])
    await exchange.finish()
    await exchange.answer()
    body = exchange.body()
    whole = 1024 * 1024 // MAX_PIECE_BYTES
    sizes = [len(await anext(body)) for _ in range(whole + 1)]
    assert sizes == [MAX_PIECE_BYTES] * whole + [1024]
    with pytest.raises(PortFault):
        await anext(body)


async def test_a_body_of_another_length_is_the_clients_fault() -> None:
    def exchange() -> Exchange:
        server: Any = Hostile()
        return Exchange(server)

    head = [(b"host", b"a"), (b"content-length", b"2")]
    longer = exchange()
    await longer.ask("POST", b"/", head)
    with pytest.raises(Unpassable):
        await longer.send(b"abc")
    shorter = exchange()
    await shorter.ask("POST", b"/", head)
    await shorter.send(b"a")
    with pytest.raises(Unpassable):
        await shorter.finish()


async def test_no_request_becomes_two() -> None:
    """No content of a client's head can end the head that goes inside."""
    for headers in ([(b"x", b"a\r\nb: c")], [(b"x\r\ny", b"")], [(b"host", b"a\n")]):
        server: Any = Hostile()
        with pytest.raises((Unpassable, h11.LocalProtocolError)):
            await Exchange(server).ask("GET", b"/", [(b"host", b"localhost"), *headers])
        assert server.heard == b""


def scope(**headers: str) -> dict[str, Any]:
    """Return the scope of a request with these headers."""
    given = [(name.lower().replace("_", "-").encode(), v.encode()) for name, v in headers.items()]
    return {
        "headers": given, "client": ("203.0.113.7", 1), "raw_path": b"/", "query_string": b"",
    }  # fmt: skip


def inside(target: PortTarget, **headers: str) -> dict[bytes, bytes]:
    """Return the head that goes inside."""
    return dict(asked.head(scope(host="api.example", **headers), target, COOKIE, ISSUER))


def jwt(**claims: str) -> str:
    """Return what looks like a token of an issuer."""
    parts = (json.dumps(each).encode() for each in ({"alg": "RS256"}, claims))
    return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts) + ".x"


def test_our_credentials_never_go_inside() -> None:
    """A control: those for the server inside do."""
    for ours in ("Bearer rk_a", "bearer  ro_b", f"Bearer {jwt(iss=ISSUER)}"):
        assert b"authorization" not in inside(BY_PATH, authorization=ours)
        assert b"authorization" not in inside(BY_NAME, authorization=ours)
    for theirs in ("Basic cmtfYQ==", "Bearer abc", f"Bearer {jwt(iss='https://inside')}"):
        assert inside(BY_PATH, authorization=theirs)[b"authorization"] == theirs.encode()
    cookies = (
        "a=1; __Host-runner_session=x; runner_session=x; __Host-runner_operator=x; "
        "runner_operator=x; __Host-runner_port=x; "
        "__Host-runner_sign_in=x; runner_sign_in=x; b=2"
    )
    assert b"cookie" not in inside(BY_PATH, cookie=cookies)
    assert inside(BY_NAME, cookie=cookies)[b"cookie"] == b"a=1; b=2"
    assert b"x-access-token" not in inside(BY_NAME, x_access_token="pt_x")  # noqa: S106


def test_who_calls_is_for_us_to_say() -> None:
    forged = {"x_forwarded_for": "1.1.1.1", "forwarded": "for=1.1.1.1", "x_real_ip": "1.1.1.1"}
    got = inside(BY_NAME, te="trailers", connection="x-mine, close", x_mine="1", **forged)
    assert got[b"x-forwarded-for"] == b"203.0.113.7"
    assert not {b"forwarded", b"x-real-ip", b"te", b"connection", b"x-mine"} & got.keys()


def test_no_connection_header_takes_what_delimits_a_request() -> None:
    got = inside(BY_PATH, connection="content-length, host, x-mine", content_length="3", x_mine="1")
    assert (got[b"content-length"], got[b"host"]) == (b"3", b"localhost:8000")
    assert b"x-mine" not in got
    both = inside(BY_PATH, content_length="3", transfer_encoding="chunked")
    assert b"content-length" not in both and both[b"transfer-encoding"] == b"chunked"


def out(target: PortTarget, *headers: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """Return the head that comes out."""
    return answered.head(h11.Response(status_code=200, headers=list(headers)), target, COOKIE)


def test_an_answer_acts_on_nothing_but_itself() -> None:
    acting = (
        ("Clear-Site-Data", '"*"'), ("Alt-Svc", 'h3=":1"'), ("NEL", "{}"), ("Report-To", "{}"),
        ("X-Accel-Redirect", "/etc"), ("Connection", "x-hop"), ("X-Hop", "1"), ("Upgrade", "h2c"),
    )  # fmt: skip
    for target in (BY_PATH, BY_NAME):
        names = {name for name, _ in out(target, *acting, ("X-Mine", "1"))}
        assert b"x-mine" in names
        assert not names & {name.lower().encode() for name, _ in acting}


def test_by_path_a_page_is_never_of_our_origin() -> None:
    given = (
        ("Content-Security-Policy", "sandbox allow-same-origin"), ("Set-Cookie", "a=b"),
        ("WWW-Authenticate", "Basic"), ("Service-Worker-Allowed", "/"),
        ("X-Content-Type-Options", "x"), ("Secure-Session-Registration", "x"), ("Set-Login", "x"),
        ("Use-As-Dictionary", "x"), ("Speculation-Rules", "x"), ("Strict-Transport-Security", "x"),
    )  # fmt: skip
    got = out(BY_PATH, *given)
    assert {name for name, _ in got} & {name.lower().encode() for name, _ in given} == {
        b"content-security-policy", b"x-content-type-options",
    }  # fmt: skip
    policies = [value for name, value in got if name == b"content-security-policy"]
    # Browsers obey all policies: ours takes what the other one would permit.
    assert len(policies) == 2 and b"allow-same-origin" not in policies[-1]
    assert [value for name, value in got if name == b"x-content-type-options"] == [b"nosniff"]


def test_by_path_an_answer_of_101_holds_only_what_the_new_protocol_needs() -> None:
    given = (
        ("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", "x"),
        ("Sec-WebSocket-Protocol", "hmr"), ("Strict-Transport-Security", "max-age=1"),
        ("Set-Cookie", "a=b"), ("Set-Login", "x"),
    )  # fmt: skip
    answer = h11.InformationalResponse(status_code=101, headers=list(given))
    by_path = answered.switching(answer, COOKIE, by_name=False)
    assert sorted(name for name, _ in by_path) == [
        b"connection", b"sec-websocket-accept", b"sec-websocket-protocol", b"upgrade",
    ]  # fmt: skip
    by_name = dict(answered.switching(answer, COOKIE, by_name=True))
    assert by_name[b"set-cookie"] == b"a=b"


def test_cookies_stay_with_their_host_and_none_is_ours() -> None:
    given = (
        ("Set-Cookie", "a=b; DOMAIN = .ports.example ; Secure"), ("Set-Cookie", "c=d; Path=/"),
        ("Set-Cookie", "__Host-runner_port=x; Path=/; Secure"), ("Set-Cookie", "runner_session=x"),
    )  # fmt: skip
    got = [value for name, value in out(BY_NAME, *given) if name == b"set-cookie"]
    assert got == [b"a=b; Secure", b"c=d; Path=/"]


def test_a_length_beside_chunks_is_none() -> None:
    names = {name for name, _ in out(BY_NAME, ("Transfer-Encoding", "chunked"))}
    assert b"transfer-encoding" not in names
    both = (("Transfer-Encoding", "chunked"), ("Content-Length", "5"))
    given = h11.Response(status_code=200, headers=list(both))
    assert b"content-length" not in {n for n, _ in answered.head(given, BY_NAME, COOKIE)}


@pytest.mark.parametrize(
    ("said", "led"),
    [
        ("/a", PREFIX + b"/a"),
        ("http://localhost:8000/a", PREFIX + b"/a"),
        ("http://127.0.0.1:8000", PREFIX + b"/"),
        ("http://localhost:80001/a", b"http://localhost:80001/a"),
        ("//elsewhere.example", b"//elsewhere.example"),
        ("https://elsewhere.example/", b"https://elsewhere.example/"),
        ("a?b", b"a?b"),
    ],
)
def test_by_path_a_redirection_stays_below_the_port(said: str, led: bytes) -> None:
    assert (b"location", led) in out(BY_PATH, ("Location", said))
    assert (b"location", said.encode()) in out(BY_NAME, ("Location", said))


def found(host: str, path: str = "/x", domain: str | None = "ports.example") -> PortTarget | None:
    """Return what a request is for."""
    head = {**scope(host=host), "raw_path": path.encode(), "query_string": b"q=%20"}
    return PortAddresses(domain).find(head)


def test_a_port_is_found_by_its_name_or_path() -> None:
    name = f"8000-{SANDBOX}.ports.example"
    for host in (name, name.upper(), f"{name}:8443", f"{name}."):
        target = found(host)
        assert target is not None and target.by_name
        assert (target.sandbox_id, target.port, target.target) == (SANDBOX, 8000, b"/x?q=%20")
    assert len(name.split(".", maxsplit=1)[0]) <= 63
    assert found(name, domain=None) is None
    assert found("api.example") is None and found("xports.example") is None
    target = found("api.example", f"{PREFIX.decode()}/a%2Fb")
    assert target is not None and (target.target, target.prefix) == (b"/a%2Fb?q=%20", PREFIX)
    assert found("api.example", PREFIX.decode()) is None


@pytest.mark.parametrize(
    ("query", "asked_inside", "token"),
    [
        ("a=1&runner_token=pt_x&b=%20", "/?a=1&b=%20", "pt_x"),
        ("runner%5Ftoken=pt_x", "/", "pt_x"),
        ("runner_token=pt_x&runner%5ftoken=pt_y", "/", "pt_y"),
        ("runner_token&a", "/?a", None),
        ("a=1&a=2&&" + "b&" * 1000, "/?a=1&a=2&&" + "b&" * 1000, None),
        ("xrunner_token=1", "/?xrunner_token=1", None),
    ],
)
def test_a_token_in_the_query_never_goes_inside(
    query: str, asked_inside: str, token: str | None
) -> None:
    """By its decoded name, whoever calls; the rest of the query stays as it is."""
    by_path = {**scope(host="api.example"), "raw_path": PREFIX + b"/"}
    by_name = {**scope(host=f"8000-{SANDBOX}.ports.example"), "raw_path": b"/"}
    for head in (by_path, by_name):
        target = PortAddresses("ports.example").find({**head, "query_string": query.encode()})
        assert target is not None
        assert (target.target, target.token) == (asked_inside.encode(), token)


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("ports.example", "/"), ("x.ports.example", "/v1/sandboxes"),
        (f"0-{SANDBOX}.ports.example", "/"), (f"65536-{SANDBOX}.ports.example", "/"),
        (f"08000-{SANDBOX}.ports.example", "/"), (f"a.8000-{SANDBOX}.ports.example", "/"),
        (f"8000-{SANDBOX}.ports.example", "http://x/"), ("api.example", "/v1/sandboxes/x/ports/1/"),
        ("api.example", f"/v1/sandboxes/{SANDBOX}/ports/x/"),
    ],
)  # fmt: skip
def test_what_names_no_port_is_nowhere(host: str, path: str) -> None:
    with pytest.raises(Nowhere):
        found(host, path)
