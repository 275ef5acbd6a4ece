"""The ports of a sandbox: `sandbox.ports`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx

from agent_runner._async.calls import call, delete
from agent_runner._async.forwarding import AsyncForward
from agent_runner.living import OpenedPort, PortInfo
from agent_runner.living_answers import OPENED_PORT, PORTS
from agent_runner.transport import REPEATABLE


class AsyncSandboxPorts:
    """Servers inside a sandbox. All methods raise ApiError."""

    def __init__(self, http: httpx.AsyncClient, path: str) -> None:
        self._http = http
        self._path = path

    async def open(self, port: int, *, public: bool = False, expires_s: float = 3600) -> OpenedPort:
        """Let others reach a port: those who have its token, or everybody if it is public.

        You reach it by your API key in any case. A port that is open gets these terms and another
        token.
        """
        opened = await call(
            self._http,
            OPENED_PORT,
            "POST",
            f"{self._ports}/{port}",
            json={"public": public, "expires_s": expires_s},
            extensions=REPEATABLE,
        )
        return replace(opened, url=self._absolute(opened.url))

    async def list(self) -> Sequence[PortInfo]:
        """Return the ports that are open."""
        found = await call(self._http, PORTS, "GET", self._ports)
        return [replace(each, url=self._absolute(each.url)) for each in found]

    async def close(self, port: int) -> None:
        """Close a port; its token is then worth nothing. Raises NotFound if it is not open."""
        await delete(self._http, f"{self._ports}/{port}")

    def url(self, port: int) -> str:
        """Return where a port is reached with an API key or its token, open or not."""
        return self._absolute(f"{self._ports}/{port}/")

    @asynccontextmanager
    async def forward(self, port: int, local: int = 0) -> AsyncIterator[AsyncForward]:
        """Listen on a port of this host's loopback, and carry each connection to one inside.

        With `local` 0, any free port is taken. In the context, `forward.port` says which.
        Connections end with the context. Raises OSError if the local port is taken.
        """
        async with AsyncForward(self._http, f"{self._path}/tcp/{port}", local) as forward:
            yield forward

    @property
    def _ports(self) -> str:
        return f"{self._path}/ports"

    def _absolute(self, url: str) -> str:
        return str(self._http.base_url).rstrip("/") + url if url.startswith("/") else url
