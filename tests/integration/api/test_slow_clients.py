"""Clients that hold a connection for nothing are cut off, and others are served meanwhile."""

import asyncio
import functools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import psutil
import pytest
import uvicorn
from starlette.responses import Response

from runner.api.edge.connection import Patience, connections
from runner.api.edge.pace import LEAST_BYTES_PER_S
from tests.support import wire
from tests.support.deployment import NO_POOL, Deployment, deployment, eventually

CLIENT_S = 1.0
CONNECTIONS = 300
SLOW = 200
LATE_S = 4 * CLIENT_S
"""By then, a client that is cut off after `CLIENT_S` is gone, even on a busy machine."""


@pytest.fixture(scope="module")
def strict(image: None) -> Iterator[Deployment]:
    """Return a deployment with little patience."""
    with deployment(client_timeout_s=CLIENT_S, max_connections=CONNECTIONS, **NO_POOL) as made:
        yield made


def json_head(key: str, length: int) -> bytes:
    """Return the head of a submission."""
    return wire.head(
        "POST",
        "/v1/executions",
        Authorization=f"Bearer {key}",
        Content_Type="application/json",
        Content_Length=str(length),
    )


def until_closed(connection: socket.socket, drip: bytes = b"", every_s: float = 0.1) -> float:
    """Send `drip` repeatedly; return the seconds until the server closes the connection."""
    began = time.monotonic()
    connection.settimeout(every_s)
    while time.monotonic() - began < LATE_S:
        try:
            connection.sendall(drip)
            if connection.recv(65536) == b"":
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


def served(url: str) -> float:
    """Return how long a plain request takes."""
    began = time.monotonic()
    assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    return time.monotonic() - began


HEADS = {
    "nothing at all": (b"", b""),
    "half a head": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b""),
    "a head by the byte": (b"GET /healthz HTTP/1.1\r\nX: ", b"x"),
    "a head by the line": (b"GET /healthz HTTP/1.1\r\n", b"X: x\r\n"),
    "the next head by the byte": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET", b"x"),
    "a body nobody wants": (
        b"POST /v1/executions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100\r\n\r\n", b" ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_does_not_come_is_not_waited_for(name: str, strict: Deployment) -> None:
    """This holds however much trickles in."""
    first, drip = HEADS[name]
    with wire.connected(strict.url) as connection:
        connection.sendall(first)
        assert CLIENT_S * 0.5 < until_closed(connection, drip) < LATE_S


def test_half_a_head_is_answered_before_it_is_cut(strict: Deployment) -> None:
    """The answer is 408, as a problem document."""
    status, headers, _ = wire.exchange(strict.url, b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
    assert (status, headers["content-type"]) == (408, "application/problem+json")


@pytest.mark.parametrize("drip", [b"", b" "], ids=["paused", "by the byte"])
def test_a_slow_body_is_not_waited_for(drip: bytes, strict: Deployment) -> None:
    """It gets 408, even if it never pauses but comes too slowly."""
    with wire.connected(strict.url) as connection:
        connection.sendall(json_head(strict.key("slow"), 10_000))
        assert CLIENT_S * 0.5 < until_closed(connection, drip) < LATE_S
    with wire.connected(strict.url) as connection:
        connection.sendall(json_head(strict.key("slow"), 10_000))
        assert wire.answer(connection)[0] == 408


def test_a_body_above_the_least_rate_is_waited_for(strict: Deployment) -> None:
    """It takes longer than the patience with a pause, and arrives."""
    body = b'{"command": ["true"]}' + b" " * int(LEAST_BYTES_PER_S * CLIENT_S * 4)
    with wire.connected(strict.url) as connection:
        connection.sendall(json_head(strict.key("steady"), len(body)))
        for at in range(0, len(body), 512):
            connection.sendall(body[at : at + 512])
            time.sleep(CLIENT_S / 4)
        assert wire.answer(connection)[0] == 202


def test_two_hundred_slow_clients_keep_nobody_out(strict: Deployment) -> None:
    """This is Slowloris: others are served meanwhile, and soon these connections are gone."""
    api = psutil.Process(strict.stack.api.pid)
    with ExitStack() as open_:
        slow = [open_.enter_context(wire.connected(strict.url)) for _ in range(SLOW)]
        for connection in slow:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        eventually(lambda: len(api.net_connections()) > SLOW * 3 // 4, within_s=CLIENT_S)
        times = [served(strict.url) for _ in range(20)]
        assert max(times) < CLIENT_S
        eventually(lambda: len(api.net_connections()) < SLOW // 2, within_s=LATE_S)
        served(strict.url)


def test_silent_connections_above_the_bound_make_room(strict: Deployment) -> None:
    """The oldest is cut off at once; the newest is served, and so is one that keeps asking."""
    with ExitStack() as open_, httpx.Client(base_url=strict.url) as early:
        first = open_.enter_context(wire.connected(strict.url))
        for n in range(CONNECTIONS):
            open_.enter_context(wire.connected(strict.url))
            if n % 50 == 0:
                assert early.get("/healthz").status_code == 200
        assert until_closed(first) < CLIENT_S / 2
        assert wire.exchange(strict.url, wire.head("GET", "/healthz"))[0] == 200
        assert early.get("/healthz").status_code == 200


LARGE = Response(b"x" * 32 * 2**20)


@contextmanager
def serving(http: "type[asyncio.Protocol] | str") -> Iterator[tuple[str, uvicorn.Server]]:
    """Serve one large answer, by a connection of choice."""
    config = uvicorn.Config(LARGE, http=http, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=functools.partial(server.run, sockets=[listener]))
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", server
        finally:
            server.should_exit = server.force_exit = True
            thread.join(10)


CHEATS = {
    "an answer that is not read": wire.head("GET", "/"),
    "a head by the byte": b"GET / HTTP/1.1\r\nHost: x\r\nX: ",
}


@pytest.mark.parametrize("ours", [True, False], ids=["ours", "uvicorn's own"])
@pytest.mark.parametrize("name", CHEATS)
def test_uvicorn_alone_would_wait_without_end(name: str, ours: bool) -> None:
    """The control: the same client with the connection class that ours replaces."""
    http = connections(Patience(CLIENT_S, CONNECTIONS)) if ours else "h11"
    with serving(http) as (url, server), wire.connected(url) as connection:
        connection.sendall(CHEATS[name])
        eventually(lambda: server.server_state.connections, within_s=CLIENT_S)
        deadline = time.monotonic() + LATE_S
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.1)
        assert bool(server.server_state.connections) is not ours
