"""SOCKS5 (RFC 1928) as far as it makes tunnels: CONNECT, without authentication."""

import asyncio
import ipaddress

from runner.egress.decide import Denied
from runner.egress.session import Asked, Meter, ProxySession
from runner.egress.streams import Connection
from runner.egress.tunnel import serve_tunnel
from runner.egress.upstream import Outside, Unreachable

VERSION = 5
_NO_AUTHENTICATION = 0
_NO_METHOD = 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_GRANTED, _NOT_ALLOWED, _UNREACHABLE, _BAD_COMMAND, _BAD_ADDRESS = 0, 2, 4, 7, 8


class _Reader:
    """Reads exact numbers of bytes, and leaves the rest for the next reader."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    async def take(self, size: int) -> bytes:
        taken = b""
        while len(taken) < size:
            data = await self._client.receive()
            if not data:
                raise ConnectionAbortedError("the client went away")
            taken += data
        self._client.put_back(taken[size:])
        return taken[:size]


async def serve_socks(
    client: Connection,
    session: ProxySession,
    outside: Outside,
    meter: Meter,
    refusal: Denied | None = None,
) -> None:
    """Serve one connection; with a `refusal`, refuse whatever it asks for."""
    asked = Asked("socks5", "", 0, meter=meter)

    async def reply(code: int) -> None:
        await client.send(bytes([VERSION, code, 0, _IPV4]) + bytes(6))

    async def accept() -> None:
        await reply(_GRANTED)

    try:
        async with asyncio.timeout(outside.timeouts.head_s):
            asked.host, asked.port = await _negotiate(client)
        if refusal is not None:
            raise refusal
        await serve_tunnel(client, session, outside, meter, asked, accept)
    except _Refused as error:
        session.deny(asked, Denied("bad_request", str(error)))
        await reply(error.code)
    except Denied as why:
        session.deny(asked, why)
        await reply(_UNREACHABLE if isinstance(why, Unreachable) else _NOT_ALLOWED)


class _Refused(Exception):
    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


async def _negotiate(client: Connection) -> tuple[str, int]:
    reader = _Reader(client)
    _, count = await reader.take(2)
    methods = await reader.take(count)
    if _NO_AUTHENTICATION not in methods:
        await client.send(bytes([VERSION, _NO_METHOD]))
        raise ConnectionAbortedError("the client wants to authenticate")
    await client.send(bytes([VERSION, _NO_AUTHENTICATION]))
    version, command, _, kind = await reader.take(4)
    if version != VERSION or command != _CONNECT:
        raise _Refused(_BAD_COMMAND, "the proxy serves only CONNECT of SOCKS5")
    if kind == _IPV4:
        host = str(ipaddress.IPv4Address(await reader.take(4)))
    elif kind == _IPV6:
        host = f"[{ipaddress.IPv6Address(await reader.take(16))}]"
    elif kind == _NAME:
        # Bytes that are not ASCII become U+FFFD, for which the name is refused.
        host = (await reader.take((await reader.take(1))[0])).decode("ascii", "replace")
    else:
        raise _Refused(_BAD_ADDRESS, "an address of no known kind")
    return host, int.from_bytes(await reader.take(2))
