"""`/v1/sandboxes/{id}/files/archive`: whole folders in a sandbox, in and out as tar archives."""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from runner.api import representation
from runner.api.deps import CanUseSandboxes, Parts, SandboxId
from runner.api.edge.json import JsonRoute
from runner.api.problems import LIVING, responses
from runner.api.sandbox_files import Path
from runner.api.uploads import plain, taken
from runner.door.streams import ArchiveStream
from runner.words.sandbox import WORKSPACE

TAR = "application/x-tar"
ARCHIVE = {TAR: {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(
    prefix="/v1/sandboxes/{sandbox_id}/files/archive",
    tags=["sandbox files"],
    route_class=JsonRoute,
)


async def packed(
    sandbox_id: SandboxId, caller: CanUseSandboxes, parts: Parts, path: Path = WORKSPACE
) -> AsyncIterator[ArchiveStream]:
    """Open the folder before the answer begins, and stop reading whichever way the answer ends."""
    async with parts.using.pack_folder(caller, sandbox_id, path) as stream:
        yield stream


@router.get(
    "",
    summary="Read a folder in a sandbox",
    response_class=StreamingResponse,
    responses={200: {"description": "A tar archive of the folder.", "content": ARCHIVE}, **LIVING},
)
async def read(
    stream: Annotated[ArchiveStream, Depends(packed)], path: Path = WORKSPACE
) -> StreamingResponse:
    """Stream what is in a folder as a tar archive (GNU format), with names relative to the folder.

    Links are archived as links, sockets are left out. Processes go on meanwhile, so that the
    archive may hold one file before and another after their changes. If something cannot be read,
    the connection ends before the archive does. Unpack it with care: a program in the sandbox
    decides what it holds.
    """
    name = path.rstrip("/").rpartition("/")[2] or "files"
    headers = {"Content-Disposition": representation.attachment(f"{name}.tar")}
    return StreamingResponse(stream.chunks(), headers=headers, media_type=TAR)


@router.put(
    "",
    summary="Write a folder in a sandbox",
    status_code=HTTPStatus.NO_CONTENT,
    openapi_extra={"requestBody": {"required": True, "content": ARCHIVE}},
    responses={
        **LIVING,
        **responses(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        ),
    },
)
async def write(
    request: Request,
    sandbox_id: SandboxId,
    caller: CanUseSandboxes,
    parts: Parts,
    path: Path = WORKSPACE,
    *,
    parents: Annotated[
        bool, Query(description="Make the folder, and those above it, if they are missing.")
    ] = True,
) -> None:
    """Unpack the body, a tar archive that is not compressed, into a folder.

    It is unpacked as it comes, by the sandbox's own user. Files of the same names are replaced,
    others stay. If the body ends early, is no archive, or does not fit on the sandbox's disk, what
    was unpacked until then stays.
    """
    plain(request)
    await taken(
        request,
        lambda chunks: parts.using.unpack_folder(caller, sandbox_id, path, chunks, parents=parents),
    )
