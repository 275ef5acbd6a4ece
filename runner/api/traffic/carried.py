"""One request on its way to a server inside a sandbox, and its answer or tunnel back."""

import asyncio

import h11
from starlette.types import Receive, Scope, Send

from runner.api.edge.routing import declared_length
from runner.api.edge.tunnel import SWITCH, Switch, Tunnel
from runner.api.traffic import answered, asked
from runner.api.traffic.cookies import Header, PortCookie
from runner.api.traffic.destination import DESTINATION, PortTarget
from runner.api.traffic.exchange import Exchange
from runner.api.uploads import Bill
from runner.base.tasks import attended
from runner.door.streams import PortStream

FROM_INSIDE = "runner.from_inside"
"""In the scope of a request whose answer has begun and comes from inside, with all its headers."""
LINGER_S = 10.0
"""How long a tunnel's client may go on sending after the server has ended its side."""


class ClientLeft(Exception):
    """The client has hung up: nobody waits for the answer."""


class Carried:
    """A request, and a connection to the server that it is for."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, stream: PortStream, cookie: PortCookie
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._stream = stream
        self._cookie = cookie
        self._exchange = Exchange(stream)
        self._destination: PortTarget = scope[DESTINATION]

    async def carry(self, issuer: str | None) -> None:
        """Send the request inside and the answer out, or tunnel what follows an answer of 101.

        Raises PortFault, ClientLeft, TunnelClosed, Unpassable and Answered.
        """
        headers = asked.head(self._scope, self._destination, self._cookie, issuer)
        switch = self._scope.get(SWITCH)
        if isinstance(switch, Switch) and declared_length(self._scope) == 0:
            headers += [(b"connection", b"Upgrade"), (b"upgrade", asked.upgrade(self._scope))]
        else:
            headers.append((b"connection", b"close"))
        await self._exchange.ask(self._scope["method"], self._destination.target, headers)
        switching = await attended(self._answer(), self._feed())
        if switching is None:
            return
        by_name = self._destination.by_name
        await self._begin(switching, answered.switching(switching, self._cookie, by_name=by_name))
        if isinstance(switch, Switch) and switch.tunnel is not None:
            await self._tunnel(switch.tunnel)

    async def _feed(self) -> None:
        """Pass the request's body on, then wait until the client leaves.

        Raises ClientLeft, Unpassable, and Answered if the caller's rate is used up.
        """
        bill = Bill(self._scope)
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientLeft
            body = message.get("body", b"")
            await bill.pay(len(body))
            await self._exchange.send(body)
            more = message.get("more_body", False)
        await self._exchange.finish()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        raise ClientLeft

    async def _answer(self) -> h11.InformationalResponse | None:
        """Pass the answer on; return it instead if it begins a tunnel."""
        answer = await self._exchange.answer()
        if isinstance(answer, h11.InformationalResponse):
            return answer
        await self._begin(answer, answered.head(answer, self._destination, self._cookie))
        async for piece in self._exchange.body():
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        return None

    async def _begin(
        self, answer: h11.Response | h11.InformationalResponse, headers: list[Header]
    ) -> None:
        self._scope[FROM_INSIDE] = True
        await self._send(
            {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        )

    async def _tunnel(self, tunnel: Tunnel) -> None:
        """Carry bytes both ways until both ends have ended, or the client has gone."""
        await attended(self._outward(tunnel), self._inward(tunnel))

    async def _inward(self, tunnel: Tunnel) -> None:
        while data := await tunnel.receive():
            await self._stream.send(data)
        await self._stream.finish()
        await tunnel.left()

    async def _outward(self, tunnel: Tunnel) -> None:
        if early := self._exchange.early:
            await tunnel.send(early)
        while data := await self._stream.receive():
            await tunnel.send(data)
        tunnel.finish()
        await asyncio.sleep(LINGER_S)
