"""Code as an execution: LibreChat's request as a submission, and what the code left as files."""

from collections.abc import Mapping, Sequence

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from runner.api.deps import Dependencies
from runner.api.librechat.messages import ExecRequest, FileReference
from runner.api.librechat.sessions import NO_FILE, SessionFile, expiry, folder, of_session
from runner.api.requests import Submission
from runner.auth.caller import Caller
from runner.base.settings import LIBRECHAT
from runner.executions.order import CODE_FILES
from runner.executions.read import Seen, artifacts
from runner.store.files import NewFile
from runner.tenants import files
from runner.words.errors import NotFound
from runner.words.execution import Result, Stream
from runner.words.paths import file_path
from runner.words.states import State
from runner.words.text import counted

METADATA = {"made-by": "librechat"}


async def submission_of(parts: Dependencies, caller: Caller, body: ExecRequest) -> Submission:
    """Return the same as `POST /v1/executions` takes it.

    Raises RequestValidationError, and NotFound for a file that is not there.
    """
    placed = await placed_files(parts, caller, body.files)
    program: dict[str, object] = {"code": body.code, "language": body.language}
    name, command = CODE_FILES[body.language]
    if body.args or name in placed:
        name = unused(name, placed)
        placed[name] = {"text": body.code}
        program = {"command": [*command[:-1], name, *body.args]}
    return submitted(program, placed, body.timeout)


def unused(name: str, placed: Mapping[str, object]) -> str:
    """Return a name for a file of ours that is none of the user's."""
    while name in placed:
        name = f"_{name}"
    return name


async def placed_files(
    parts: Dependencies, caller: Caller, named: Sequence[FileReference]
) -> dict[str, dict[str, str]]:
    """Return the files that a request names, by where they are to be. Raises NotFound."""
    placed, known = dict[str, dict[str, str]](), dict[str, dict[str, str]]()
    async with parts.database.tenant(caller.tenant_id) as tx:
        for each in named:
            # A session is read once, however many of its files are named.
            if (session := each.session) not in known:
                found = await of_session(tx, session)
                known[session] = {file.id: file.stored.path for file in found}
            if (path := known[session].get(each.id)) is None:
                raise NotFound(NO_FILE)
            placed[each.name] = {"key": path}
    return placed


def submitted(
    program: Mapping[str, object], placed: Mapping[str, Mapping[str, str]], timeout: int | None
) -> Submission:
    """Return what runs a program beside these files. Raises RequestValidationError."""
    limits = {} if timeout is None else {"timeout_s": timeout / 1000}
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


async def keep(
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


def output(seen: Seen, result: Result, notes: list[str]) -> tuple[str, str]:
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
        f"{name} was cut: the program wrote {counted(stream.total_bytes, 'byte')}"
        for name, stream in (("stdout", result.stdout), ("stderr", result.stderr))
        if stream.truncated
    ]
    return stdout, "\n".join([*([stderr.removesuffix("\n")] if stderr else []), *notes])
