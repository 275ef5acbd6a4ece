"""How much a server may send, and who is charged for it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from runner.egress.share import MAX_LOOKUPS
from runner.egress.upstream import Timeouts
from tests.support.proxying import METHODS, OK, Way, absolute, in_process, inside, policy, recording

HOST = "example.test"


@asynccontextmanager
async def answered(folder: Path, answer: bytes, **budgets: int) -> AsyncIterator[tuple[Way, bytes]]:
    """Ask a server that answers like this; yield the way out and what came back."""
    async with recording(answer, keep=False) as server:
        given = policy(f"http://{HOST}:{server.port}", **budgets)
        async with in_process(folder, given) as way:
            heard = await way.say(
                b"GET http://%b:%d/ HTTP/1.1\r\nHost: %b:%d\r\n\r\n"
                % (HOST.encode(), server.port, HOST.encode(), server.port)
            )
            yield way, heard


@pytest.mark.parametrize(("number", "passes"), [(16, True), (17, False), (5000, False)])
async def test_interim_answers_are_bounded(tmp_path: Path, number: int, passes: bool) -> None:
    """The proxy gives up a server that goes on sending them."""
    async with answered(tmp_path, b"HTTP/1.1 103 \r\n\r\n" * number + OK) as (way, heard):
        assert heard.endswith(b"ok") is passes
        assert way.reasons == ([] if passes else ["unreachable"])
    if not passes:
        assert b"interim answers" in heard


@pytest.mark.parametrize(("number", "passes"), [(200, True), (15_000, False)])
@pytest.mark.parametrize("place", ["head", "trailer"])
async def test_fields_are_bounded(tmp_path: Path, place: str, number: int, passes: bool) -> None:
    """This holds for heads and trailers."""
    fields = b"a:\r\n" * number
    answer = {
        "head": b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 2\r\n\r\nok",
        "trailer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                   b"2\r\nok\r\n0\r\n" + fields + b"\r\n",
    }[place]  # fmt: skip
    async with answered(tmp_path, answer) as (way, _):
        pass
    assert way.reasons == ([] if passes else ["unreachable"])


async def test_a_clients_fields_are_bounded(tmp_path: Path) -> None:
    """The client is told that its fields are too large."""
    async with in_process(tmp_path, policy(f"http://{HOST}")) as way:
        fields = b"a:\r\n" * 15_000
        heard = await way.say(b"GET http://%b/ HTTP/1.1\r\n%b\r\n" % (HOST.encode(), fields))
    assert heard.startswith(b"HTTP/1.1 400")
    assert b"more than 256 lines" in heard


@pytest.mark.parametrize("size", [0, 1, 300, 100_000])
async def test_bodies_of_many_lines_are_not(tmp_path: Path, size: int) -> None:
    """Only heads and trailers have such a bound."""
    body = b"\n" * size + b"end"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with answered(tmp_path, answer) as (_, heard):
        assert heard.endswith(b"\r\n\r\n" + body)


async def test_what_servers_send_is_charged_though_the_program_gets_none_of_it(
    tmp_path: Path,
) -> None:
    """Extensions of chunks alone use up the budget; the control has a larger budget."""
    chunk = b"1;" + b"e" * 1000 + b"\r\nx\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 50 + b"0\r\n\r\n"
    for most, reasons in ((20_000, ["byte_budget"]), (200_000, [])):
        async with answered(tmp_path, answer, max_bytes=most) as (way, heard):
            assert way.reasons == reasons
    assert len(heard) < 20_000
    assert way.told[0].bytes_down >= 50_000


async def test_a_connection_whose_request_was_cut_off_is_not_used_again(tmp_path: Path) -> None:
    """A server that answers before it has read all would take the rest for the next request."""
    heads = []
    served: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.add(writer)
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server = await asyncio.start_server(serve, sock=listener, limit=4096)
    port = listener.getsockname()[1]
    size = 8 * 2**20
    async with server, in_process(tmp_path, policy(f"http://{HOST}:{port}")) as way:
        head = f"POST http://{HOST}:{port}/ HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
        async with way.connection() as (reader, writer):
            writer.write(f"{head}Content-Length: {size}\r\n\r\n".encode() + bytes(size))
            await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        await way.say(inside(HOST.encode(), port, b"http://%b:%d/" % (HOST.encode(), port)))
    for writer in served:
        writer.transport.abort()
    await asyncio.sleep(0)
    assert [each.split()[0] for each in heads] == [b"POST", b"GET"]


async def test_a_lookup_that_hangs_keeps_its_place(tmp_path: Path) -> None:
    """Its thread goes on when nobody waits for it any more, so it counts as the tenant's."""
    begun = 0

    async def hanging(_: str) -> Sequence[Any]:
        nonlocal begun
        begun += 1
        await asyncio.sleep(2)
        return [ip_address("127.0.0.1")]

    patience = Timeouts(lookup_s=0.1)
    async with in_process(
        tmp_path, policy("*.example.test"), lookup=hanging, timeouts=patience
    ) as way:
        asks = b"CONNECT a%d.example.test:443 HTTP/1.1\r\nHost: x\r\n\r\n"
        heard = await asyncio.gather(*(way.say(asks % at) for at in range(MAX_LOOKUPS + 4)))
    assert all(each.startswith(b"HTTP/1.1 403") for each in heard)
    assert way.reasons == ["lookup_failed"] * (MAX_LOOKUPS + 4)
    assert all(f"beyond {MAX_LOOKUPS} at once" in each.detail for each in way.told)
    assert begun == MAX_LOOKUPS


