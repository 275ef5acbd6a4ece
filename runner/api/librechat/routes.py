"""LibreChat's routes: run code, upload files, list them, download them."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse

from runner.api import representation
from runner.api.attended import run_to_its_end
from runner.api.deps import Allow, Parts, require
from runner.api.edge.json import JsonRoute
from runner.api.librechat.messages import (
    ExecAnswer,
    ExecRequest,
    FileObject,
    FileRef,
    Uploaded,
)
from runner.api.librechat.paths import EXEC, PREFIX
from runner.api.librechat.runs import keep, output, submission_of
from runner.api.librechat.sessions import (
    new_session,
    of_session,
    one,
)
from runner.api.librechat.uploads import Uploading
from runner.api.stored import begun
from runner.api.uploads import BYTES, UNKNOWN, taken
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.tenants import files

router = APIRouter(route_class=JsonRoute, include_in_schema=False)
CanRun = Annotated[Caller, Depends(Allow(Permission.EXECUTION_CREATE))]
CanReadFiles = Annotated[Caller, Depends(Allow(Permission.FILE_READ))]
CanWriteFiles = Annotated[Caller, Depends(Allow(Permission.FILE_WRITE))]


async def whose(
    _kind: Annotated[str | None, Query(alias="kind")] = None,
    _id: Annotated[str | None, Query(alias="id")] = None,
    _version: Annotated[str | None, Query(alias="version")] = None,
    _entity_id: Annotated[str | None, Query(alias="entity_id")] = None,
    _detail: Annotated[str | None, Query(alias="detail")] = None,
) -> None:
    """Take the parameters in which LibreChat says whose a file is: the session decides that."""


WHOSE = [Depends(whose)]
FORM = {"requestBody": {"required": True, "content": {"multipart/form-data": BYTES[UNKNOWN]}}}


@router.post(EXEC)
async def run(request: Request, body: ExecRequest, caller: CanRun, parts: Parts) -> ExecAnswer:
    """Run code, and answer when it has ended. If the client hangs up, the code is cancelled."""
    await require(request, parts, caller, Permission.EXECUTION_READ)
    await require(request, parts, caller, Permission.FILE_WRITE)
    if body.files:
        await require(request, parts, caller, Permission.FILE_READ)
    submission = await submission_of(parts, caller, body)
    seen, result = await run_to_its_end(request, parts, caller, submission)
    made, notes = await keep(parts, caller, seen, session := new_session())
    stdout, stderr = output(seen, result, notes)
    return ExecAnswer(
        session_id=session, stdout=stdout, stderr=stderr, files=[FileRef.of(each) for each in made]
    )


@router.post(f"{PREFIX}upload", openapi_extra=FORM)
@router.post(f"{PREFIX}upload/batch", openapi_extra=FORM)
async def upload(request: Request, caller: CanWriteFiles, parts: Parts) -> Uploaded:
    """Store the files of a form as those of a new session."""
    uploading = Uploading(parts, caller, request)
    return Uploaded.of(uploading.session, await taken(request, uploading.all_of))


@router.get(f"{PREFIX}files/{{session_id}}", dependencies=WHOSE)
async def list_files(
    session_id: str,
    caller: CanReadFiles,
    parts: Parts,
) -> list[FileObject]:
    """Return a session's files by name."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        found = await of_session(tx, session_id)
    return [FileObject.of(each) for each in found]


@router.get(f"{PREFIX}sessions/{{session_id}}/objects/{{file_id}}", dependencies=WHOSE)
async def look(
    session_id: str,
    file_id: str,
    caller: CanReadFiles,
    parts: Parts,
) -> FileObject:
    """Return facts about a file: LibreChat asks when it was uploaded."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        return FileObject.of(await one(tx, session_id, file_id))


@router.get(
    f"{PREFIX}download/{{session_id}}/{{file_id}}",
    dependencies=WHOSE,
    response_class=StreamingResponse,
)
async def download(
    session_id: str,
    file_id: str,
    caller: CanReadFiles,
    parts: Parts,
) -> StreamingResponse:
    """Stream a file, always as an attachment."""
    async with parts.database.tenant(caller.tenant_id) as tx:
        file = await one(tx, session_id, file_id)
        stored = await files.read(tx, caller, file.stored.path)
    return StreamingResponse(
        await begun(parts.objects.read(stored.object_key)),
        media_type=UNKNOWN,
        headers={
            "Content-Length": str(stored.size),
            "Content-Disposition": representation.attachment(file.name),
            "Content-Security-Policy": "sandbox; default-src 'none'",
        },
    )
