"""Tunnels, by CONNECT or SOCKS5. The rule of a tunnel says what it may carry."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from time import monotonic

import h11

from runner.egress.clienthello import BadHello, Hello, parse
from runner.egress.decide import Denied, Target
from runner.egress.http import HttpProxy, Peer
from runner.egress.session import Asked, Meter, ProxySession
from runner.egress.streams import Connection, Stream, Tls
from runner.egress.upstream import Outside
from runner.network.names import BadName, normalise

Accept = Callable[[], Awaitable[None]]


async def serve_tunnel(
    client: Connection,
    session: ProxySession,
    outside: Outside,
    meter: Meter,
    asked: Asked,
    accept: Accept,
) -> None:
    """Decide, tell the client that the tunnel is open, and carry what the rule permits.

    Raises Denied before `accept`, so that the caller can tell the client why. Afterwards, a client
    cannot be told any more: its connection is cut.
    """
    target = await outside.decide(session, "tunnel", asked.host, asked.port)
    asked.host = target.host
    if target.scheme == "http":
        await accept()
        peer = Peer(client, h11.SERVER, session.share)
        await HttpProxy(peer, session, outside, meter, method=asked.method, inside=target).serve()
    elif target.scheme == "https" and target.intercepts:
        await accept()
        await _serve_inside_tls(client, session, outside, meter, asked, target)
    else:
        await _carry(client, session, outside, meter, asked, target, accept)


async def _serve_inside_tls(
    client: Connection,
    session: ProxySession,
    outside: Outside,
    meter: Meter,
    asked: Asked,
    target: Target,
) -> None:
    try:
        client.put_back(await _checked_hello(client, outside, target))
        inside = Tls(client, outside.leaves.context(target.host))
        async with asyncio.timeout(outside.timeouts.head_s):
            await inside.handshake()
    except Denied as why:
        session.deny(asked, why)
        return
    except ssl.SSLError as error:
        untrusted = Denied(
            "interception_refused",
            f"the client does not trust the proxy's certificate for {target.host}: {error.reason}",
            rule=target.rules[0],
        )
        session.deny(asked, untrusted)
        return
    await HttpProxy(
        Peer(inside, h11.SERVER, session.share),
        session,
        outside,
        meter,
        method=asked.method,
        inside=target,
        encrypted=True,
    ).serve()


async def _carry(
    client: Connection,
    session: ProxySession,
    outside: Outside,
    meter: Meter,
    asked: Asked,
    target: Target,
    accept: Accept,
) -> None:
    server, address = await outside.connect(session, meter, target, tls=False)
    try:
        await accept()
        if target.scheme == "https":
            await server.send(await _checked_hello(client, outside, target))
        await _relay(session, client, server, outside.timeouts.idle_s)
    except Denied as why:
        why.address = address
        session.deny(asked, why)
    except (OSError, EOFError, asyncio.CancelledError):
        # The client hung up, or the execution ended: record what it carried all the same.
        session.allow(asked, address, target.rules[0], "a tunnel: cut")
        raise
    else:
        session.allow(asked, address, target.rules[0], "a tunnel")
    finally:
        server.cut()


async def _checked_hello(client: Connection, outside: Outside, target: Target) -> bytes:
    """Return the first bytes of TLS once they name the host that was decided on."""
    try:
        async with asyncio.timeout(outside.timeouts.head_s):
            read, hello = await _hello(client)
        name = normalise(hello.server_name) if hello.server_name else None
    except (BadHello, BadName, TimeoutError) as error:
        detail = str(error) or "no TLS in time"
        raise Denied("not_tls", f"{target.host}: {detail}", rule=target.rules[0]) from None
    if hello.encrypted:
        raise Denied(
            "ech", f"{target.host}: an encrypted ClientHello hides its host", rule=target.rules[0]
        )
    if name != target.host:
        raise Denied(
            "sni_mismatch",
            f"a tunnel to {target.host} asks for {name or 'no host'} inside TLS",
            rule=target.rules[0],
        )
    return read


async def _hello(client: Connection) -> tuple[bytes, Hello]:
    read = b""
    while (hello := parse(read)) is None:
        if not (data := await client.receive()):
            raise BadHello("the connection ended before TLS began")
        read += data
    return read, hello


async def _relay(session: ProxySession, client: Stream, server: Stream, idle_s: float) -> None:
    """Carry both directions until both have ended, or until neither has moved for `idle_s`."""
    moved = monotonic()

    async def carry(source: Stream, sink: Stream) -> None:
        nonlocal moved
        while True:
            try:
                data = await source.receive()
            except TimeoutError:
                # This direction is silent, but the other one may still carry bytes.
                if monotonic() - moved < idle_s:
                    continue
                raise
            moved = monotonic()
            if not data:
                await sink.end()
                return
            await sink.send(data)

    ways = [
        session.share.start(carry(client, server)),
        session.share.start(carry(server, client)),
    ]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for way in ways:
            way.cancel()
        results = await asyncio.gather(*ways, return_exceptions=True)
    for result in results:
        if isinstance(result, Denied):
            raise result
