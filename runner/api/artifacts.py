"""`/v1/executions/{id}/artifacts`: the files a program left."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path
from fastapi.responses import StreamingResponse

from runner.api.deps import Allow, ExecutionId, Parts
from runner.api.fields import MAX_PATH_BYTES
from runner.api.problems import responses
from runner.api.views import ArtifactList, ArtifactView
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.executions.read import find
from runner.store import executions
from runner.words.errors import NotFound

router = APIRouter(prefix="/v1/executions", tags=["artifacts"])

CanReadArtifacts = Annotated[Caller, Depends(Allow(Permission.ARTIFACT_READ))]


@router.get(
    "/{execution_id}/artifacts",
    summary="List artifacts",
    responses=responses(HTTPStatus.NOT_FOUND),
)
async def list_artifacts(
    execution_id: ExecutionId, caller: CanReadArtifacts, parts: Parts
) -> ArtifactList:
    """Return the files that the program left, ordered by path."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        await find(tx, execution_id)
        found = await executions.artifacts(tx, execution_id)
    return ArtifactList(items=[ArtifactView.of(each.artifact) for each in found])


@router.get(
    "/{execution_id}/artifacts/{path:path}",
    summary="Download an artifact",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The file's bytes.",
            "content": {"application/octet-stream": {"schema": {"format": "binary"}}},
        },
        **responses(HTTPStatus.NOT_FOUND),
    },
)
async def download(
    execution_id: ExecutionId,
    path: Annotated[str, Path(max_length=2 * MAX_PATH_BYTES, examples=["chart.png"])],
    caller: CanReadArtifacts,
    parts: Parts,
) -> StreamingResponse:
    """Stream one file. Browsers save it and never display it: it is always an attachment."""
    if "\0" in path:
        raise NotFound("no such artifact")
    async with parts.database.tenant(caller.tenant_id) as tx:
        stored = await executions.artifact(tx, execution_id, path)
    if stored is None:
        raise NotFound("no such artifact")
    name = quote(path.rpartition("/")[2], safe="")
    return StreamingResponse(
        parts.objects.read(stored.object_key),
        # What a program calls HTML is not for a browser to run on our origin.
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(stored.artifact.size),
            # RFC 6266 with RFC 8187's encoding: no name can break out of the header.
            "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "ETag": f'"{stored.artifact.sha256}"',
        },
    )
