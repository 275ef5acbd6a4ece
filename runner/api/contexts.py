"""`/v1/sandboxes/{id}/contexts`: interpreters that keep their variables, and code run in them."""

from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from runner.api.context_requests import CodeToRun, NewContext
from runner.api.context_views import ContextList, ContextView, RunEvents
from runner.api.deps import CanReadSandboxes, CanUseSandboxes, ContextNumber, Parts, SandboxId
from runner.api.edge.json import JsonRoute
from runner.api.kept_alive import kept_alive
from runner.api.problems import JSON_TAKEN, LIVING, responses
from runner.api.uploads import left
from runner.base.tasks import attended
from runner.door.streams import RunStream
from runner.words.errors import NotReady, Refused

PING = b": ping\n\n"

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/contexts", tags=["contexts"], route_class=JsonRoute
)

STREAMED: dict[str, Any] = {
    "description": "Server-sent events, until the code has ended.",
    "content": {
        EventSourceResponse.media_type: {
            "itemSchema": {
                "properties": {
                    "event": {"enum": ["stdout", "stderr", "result", "error", "gap", "ended"]},
                    "data": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/RunEventView"},
                    },
                },
                "required": ["event", "data"],
            }
        }
    },
}


@router.post(
    "",
    summary="Begin a context",
    status_code=HTTPStatus.CREATED,
    responses={
        201: {
            "description": "Its interpreter takes code.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **LIVING,
        **responses(*JSON_TAKEN),
    },
)
async def create(
    request: Request,
    response: Response,
    body: NewContext,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
) -> ContextView:
    """Begin an interpreter that keeps its variables from one run to the next."""
    opening = parts.using.open_context(
        caller, sandbox_id, body.language, cwd=body.cwd, env=body.env
    )
    made = await attended(opening, left(request))
    response.headers["Location"] = f"/v1/sandboxes/{sandbox_id}/contexts/{made.number}"
    return ContextView.of(made)


@router.get("", summary="List contexts", responses=LIVING)
async def list_contexts(
    sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts
) -> ContextList:
    """Return the sandbox's contexts, in order of their beginning."""
    found = await parts.using.contexts(caller, sandbox_id)
    return ContextList(items=[ContextView.of(each) for each in found])


@router.get("/{context}", summary="Read one context", responses=LIVING)
async def read(
    caller: CanReadSandboxes, sandbox_id: SandboxId, context: ContextNumber, parts: Parts
) -> ContextView:
    """Return a context as it is now."""
    return ContextView.of(await parts.using.context(caller, sandbox_id, context))


@router.delete(
    "/{context}",
    summary="Remove a context",
    status_code=HTTPStatus.NO_CONTENT,
    responses=LIVING,
)
async def remove(
    caller: CanUseSandboxes, sandbox_id: SandboxId, context: ContextNumber, parts: Parts
) -> None:
    """End a context, with all that its code has started."""
    await parts.using.close_context(caller, sandbox_id, context)


async def running(
    body: CodeToRun,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    context: ContextNumber,
    parts: Parts,
) -> AsyncIterator[RunStream]:
    """Begin before the answer begins, and interrupt the code if the answer ends early."""
    async with parts.using.run_code(
        caller, sandbox_id, context, body.code, env=body.env, timeout_s=body.timeout_s
    ) as stream:
        yield stream


@router.post(
    "/{context}/run",
    summary="Run code in a context",
    response_class=StreamingResponse,
    responses={200: STREAMED, **LIVING, **responses(*JSON_TAKEN)},
)
async def run(stream: Annotated[RunStream, Depends(running)]) -> StreamingResponse:
    """Run code, and stream what happens until it has ended.

    A context runs one piece of code after another; 16 more wait for their turn. `stdout` and
    `stderr` have `text`. `result` has `data`, the result in each of its kinds by media type.
    `error` has `name`, `value` and `traceback`. `ended` is the last event. `gap` stands for what
    was lost because it was not read for 10 seconds. Lines that begin with a colon mean nothing.

    If the client hangs up, the code is interrupted.
    """
    return StreamingResponse(
        _told(RunEvents(stream.parts())), media_type=EventSourceResponse.media_type
    )


@router.post(
    "/{context}/interrupt",
    summary="Interrupt a context",
    status_code=HTTPStatus.NO_CONTENT,
    responses=LIVING,
)
async def interrupt(
    caller: CanUseSandboxes, sandbox_id: SandboxId, context: ContextNumber, parts: Parts
) -> None:
    """Interrupt the code that runs, as Ctrl-C does; its variables stay."""
    await parts.using.interrupt(caller, sandbox_id, context)


@router.post("/{context}/restart", summary="Restart a context", responses=LIVING)
async def restart(
    request: Request,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    context: ContextNumber,
    parts: Parts,
) -> ContextView:
    """Give a context a new interpreter, without variables. Code that runs is ended."""
    again = parts.using.restart(caller, sandbox_id, context)
    return ContextView.of(await attended(again, left(request)))


async def _told(events: RunEvents) -> AsyncIterator[bytes]:
    """Yield the events' bytes, and a ping while there are none."""
    # The sandbox's end ends its streams, without `ended`: the next call says why.
    with suppress(Refused, NotReady):
        async for piece in kept_alive(aiter(events.written()), PING, within=lambda: events.within):
            yield piece
