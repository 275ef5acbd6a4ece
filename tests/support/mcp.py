"""The official client of the Model Context Protocol, connected to a deployment."""

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent

from tests.support.deployment import Deployment


def over_http(
    deployment: Deployment, key: str, **options: Any
) -> AbstractAsyncContextManager[Client]:
    """Yield the official client, connected to `/mcp` with this key."""
    headers = {"Authorization": f"Bearer {key}"}
    return with_headers(f"{deployment.url}/mcp", headers, **options)


@asynccontextmanager
async def with_headers(url: str, headers: dict[str, str], **options: Any) -> AsyncIterator[Client]:
    """Yield the official client, connected to this address with these headers."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), cache=None, **options) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(deployment: Deployment, key: str, **options: Any) -> AsyncIterator[Client]:
    """Yield the official client, which has started `runner mcp`."""
    async with Client(command(deployment, key), cache=None, **options) as client:
        yield client


def command(deployment: Deployment, key: str) -> StdioServerParameters:
    """Return how a client starts `runner mcp`."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "runner", "mcp"],
        env={**os.environ, "RUNNER_URL": deployment.url, "RUNNER_API_KEY": key},
    )


def said(result: CallToolResult) -> str:
    """Return all text of a result."""
    return "\n".join(each.text for each in result.content if isinstance(each, TextContent))


def pictures(result: CallToolResult) -> list[ImageContent]:
    """Return the pictures of a result."""
    return [each for each in result.content if isinstance(each, ImageContent)]


async def create(client: Client, **arguments: Any) -> str:
    """Make a sandbox, and return its id as a model would read it."""
    made = await client.call_tool("create_sandbox", {"size": "small", **arguments})
    assert not made.is_error, said(made)
    found = re.match(r"sandbox_id: (\S+)\n", said(made))
    assert found, said(made)
    return found[1]
