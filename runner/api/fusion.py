"""`POST /run_code`: code run once, in SandboxFusion's form, for programs that speak that form.

Off by default. Each run is an execution like any other. SandboxFusion's clients send no key of
their own, but every HTTP library makes one of an address such as `https://key:rk_…@host/run_code`:
a key may therefore come as the password of Basic authentication (RFC 7617).
"""

import base64
import signal
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.api.attended import run_to_its_end
from runner.api.deps import Allow, Dependencies, Parts, require
from runner.api.edge.groups import RUN_CODE
from runner.api.edge.json import JsonRoute
from runner.api.requests import MAX_ARTIFACT_NAMES, MAX_FILES, Submission
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.executions.read import Seen, artifacts
from runner.words.execution import Execution, Result, Stream
from runner.words.states import State
from runner.words.text import counted

MAX_FETCHED = 16 * 2**20
"""Bytes of all fetched files together."""
NOTHING = "**/.no-file-is-fetched"
"""Matches no file: without any pattern, every file that code leaves would be kept."""
LANGUAGES: Mapping[str, str] = MappingProxyType(
    {"python": "python", "nodejs": "javascript", "typescript": "typescript", "bash": "bash"}
)
"""Our languages by SandboxFusion's names."""
CPP = "cpp"
CPP_IMAGE = "code"
"""The image that has a compiler; it is offered where the operator offers the image."""
SOURCE, PROGRAM = "main.cpp", "main"
COMPILE = ["g++", "-std=c++17", "-O2", "-pthread", "-o", PROGRAM, SOURCE]
START = f"chmod u+x {PROGRAM} && exec ./{PROGRAM}"
METADATA = {"made-by": "sandbox-fusion"}
ENDED_BY_ITSELF = frozenset({State.SUCCEEDED, State.FAILED, State.OUT_OF_MEMORY})

router = APIRouter(route_class=JsonRoute)
CanRun = Annotated[Caller, Depends(Allow(Permission.EXECUTION_CREATE))]


class FusionRequest(BaseModel):
    """Code to run. Fields of SandboxFusion that are not here are ignored, as it ignores them."""

    model_config = ConfigDict(strict=True, frozen=True)

    code: str
    language: str
    stdin: str | None = None
    compile_timeout: float = 10
    run_timeout: float = 10
    memory_limit_mb: int = Field(default=-1, alias="memory_limit_MB")
    files: dict[str, str | None] = Field(default_factory=dict, max_length=MAX_FILES)
    fetch_files: list[str] = Field(default_factory=list, max_length=MAX_ARTIFACT_NAMES)

    def compilation(self) -> Submission:
        """Return what compiles the code. Raises RequestValidationError."""
        return self._submission(
            command=COMPILE,
            files={**self._files, SOURCE: {"text": self.code}},
            artifacts=[PROGRAM],
            limits={"timeout_s": self.compile_timeout},
            image=CPP_IMAGE,
        )

    def submission(self, program: bytes | None = None) -> Submission:
        """Return what runs the code, or the program that it was compiled to.

        Raises RequestValidationError.
        """
        limits: dict[str, Any] = {"timeout_s": self.run_timeout}
        if self.memory_limit_mb > 0:
            limits["memory_mb"] = self.memory_limit_mb
        run: dict[str, Any] = {"files": self._files}
        if program is None:
            run |= {"code": self.code, "language": LANGUAGES[self.language]}
        else:
            compiled = {PROGRAM: {"base64": base64.b64encode(program).decode()}}
            run = {"command": START, "files": self._files | compiled, "image": CPP_IMAGE}
        artifacts = self.fetch_files or [NOTHING]
        return self._submission(**run, stdin=self.stdin, artifacts=artifacts, limits=limits)

    @property
    def _files(self) -> dict[str, dict[str, str]]:
        return {path: {"base64": each} for path, each in self.files.items() if each is not None}

    def _submission(self, **fields: Any) -> Submission:
        try:
            return Submission.model_validate({**fields, "metadata": METADATA})
        except ValidationError as error:
            raise RequestValidationError(
                [{**each, "loc": ("body", *each["loc"])} for each in error.errors()]
            ) from None


class FusionRun(View):
    """The end of a command. `execution_time` is in seconds."""

    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float
    return_code: int | None
    stdout: str
    stderr: str


class FusionAnswer(View):
    """The answer of a run. `files` are base64, by the paths that were asked for."""

    status: Literal["Success", "Failed", "SandboxError"]
    message: str
    compile_result: FusionRun | None
    run_result: FusionRun | None
    executor_pod_name: None = None
    files: dict[str, str]


