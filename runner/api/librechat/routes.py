"""LibreChat's routes: run code, upload files, list them, download them."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from runner.api import representation
from runner.api.attended import run_to_its_end
from runner.api.deps import Allow, Dependencies, Parts, require
from runner.api.edge.json import JsonRoute
from runner.api.librechat.messages import (
    ExecAnswer,
    ExecRequest,
    FileObject,
    FileRef,
    Uploaded,
)
from runner.api.librechat.paths import EXEC, PREFIX
from runner.api.librechat.sessions import (
    NO_FILE,
    SessionFile,
    expiry,
    folder,
    new_session,
    of_session,
    one,
)
from runner.api.librechat.uploads import Uploading
from runner.api.requests import Submission
from runner.api.uploads import BYTES, UNKNOWN, taken
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.base.settings import LIBRECHAT
from runner.executions.order import CODE_FILES
from runner.executions.read import Seen, artifacts
from runner.store.files import NewFile
from runner.tenants import files
from runner.words.errors import NotFound
from runner.words.execution import Result, Stream
from runner.words.paths import file_path
from runner.words.states import State

METADATA = {"made-by": "librechat"}

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
    submission = await _submission(parts, caller, body)
    seen, result = await run_to_its_end(request, parts, caller, submission)
    made, notes = await _keep(parts, caller, seen, session := new_session())
    stdout, stderr = _output(seen, result, notes)
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
        parts.objects.read(stored.object_key),
        media_type=UNKNOWN,
        headers={
            "Content-Length": str(stored.size),
            "Content-Disposition": representation.attachment(file.name),
            "Content-Security-Policy": "sandbox; default-src 'none'",
        },
    )


async def _submission(parts: Dependencies, caller: Caller, body: ExecRequest) -> Submission:
    """Return the same as `POST /v1/executions` takes it.

    Raises RequestValidationError, and NotFound for a file that is not there.
    """
    placed, known = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    async with parts.database.tenant(caller.tenant_id) as tx:
        for each in body.files:
            # A session is read once, however many of its files are named.
            if (session := each.session) not in known:
                found = await of_session(tx, session)
                known[session] = {file.id: file.stored.path for file in found}
            if (path := known[session].get(each.id)) is None:
                raise NotFound(NO_FILE)
            placed[each.name] = {"key": path}
    program: dict[str, object] = {"code": body.code, "language": body.language}
    name, command = CODE_FILES[body.language]
    if body.args or name in placed:
        while name in placed:
            name = f"_{name}"
        placed[name] = {"text": body.code}
        program = {"command": [*command[:-1], name, *body.args]}
    limits = {} if body.timeout is None else {"timeout_s": body.timeout / 1000}
    try:
        return Submission.model_validate(
            {
                **program,
                "files": placed,
                "limits": limits,
                "image": LIBRECHAT,
                "metadata": METADATA,
            }
        )
    except ValidationError as error:
        raise RequestValidationError(
            [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
        ) from None


async def _keep(
    parts: Dependencies, caller: Caller, seen: Seen, session: str
) -> tuple[Sequence[SessionFile], list[str]]:
    """Make what the code left the files of a session; return them, and what could not be one."""
    new, notes = list[NewFile](), list[str]()
    async with parts.database.tenant(caller.tenant_id) as tx:
        for each in await artifacts(tx, seen.execution.id):
            artifact = each.artifact
            try:
                path = file_path(folder(session) + artifact.path)
            except ValueError as error:
                notes.append(f"{artifact.path} was not kept: its path {error}")
                continue
            new.append(
                NewFile(
                    path,
                    artifact.size,
                    artifact.sha256,
                    artifact.media_type,
                    each.object_key,
                    expiry(),
                )
            )
        stored = await files.adopt(tx, caller, new)
    return [SessionFile(session, each) for each in stored], notes


def _output(seen: Seen, result: Result, notes: list[str]) -> tuple[str, str]:
    """Return stdout and stderr; the latter also says why code was ended, and what is missing."""
    output = seen.output or {}
    stdout, stderr = (
        output[each].raw.decode(errors="replace") if each in output else ""
        for each in (Stream.STDOUT, Stream.STDERR)
    )
    if seen.execution.state not in {State.SUCCEEDED, State.FAILED}:
        notes = [result.detail, *notes]
    notes = notes + [f"files: {each}" for each in result.artifacts_refused]
    notes = notes + [
        f"{name} was cut: {stream.total_bytes} bytes were written"
        for name, stream in (("stdout", result.stdout), ("stderr", result.stderr))
        if stream.truncated
    ]
    return stdout, "\n".join([*([stderr.removesuffix("\n")] if stderr else []), *notes])
