"""One connection of a sandbox, from its first byte: HTTP or SOCKS5."""

import asyncio
import socket
import ssl

import h11
import structlog

from runner.egress.decide import Denied
from runner.egress.http import HttpProxy, Peer, Refusing
from runner.egress.requests import split_authority
from runner.egress.session import Asked, Meter, ProxySession
from runner.egress.socks import VERSION, serve_socks
from runner.egress.streams import Connection
from runner.egress.tunnel import serve_tunnel
from runner.egress.upstream import Outside

_log = structlog.get_logger("runner.egress")


async def serve_connection(
    session: ProxySession,
    outside: Outside,
    link: socket.socket,
) -> None:
    """Serve a connection until it ends, and close it."""
    meter = Meter(session)
    client = Connection(link, session.share, idle_s=outside.timeouts.idle_s, count=meter.count)
    refusal: Denied | None = None
    entered = False
    try:
        try:
            await session.enter(outside.timeouts.place_s)
            entered = True
        except Denied as why:
            refusal = why
            if session.crowded:
                raise
        async with asyncio.timeout(outside.timeouts.head_s):
            first = await client.receive()
        client.put_back(first)
        if first[:1] == bytes([VERSION]):
            await serve_socks(client, session, outside, meter, refusal)
        elif first:
            await _serve_http(client, session, outside, meter, refusal)
    except Denied as why:
        session.deny(Asked("connect", "", 0, meter=meter), why)
    except (OSError, EOFError, TimeoutError, ssl.SSLError, Refusing, h11.ProtocolError) as error:
        _log.debug("connection_ended", session=session.id, why=type(error).__name__)
    except Exception as error:
        session.fail(meter.asked or Asked("connect", "", 0, meter=meter), error)
        raise
    finally:
        session.leave(entered=entered)
        client.cut()


async def _serve_http(
    client: Connection,
    session: ProxySession,
    outside: Outside,
    meter: Meter,
    refusal: Denied | None,
) -> None:
    peer = Peer(client, h11.SERVER, session.share)
    proxy = HttpProxy(peer, session, outside, meter, method="http")
    if refusal is not None:
        await proxy.refuse(Asked("http", "", 0, meter=meter), refusal)
    request = await proxy.serve()
    if request is None:
        return
    asked = Asked("connect", "", 0, meter=meter)

    async def accept() -> None:
        await peer.send(h11.Response(status_code=200, headers=[], reason=b"Connection established"))
        client.put_back(peer.unread)

    try:
        asked.host, asked.port = split_authority(request.target.decode("ascii"), None)
        await serve_tunnel(client, session, outside, meter, asked, accept)
    except Denied as why:
        await proxy.refuse(asked, why)
