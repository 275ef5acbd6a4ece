"""`/v1/executions/{id}/artifacts`: the files a program left."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from fastapi.responses import StreamingResponse

from runner.api import representation
from runner.api.deps import Allow, ExecutionId, Parts
from runner.api.problems import responses
from runner.api.stored import begun
from runner.api.views import ArtifactList, ArtifactView
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.executions.read import artifact, artifacts
from runner.words.paths import MAX_BYTES

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
        found = await artifacts(tx, execution_id)
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
    path: Annotated[str, Path(max_length=MAX_BYTES, examples=["chart.png"])],
    caller: CanReadArtifacts,
    parts: Parts,
) -> StreamingResponse:
    """Stream one file. Browsers save it and never display it: it is always an attachment."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        stored = await artifact(tx, execution_id, path)
    return StreamingResponse(
        await begun(parts.objects.read(stored.object_key)),
        # A browser must not run on our origin what a program calls HTML.
        media_type="application/octet-stream",
        headers={
            "Content-Length": str(stored.artifact.size),
            "Content-Disposition": representation.attachment(path),
            "Content-Security-Policy": "sandbox; default-src 'none'",
            "ETag": f'"{stored.artifact.sha256}"',
        },
    )