async def opened(reader: asyncio.StreamReader) -> bytes:
    """Return the head that answers a CONNECT."""
    return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)


async def test_a_connection_beyond_the_number_waits_for_its_turn(tmp_path: Path) -> None:
    """It waits in order. The control: nothing comes before one of the first has ended."""
    async with recording() as server:
        given = policy(f"tcp://{HOST}:{server.port}", max_concurrent=2)
        ask = b"CONNECT %b:%d HTTP/1.1\r\nHost: x\r\n\r\n" % (HOST.encode(), server.port)
        async with in_process(tmp_path, given) as way, AsyncExitStack() as stack:
            enter = stack.enter_async_context
            ends = [await enter(way.connection()) for _ in range(4)]
            for _, writer in ends:
                writer.write(ask)
            heard = [asyncio.create_task(opened(reader)) for reader, _ in ends]
            for number in range(2, 5):
                await asyncio.wait(heard[:number], timeout=10)
                await asyncio.sleep(0.05)
                assert [each.done() for each in heard] == [at < number for at in range(4)]
                ends[number - 2][1].close()
            assert {(await each)[:12] for each in heard} == {b"HTTP/1.1 200"}
        assert way.reasons == []


async def test_a_connection_that_is_kept_yields_its_place_to_who_waits(tmp_path: Path) -> None:
    """It yields between two requests. The control: it goes on if nobody waits."""
    host = HOST.encode()
    async with recording() as server:
        given = policy(f"http://{HOST}:{server.port}", max_concurrent=1)
        (ask,) = absolute(host, server.port)
        async with in_process(tmp_path, given) as way, way.connection() as (reader, writer):
            for _ in range(2):
                writer.write(ask)
                assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            waiting = asyncio.create_task(way.say(ask))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            writer.write(ask)
            assert (await reader.read()).endswith(b"ok")
            assert (await waiting).endswith(b"ok")


@pytest.mark.parametrize("method", ["connect", "http", "socks5"])
async def test_who_waits_too_long_is_told_which_limit_it_was(tmp_path: Path, method: str) -> None:
    """The refusal has the limit's name and value, in every protocol that can say so."""
    async with recording() as server:
        given = policy(f"http://{HOST}:{server.port}", max_concurrent=1)
        patience = Timeouts(place_s=0.2)
        async with in_process(tmp_path, given, timeouts=patience) as way, way.connection():
            await asyncio.sleep(0.05)
            heard = await way.say(*METHODS[method](HOST.encode(), server.port))
    assert way.reasons == ["too_many_at_once"]
    assert "has 1 open connection," in way.told[0].detail
    assert "max_concurrent" in way.told[0].detail
    if method == "socks5":
        assert heard == b"\x05\x00" + b"\x05\x02\x00\x01" + bytes(6)
    else:
        assert heard.startswith(b"HTTP/1.1 429 Refused by the egress proxy (too_many_at_once)")


async def test_a_refused_tunnel_says_why_in_its_status_line(tmp_path: Path) -> None:
    """A header says it, too, with the rule that would permit the tunnel."""
    async with in_process(tmp_path, policy(HOST)) as way:
        heard = await way.say(b"CONNECT other.test:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    line, *fields = heard.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert line.startswith("HTTP/1.1 403 Refused by the egress proxy (no_rule): no rule permits")
    assert line.endswith('egress: ["other.test"]')
    (said,) = [field for field in fields if field.lower().startswith("proxy-status:")]
    assert "other.test" in said
