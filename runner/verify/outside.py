"""A server to attack, and the egress proxy in front of it, for the checks of egress."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.base.settings import Settings
from runner.egress.gateway import EgressGateway
from runner.egress.policy import Policy, parse_rule
from runner.egress.session import Decision

_PATIENCE_S = 1.0
_QUIET_S = 0.03
_LONGEST_S = 5.0
"""Many checks end in silence; with a host's long patience, they would wait for hours altogether."""
NAMES = ("example.test", "www.example.test", "evilexample.test", "example.test.evil")


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of speaking to the proxy: its bytes, its decisions, what the server received."""

    said: bytes
    decisions: tuple[Decision, ...]
    arrived: bytes

    @property
    def why(self) -> str:
        """The reason of the first refusal, or the first bytes that came back."""
        refused = [each.reason for each in self.decisions if each.outcome == "denied"]
        return refused[0] if refused else repr(self.said[:40])


@dataclass
class Outside:
    """The server and two proxies: the operator of only one of them trusts loopback."""

    port: int
    trusting: EgressGateway
    strict: EgressGateway
    folder: Path
    patience: int
    _arrived: bytearray = field(default_factory=bytearray)

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator["Outside"]:
        """Run them inside the context. Raises SetupError if a proxy does not start."""
        arrived = bytearray()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(65536):
                    arrived.extend(data)
                    http = b"\r\n\r\n" in data
                    writer.write(
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" if http else b"?"
                    )
            writer.close()

        async with AsyncExitStack() as stack:
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.push_async_callback(_closed, server)
            gateways = [
                await stack.enter_async_context(
                    EgressGateway.open(
                        uid=settings.egress_uid,
                        trusted_networks=trusted,
                        hosts=dict.fromkeys(NAMES, "127.0.0.1"),
                        roots="",
                        profiles_dir=settings.profiles_path,
                        state_dir=settings.state_dir,
                        patience=settings.patience,
                    )
                )
                for trusted in (("127.0.0.0/8",), ())
            ]
            port = server.sockets[0].getsockname()[1]
            trusting, strict = gateways
            yield cls(port, trusting, strict, settings.state_dir, settings.patience, arrived)

    def policy(self, *rules: Any, **budgets: int) -> Policy:
        """Return a policy; `PORT` in a rule's text stands for the server's port."""
        written = [
            rule.replace("PORT", str(self.port)) if isinstance(rule, str)
            else {**rule, "port": self.port}
            for rule in rules
        ]  # fmt: skip
        return Policy(rules=tuple(parse_rule(rule) for rule in written), **budgets)

    async def ask(
        self, policy: Policy, *said: bytes, gateway: EgressGateway | None = None, times: int = 1
    ) -> Answer:
        """Speak to the proxy as a sandbox with this policy does; each part after a short wait."""
        path = self.folder / f"{secrets.token_hex(4)}.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(16)
        listener.setblocking(False)  # noqa: FBT003 - the standard library's signature
        decisions: list[Decision] = []
        self._arrived.clear()
        session = await (gateway or self.trusting).open_session(
            path.stem, "verify", policy, listener, {}, decisions.append
        )
        try:
            answers = [await _spoken(path, said, self.patience) for _ in range(times)]
        finally:
            await session.close()
            path.unlink()
        return Answer(answers[-1], tuple(decisions), bytes(self._arrived))


async def _spoken(path: Path, parts: Sequence[bytes], patience: int) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    heard = b""
    try:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                writer.write(part)
                heard += await _heard(reader, patience)
    finally:
        writer.transport.abort()
    return heard


async def _heard(reader: asyncio.StreamReader, patience: int) -> bytes:
    """Return the bytes that come: wait for the first ones or the end, and then for silence."""
    heard = b""
    try:
        while True:
            wait_s = _QUIET_S if heard else _PATIENCE_S
            async with asyncio.timeout(min(_LONGEST_S, wait_s * patience)):
                data = await reader.read(65536)
            heard += data
            if not data:
                return heard
    except TimeoutError:
        return heard


async def _closed(server: asyncio.Server) -> None:
    server.close()
    await server.wait_closed()
