"""`/v1/sandboxes/{id}/processes`: start, feed, follow, signal and end processes."""

from collections.abc import AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from runner.api.deps import CanReadSandboxes, CanUseSandboxes, Parts, ProcessNumber, SandboxId
from runner.api.edge.fair import waits
from runner.api.edge.json import JsonRoute
from runner.api.problems import JSON_TAKEN, LIVING, responses
from runner.api.sandbox_requests import NewProcess, Signalling, WindowSize
from runner.api.sandbox_views import OutputEventView, ProcessList, ProcessView, StartedProcessView
from runner.api.uploads import BYTES, left, taken
from runner.base.tasks import attended
from runner.door.streams import ProcessStream
from runner.sandboxes import foreground
from runner.words.errors import NotReady, Refused
from runner.words.living import OutputGap

MAX_OFFSET = 2**53 - 1

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/processes", tags=["processes"], route_class=JsonRoute
)

LastEventId = Annotated[
    str | None,
    Header(
        alias="Last-Event-ID",
        description="The id of the last event that you have; the stream goes on after it.",
        pattern=r"^[0-9]{1,15}$",
    ),
]

STREAMED: dict[str, Any] = {
    "description": "Server-sent events, until the process has ended.",
    "content": {
        EventSourceResponse.media_type: {
            "itemSchema": {
                "properties": {
                    "event": {"enum": ["stdout", "stderr", "gap", "ended"]},
                    "data": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/OutputEventView"},
                    },
                },
                "required": ["id", "event", "data"],
            }
        }
    },
}


@router.post(
    "",
    summary="Start a process",
    status_code=HTTPStatus.CREATED,
    responses={
        201: {
            "description": "It was started.",
            "headers": {"Location": {"schema": {"type": "string"}}},
        },
        **LIVING,
        **responses(*JSON_TAKEN),
    },
)
async def start(
    request: Request,
    response: Response,
    body: NewProcess,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
) -> StartedProcessView:
    """Start a process. With `wait_s`, wait for its end and answer with its output.

    The only time limit of a process is `timeout_s`. It goes on if the client leaves or `wait_s` is
    over: follow its output from `next_offset` on.
    """
    running = foreground.run(
        parts.using,
        caller,
        sandbox_id,
        body.launch(),
        body.given(),
        wait_s=body.wait_s,
        most=body.output_kb * 1024,
        on_start=lambda: waits(request),
    )
    ran = await attended(running, left(request))
    response.headers["Location"] = f"/v1/sandboxes/{sandbox_id}/processes/{ran.process.number}"
    return StartedProcessView.started(ran, waited=body.wait_s > 0)


@router.get("", summary="List processes", responses=LIVING)
async def list_processes(
    sandbox_id: SandboxId, caller: CanReadSandboxes, parts: Parts
) -> ProcessList:
    """Return the running processes and those that ended last, in order of start."""
    found = await parts.using.processes(caller, sandbox_id)
    return ProcessList(items=[ProcessView.of(each) for each in found])


@router.get("/{process}", summary="Read one process", responses=LIVING)
async def read(
    caller: CanReadSandboxes, sandbox_id: SandboxId, process: ProcessNumber, parts: Parts
) -> ProcessView:
    """Return a process as it is now."""
    return ProcessView.of(await parts.using.process(caller, sandbox_id, process))


async def attached(
    caller: CanReadSandboxes,
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
    offset: Annotated[
        int, Query(ge=0, le=MAX_OFFSET, description="From which byte of its output on.")
    ] = 0,
    last_event_id: LastEventId = None,
    *,
    follow: Annotated[
        bool, Query(description="Go on until it has ended, not only to what is there.")
    ] = True,
) -> AsyncIterator[ProcessStream]:
    """Attach before the answer begins: afterwards, it is too late to refuse with a status."""
    first = offset if last_event_id is None else int(last_event_id)
    async with parts.using.attach(
        caller, sandbox_id, process, offset=first, follow=follow
    ) as stream:
        yield stream


@router.get(
    "/{process}/output",
    summary="Follow a process",
    response_class=EventSourceResponse,
    responses={200: STREAMED, **LIVING},
)
async def output(
    stream: Annotated[ProcessStream, Depends(attached)],
) -> AsyncIterator[ServerSentEvent]:
    """Stream what a process writes, from byte `offset` on, until it has ended.

    Offsets count the bytes of stdout and stderr together. The `id` of each event is the offset
    after it. `stdout` and `stderr` have `content` and its `encoding`. `gap` has `omitted_bytes`,
    the number of bytes that the sandbox no longer keeps. `ended` is the last event. Lines that
    begin with a colon keep the connection open and mean nothing.

    To resume, send the last id that you have as `Last-Event-ID`: nothing is missed or repeated.
    """
    # The sandbox's end ends its streams, without `ended`: a client that resumes learns why.
    with suppress(Refused, NotReady):
        async for piece in stream.output():
            event = "gap" if isinstance(piece, OutputGap) else piece.stream.value
            yield _event(event, stream.offset, OutputEventView.of(piece))
    if stream.end is not None:
        yield _event("ended", stream.offset, OutputEventView.ended(stream.end, stream.offset))


@router.post(
    "/{process}/stdin",
    summary="Write to a process",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra={"requestBody": {"required": False, "content": BYTES}},
    responses={**LIVING, **responses(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)},
)
async def write_stdin(
    request: Request,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
    *,
    close: Annotated[bool, Query(description="Close its stdin after these bytes.")] = False,
) -> None:
    """Write the body, any bytes, to the process's stdin; answer once all of it is taken.

    The body may be sent in chunks, as they are made.
    """
    await taken(
        request,
        lambda chunks: parts.using.write_stdin(caller, sandbox_id, process, chunks, close=close),
    )


@router.post(
    "/{process}/signal",
    summary="Signal a process",
    status_code=HTTPStatus.NO_CONTENT,
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def signal(
    body: Signalling,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
) -> None:
    """Signal a process and its group. One that has ended stays as it is."""
    await parts.using.signal(caller, sandbox_id, process, body.signal)


@router.post(
    "/{process}/resize",
    summary="Resize a process's terminal",
    status_code=HTTPStatus.NO_CONTENT,
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def resize(
    body: WindowSize,
    caller: CanUseSandboxes,
    sandbox_id: SandboxId,
    process: ProcessNumber,
    parts: Parts,
) -> None:
    """Give a process's terminal another size."""
    await parts.using.resize(caller, sandbox_id, process, body.size())


@router.delete(
    "/{process}",
    summary="Kill a process",
    status_code=HTTPStatus.NO_CONTENT,
    responses=LIVING,
)
async def kill(
    caller: CanUseSandboxes, sandbox_id: SandboxId, process: ProcessNumber, parts: Parts
) -> None:
    """Kill a process and its group if it runs, and discard it with its output."""
    await parts.using.forget(caller, sandbox_id, process)


def _event(name: str, offset: int, view: OutputEventView) -> ServerSentEvent:
    data = view.model_dump_json(exclude_none=True)
    return ServerSentEvent(event=name, id=str(offset), raw_data=data)
