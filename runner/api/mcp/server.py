"""The SDK's server for one request. Only this module knows the SDK."""

import asyncio
import base64
from typing import Any

import anyio
from fastapi import Response
from mcp import types
from mcp.server import Server, ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from runner import __version__
from runner.api.mcp import failures
from runner.api.mcp.arguments import MAX_REQUEST
from runner.api.mcp.results import Part, Picture, ToolResult
from runner.api.mcp.tool import Progress, Tool, ToolCall
from runner.api.mcp.tools import INSTRUCTIONS, TOOLS, visible
from runner.words.errors import RunnerError

NAME = "agent-runner"
EVERY_S = 1.0
"""How often a client that wants it is told of a call's progress."""
Context = ServerRequestContext[dict[str, object]]


class McpAnswer(Response):
    """Answers one request of the protocol. Nothing of it outlasts the request.

    The server and its manager are made for this request alone: when the client hangs up or loses
    its right, everything that they have started is cancelled.
    """

    def __init__(self, call: ToolCall) -> None:
        super().__init__()
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        manager = StreamableHTTPSessionManager(
            _server(self._call), stateless=True, max_request_body_size=MAX_REQUEST
        )
        async with manager.run():
            await manager.handle_request(scope, receive, send)


def _server(call: ToolCall) -> Server[dict[str, object]]:
    """Return a server with the tools that the caller may use."""

    async def list_tools(
        _: Context, __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        offered = [_described(each) for each in visible(call.caller.principal)]
        # Another key may see other tools, and a role may change at any time.
        return types.ListToolsResult(tools=offered, ttl_ms=0, cache_scope="private")

    async def call_tool(
        context: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            known = ", ".join(TOOLS)
            raise MCPError(types.INVALID_PARAMS, f"there is no such tool; there are {known}")
        return _result(await _done(tool, call, params.arguments or {}, context))

    return Server(
        NAME,
        version=__version__,
        title="Agent Runner",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


async def _done(
    tool: Tool[Any], call: ToolCall, arguments: dict[str, object], context: Context
) -> ToolResult:
    """Do what is asked and report progress meanwhile; turn failures into results.

    The work is a task of its own: the SDK's cancellation would return at every step of its cleanup.
    """
    working = asyncio.create_task(tool(call, arguments))
    try:
        await _attended(working, call.progress, context)
        return working.result()
    except ValidationError as error:
        return failures.wrong_arguments(error)
    except RunnerError as error:
        return failures.of(call.request, error)
    except Exception as error:  # noqa: BLE001 - logged; the model learns that it is our fault
        return failures.unexpected(call.request, error)
    finally:
        if not working.done():
            working.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({working})


async def _attended(
    working: asyncio.Task[ToolResult], progress: Progress, context: Context
) -> None:
    """Wait for the work, and report how long it has taken so far."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while True:
        await asyncio.wait({working}, timeout=EVERY_S)
        if working.done():
            return
        await context.session.report_progress(
            round(clock() - began, 1), progress.total_s, progress.message
        )


def _described(tool: Tool[Any]) -> types.Tool:
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=tool.schema,
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads, destructive_hint=tool.destroys, open_world_hint=False
        ),
    )


def _result(given: ToolResult) -> types.CallToolResult:
    return types.CallToolResult(content=list(map(_content, given.parts)), is_error=given.failed)


def _content(part: Part) -> types.TextContent | types.ImageContent:
    if isinstance(part, Picture):
        data = base64.b64encode(part.data).decode()
        return types.ImageContent(data=data, mime_type=part.media_type)
    return types.TextContent(text=part)
