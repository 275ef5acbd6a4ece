"""`/v1/sandboxes/{id}/files`: the files in a sandbox, streamed in and out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from runner.api import downloads
from runner.api.counting import ENTRIES_FOR_ONE, count
from runner.api.deps import CanUseSandboxes, Parts, SandboxId
from runner.api.downloads import Download
from runner.api.edge.groups import Group
from runner.api.edge.json import JsonRoute
from runner.api.problems import JSON_TAKEN, LIVING, responses
from runner.api.representation import MAX_HEADER
from runner.api.sandbox_requests import Move, NewFolder, SandboxPath
from runner.api.sandbox_views import FileChangesView, FileChangeView, FileEntryView, FolderView
from runner.api.uploads import BYTES, plain, taken
from runner.door.streams import FileListing, WatchStream
from runner.words.errors import NotReady, Refused
from runner.words.sandbox import WORKSPACE

MAX_DEPTH = 64
MAX_ENTRIES = 10_000

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/files", tags=["sandbox files"], route_class=JsonRoute
)

Path = Annotated[
    SandboxPath,
    Query(description=f"Absolute, or relative to `{WORKSPACE}`.", examples=["data/in.csv"]),
]
Mode = Annotated[
    str, Query(pattern=r"^0?[0-7]{3}$", description="Permission bits, octal.", examples=["0644"])
]

Range = Annotated[str | None, Header(alias="Range", max_length=MAX_HEADER)]

DOWNLOADED: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file's bytes.", "content": BYTES},
    206: {"description": "The requested range of the bytes.", "content": BYTES},
    **LIVING,
    **responses(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE),
}
UPLOADED: dict[int | str, dict[str, Any]] = {
    **LIVING,
    **responses(
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    ),
}

STREAMED: dict[str, Any] = {
    "description": "Server-sent events, until the client leaves.",
    "content": {
        EventSourceResponse.media_type: {
            "itemSchema": {
                "properties": {
                    "event": {"enum": ["changes"]},
                    "data": {
                        "contentMediaType": "application/json",
                        "contentSchema": {"$ref": "#/components/schemas/FileChangesView"},
                    },
                },
                "required": ["event", "data"],
            }
        }
    },
}


@router.get("", summary="List a sandbox's files", response_model=FolderView, responses=LIVING)
async def list_files(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path = WORKSPACE,
    depth: Annotated[int, Query(ge=1, le=MAX_DEPTH, description="How many levels of folders.")] = 1,
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 1000,
) -> Response:
    """List a folder, and those below it down to `depth`. Links are not followed.

    For each thousand entries, it costs as much as one more request.
    """
    found = await parts.using.list_files(caller, sandbox_id, path, depth=depth, most=limit)
    await count(parts, caller, Group.USE, len(found.files) // ENTRIES_FOR_ONE)
    # A thread makes the answer, so that the event loop goes on.
    return Response(await asyncio.to_thread(encoded, found), media_type="application/json")


def encoded(found: FileListing) -> bytes:
    """Return a listing as a FolderView in JSON.

    Entry by entry: pydantic keeps all other threads waiting for as long as one call takes.
    """
    items = (FileEntryView.of(each).model_dump_json().encode() for each in found.files)
    more = b"true" if found.more else b"false"
    return b'{"items":[' + b",".join(items) + b'],"more":' + more + b"}"


@router.get("/stat", summary="Look at a file in a sandbox", responses=LIVING)
async def stat(
    sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts, path: Path
) -> FileEntryView:
    """Describe a file, folder or link. A link is not followed."""
    return FileEntryView.of(await parts.using.stat_file(caller, sandbox_id, path))


async def opened(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path,
    range_: Range = None,
) -> AsyncIterator[Download]:
    """Open the file before the answer begins, and close it whichever way the answer ends."""
    read = partial(parts.using.read_file, caller, sandbox_id, path)
    async with downloads.opened(read, range_) as download:
        yield download


@router.get(
    "/content",
    summary="Read a file in a sandbox",
    response_class=StreamingResponse,
    responses=DOWNLOADED,
)
async def read(path: Path, download: Annotated[Download, Depends(opened)]) -> StreamingResponse:
    """Stream a file or one range of it. It is always an attachment, which browsers do not display.

    If the file shrinks meanwhile, the connection ends before the declared length.
    """
    return download.answer(path)


@router.put(
    "/content",
    summary="Write a file in a sandbox",
    openapi_extra={"requestBody": {"required": False, "content": BYTES}},
    responses=UPLOADED,
)
async def write(
    request: Request,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path,
    mode: Mode = "0644",
    *,
    parents: Annotated[bool, Query(description="Make the folders above it, too.")] = True,
) -> FileEntryView:
    """Write the body, any bytes, as a file. Readers see the old file or the whole new one.

    The body may be sent in chunks. If it ends early, nothing is written.
    """
    plain(request)
    written = await taken(
        request,
        lambda chunks: parts.using.write_file(
            caller, sandbox_id, path, chunks, mode=int(mode, 8), parents=parents
        ),
    )
    return FileEntryView.of(written)


@router.post(
    "/folders",
    summary="Make a folder in a sandbox",
    status_code=HTTPStatus.CREATED,
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def make_folder(
    body: NewFolder, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> FileEntryView:
    """Make a folder."""
    made = await parts.using.make_folder(caller, sandbox_id, body.path, parents=body.parents)
    return FileEntryView.of(made)


@router.post(
    "/move",
    summary="Move a file in a sandbox",
    responses={**LIVING, **responses(*JSON_TAKEN)},
)
async def move(
    body: Move, sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts
) -> FileEntryView:
    """Rename a file, folder or link."""
    moved = await parts.using.move_file(
        caller, sandbox_id, body.source, body.target, replace=body.replace
    )
    return FileEntryView.of(moved)


@router.delete(
    "",
    summary="Remove a file in a sandbox",
    status_code=HTTPStatus.NO_CONTENT,
    responses=LIVING,
)
async def remove(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path,
    *,
    recursive: Annotated[bool, Query(description="A folder with all that is in it.")] = False,
) -> None:
    """Remove a file, a link or a folder. Without `recursive`, a folder must be empty."""
    await parts.using.remove_file(caller, sandbox_id, path, recursive=recursive)


async def watched(
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path = WORKSPACE,
    *,
    recursive: Annotated[bool, Query(description="Folders below it, too.")] = True,
) -> AsyncIterator[WatchStream]:
    """Watch before the answer begins: a client that has the headers misses nothing after them."""
    async with parts.using.watch_files(caller, sandbox_id, path, recursive=recursive) as stream:
        yield stream


@router.get(
    "/watch",
    summary="Watch a folder in a sandbox",
    response_class=EventSourceResponse,
    responses={200: STREAMED, **LIVING},
)
async def watch(
    stream: Annotated[WatchStream, Depends(watched)],
) -> AsyncIterator[ServerSentEvent]:
    """Stream changes to files below a folder, from the moment the answer begins.

    Each event is `changes`. It has `lost` if more happened than could be reported. Events have no
    id: a stream that broke off cannot be resumed.
    """
    # The sandbox's end ends its streams: a client that asks again learns why.
    with suppress(Refused, NotReady):
        async for found in stream.changes():
            told = FileChangesView(
                changes=[FileChangeView.of(each) for each in found.changes], lost=found.lost
            )
            yield ServerSentEvent(event="changes", raw_data=told.model_dump_json())