# Not in the OpenAPI document: the form is SandboxFusion's.
@router.post(RUN_CODE, status_code=HTTPStatus.OK, include_in_schema=False)
async def run_code(
    request: Request, body: FusionRequest, caller: CanRun, parts: Parts
) -> FusionAnswer:
    """Run code, and answer when it has ended. If the client hangs up, the code is cancelled.

    The answer is the execution's output and files, so the key must be permitted to read them.
    """
    await require(request, parts, caller, Permission.EXECUTION_READ)
    if body.fetch_files:
        await require(request, parts, caller, Permission.ARTIFACT_READ)
    offered = [*LANGUAGES, *([CPP] if CPP_IMAGE in parts.settings.images else [])]
    if body.language not in offered:
        known = ", ".join(offered)
        raise _invalid("language", f"{body.language!r} is not offered; choose one of {known}")
    if body.language != CPP:
        return await _run(request, parts, caller, body, body.submission())
    seen, result = await run_to_its_end(request, parts, caller, body.compilation())
    made = await _fetched(parts, caller, seen.execution.id, [PROGRAM])
    if seen.execution.state is not State.SUCCEEDED or PROGRAM not in made:
        failed = answer(seen, result, {})
        return failed.model_copy(update={"compile_result": failed.run_result, "run_result": None})
    submission = body.submission(made[PROGRAM])
    return await _run(request, parts, caller, body, submission, _ran(seen, result))


async def _run(
    request: Request,
    parts: Dependencies,
    caller: Caller,
    body: FusionRequest,
    submission: Submission,
    compiled: FusionRun | None = None,
) -> FusionAnswer:
    seen, result = await run_to_its_end(request, parts, caller, submission)
    fetched = await _fetched(parts, caller, seen.execution.id, body.fetch_files)
    return answer(seen, result, fetched, compiled)


def answer(
    seen: Seen, result: Result, files: Mapping[str, bytes], compiled: FusionRun | None = None
) -> FusionAnswer:
    """Return how an execution ended in SandboxFusion's words."""
    ran = _ran(seen, result)
    status: Literal["Success", "Failed", "SandboxError"] = "Failed"
    if ran is None:
        status = "SandboxError"
    elif seen.execution.state is State.SUCCEEDED:
        status = "Success"
    notes = [] if status == "Success" else [result.detail]
    notes += [
        f"{name} was cut: the program wrote {counted(output.total_bytes, 'byte')}"
        for name, output in (("stdout", result.stdout), ("stderr", result.stderr))
        if output.truncated
    ]
    return FusionAnswer(
        status=status,
        message="; ".join(notes),
        compile_result=compiled,
        run_result=ran,
        files={path: base64.b64encode(each).decode() for path, each in files.items()},
    )


def _ran(seen: Seen, result: Result) -> FusionRun | None:
    """Return how the program ended; None if the service is to blame, and not the program."""
    state, code = seen.execution.state, result.exit_code
    if state is State.TIMED_OUT:
        code = None
    elif state in ENDED_BY_ITSELF:
        code = _return_code(seen.execution, result)
    elif state is not State.OUTPUT_LIMIT_EXCEEDED:
        return None
    output = seen.output or {}
    said = {
        each: output[each].raw.decode(errors="replace") if each in output else "" for each in Stream
    }
    return FusionRun(
        status="TimeLimitExceeded" if state is State.TIMED_OUT else "Finished",
        execution_time=result.usage.wall_s,
        return_code=code,
        stdout=said[Stream.STDOUT],
        stderr=said[Stream.STDERR],
    )


def _return_code(execution: Execution, result: Result) -> int:
    """Return the exit code; minus the number of a signal, as Python's subprocess has it."""
    if result.signal is not None:
        number = getattr(signal, result.signal, None)
        return -int(number or result.signal.removeprefix("SIG"))
    if not result.exit_code and execution.state is not State.SUCCEEDED:
        # The kernel or the service killed it, as at its memory limit.
        return -int(signal.SIGKILL)
    return result.exit_code or 0


async def _fetched(
    parts: Dependencies, caller: Caller, execution_id: UUID, wanted: Sequence[str]
) -> dict[str, bytes]:
    """Return the wanted files that the program left. Raises HTTPException if they are too large."""
    if not wanted:
        return {}
    async with parts.database.tenant(caller.tenant_id) as tx:
        kept = await artifacts(tx, execution_id)
    if sum(each.artifact.size for each in kept) > MAX_FETCHED:
        raise HTTPException(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the files to fetch exceed {MAX_FETCHED // 2**20} MiB together: they are at "
            f"/v1/executions/{execution_id}/artifacts",
        )
    return {
        each.artifact.path: b"".join([part async for part in parts.objects.read(each.object_key)])
        for each in kept
    }


def _invalid(field: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"type": "value_error", "loc": ("body", field), "msg": message}])
