"""`runner mcp`: tools for models on stdin and stdout, by the Model Context Protocol.

It defines no tool. It passes each call on to the deployment's `/mcp`, with the user's key, and the
answer back.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from agent_runner import Client as Api
from agent_runner import NotPermitted
from agent_runner.transport import CONNECT_TIMEOUT_S, base_url
from runner.cli.address import Address
from runner.cli.console import read_settings, reports_errors
from runner.cli.session import reached
from runner.words.errors import SetupError

if TYPE_CHECKING:
    from mcp import Client
    from mcp.server import Server

NAME = "agent-runner"
QUIET_S = 60.0
"""The API sends something at least every 15 seconds while a call is under way."""


@reports_errors
def mcp() -> None:
    """Serve models over stdin and stdout, by the Model Context Protocol.

    Clients start this command themselves: `docs/integrations/mcp.md` shows how to configure them.
    The tools act with the rights of RUNNER_API_KEY in the deployment at RUNNER_URL.
    """
    with reached(read_settings()) as address:
        # Asked by the SDK: a wrong address or key fails here, with its usual message.
        with Api(address.url, address.api_key) as api, suppress(NotPermitted):
            api.sandboxes.list(limit=1)
        asyncio.run(_serve(address))


async def _serve(address: Address) -> None:
    from mcp.server.stdio import stdio_server

    async with _connected(address) as api:
        server = _passing_on(api)
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


@asynccontextmanager
async def _connected(address: Address) -> "AsyncIterator[Client]":
    """Connect to the deployment's tools. Raises SetupError if it has none."""
    import httpx2
    from mcp import Client, MCPError
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {address.api_key}"},
        timeout=httpx2.Timeout(QUIET_S, connect=CONNECT_TIMEOUT_S),
    ) as http:
        url = f"{base_url(address.url)}/mcp"
        client = Client(streamable_http_client(url, http_client=http), cache=None)
        try:
            await client.__aenter__()
        except MCPError as error:
            raise SetupError(
                f"{url} does not answer as this release's tools do ({error.message}): is the "
                "deployment older?"
            ) from error
        try:
            yield client
        finally:
            await client.__aexit__(None, None, None)


def _passing_on(api: "Client") -> "Server[Any]":
    """Return a server that passes on what it is asked."""
    from mcp import types
    from mcp.server import Server, ServerRequestContext

    async def list_tools(
        _: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return await api.list_tools(cursor=params.cursor if params else None)

    async def call_tool(
        context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        return await api.call_tool(
            params.name,
            params.arguments,
            progress_callback=context.session.report_progress,
        )

    return Server(
        NAME,
        version=api.server_info.version if api.server_info else "",
        instructions=api.instructions,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
