"""E2B's code interpreter: code run in contexts, and their life.

Whoever names no context means the one of the language that all have in common.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, StringConstraints, model_validator
from starlette.types import Send

from runner.api.context import request_id
from runner.api.context_requests import MAX_CODE, Env
from runner.api.deps import Dependencies, Parts
from runner.api.e2b.executed import KEEP_ALIVE, ExecutionLines
from runner.api.e2b.inside import InSandbox
from runner.api.edge.json import JsonRoute
from runner.api.fields import Strict, Text
from runner.api.kept_alive import kept_alive
from runner.api.sandbox_requests import SandboxPath
from runner.api.uploads import left
from runner.auth.caller import Caller
from runner.base.tasks import attended
from runner.door.streams import RunStream
from runner.words.errors import Invalid, RunnerError
from runner.words.living import ContextInfo, Language

NUMBER = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
"""A context's, as text."""
LANGUAGES: dict[str, Language] = {
    "python": "python",
    "python3": "python",
    "javascript": "javascript",
    "js": "javascript",
    "bash": "bash",
}
"""Ours by the names that E2B's clients know."""

router = APIRouter(route_class=JsonRoute)
_log = structlog.get_logger("runner.api")

LanguageName = Annotated[Text, StringConstraints(max_length=64)]
ContextName = Annotated[Text, StringConstraints(max_length=256)]


class CodeToExecute(Strict):
    """Code to run, in a context or in the shared one of a language."""

    code: Annotated[Text, StringConstraints(max_length=MAX_CODE)]
    context_id: ContextName | None = None
    language: LanguageName | None = None
    env_vars: Env | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.context_id is not None and self.language is not None:
            raise ValueError("only one of context_id and language may be given")
        return self


class ContextToMake(Strict):
    """A context to begin."""

    language: LanguageName | None = None
    cwd: SandboxPath | None = None


class ContextAnswer(BaseModel):
    """A context."""

    id: str = Field(description="Its number in the sandbox, as text.")
    language: Language
    cwd: str

    @classmethod
    def of(cls, info: ContextInfo) -> Self:
        """Return the answer for a context."""
        return cls(id=str(info.number), language=info.language, cwd=info.cwd)


@dataclass(frozen=True, slots=True)
class Executing:
    """Code that runs, and what it is written in."""

    stream: RunStream
    language: Language


async def executing(
    body: CodeToExecute, inside: InSandbox, parts: Parts
) -> AsyncIterator[Executing]:
    """Begin before the answer begins, and interrupt the code if the answer ends early."""
    using, caller, sandbox_id = parts.using, inside.caller, inside.sandbox_id
    if body.context_id is None:
        language = _language(body.language)
        context = await using.open_context(caller, sandbox_id, language, shared=True)
    else:
        context = await _known(parts, caller, sandbox_id, body.context_id)
    async with using.run_code(
        caller, sandbox_id, context.number, body.code, env=body.env_vars
    ) as stream:
        yield Executing(stream, context.language)


@router.post("/execute", response_class=StreamingResponse)
async def execute(
    request: Request, run: Annotated[Executing, Depends(executing)]
) -> StreamingResponse:
    """Run code, and stream what happens as lines of JSON until it has ended.

    If the client hangs up, the code is interrupted. If the sandbox ends, the answer breaks off.
    """
    lines = ExecutionLines(run.stream.parts(), run.language)
    told = kept_alive(aiter(lines.written()), KEEP_ALIVE, within=lambda: lines.within)
    return BreaksOff(told, request_id(request))


@router.post("/contexts")
async def create(
    request: Request, body: ContextToMake, inside: InSandbox, parts: Parts
) -> ContextAnswer:
    """Begin an interpreter that keeps its variables from one run to the next."""
    opening = parts.using.open_context(
        inside.caller, inside.sandbox_id, _language(body.language), cwd=body.cwd
    )
    return ContextAnswer.of(await attended(opening, left(request)))


@router.get("/contexts")
async def list_contexts(inside: InSandbox, parts: Parts) -> list[ContextAnswer]:
    """Return the sandbox's contexts, in order of their beginning."""
    found = await parts.using.contexts(inside.caller, inside.sandbox_id)
    return [ContextAnswer.of(each) for each in found]


@router.post("/contexts/{context}/restart", status_code=HTTPStatus.NO_CONTENT)
async def restart(request: Request, context: str, inside: InSandbox, parts: Parts) -> None:
    """Give a context a new interpreter, without variables. Code that runs is ended."""
    number = _number(context)
    again = parts.using.restart(inside.caller, inside.sandbox_id, number)
    await attended(again, left(request))


@router.delete("/contexts/{context}", status_code=HTTPStatus.NO_CONTENT)
async def remove(context: str, inside: InSandbox, parts: Parts) -> None:
    """End a context, with all that its code has started."""
    await parts.using.close_context(inside.caller, inside.sandbox_id, _number(context))


class BreaksOff(StreamingResponse):
    """An answer that is left without an end if what it tells of breaks off.

    The server then cuts the connection, so that nobody takes the answer for whole.
    """

    def __init__(self, content: AsyncIterator[bytes], request: str) -> None:
        super().__init__(content, media_type="application/x-ndjson")
        self._request = request

    async def stream_response(self, send: Send) -> None:
        """Send the answer."""
        try:
            await super().stream_response(send)
        except RunnerError as error:
            _log.info("run_broke_off", detail=error.detail, request=self._request)


def _language(name: str | None) -> Language:
    """Return the language of that name. Raises Invalid for one that there is not."""
    if name is None:
        return "python"
    known = LANGUAGES.get(name.strip().lower())
    if known is None:
        there_are = ", ".join(sorted(set(LANGUAGES.values())))
        raise Invalid(f"code cannot be written in {name!r} here; there are {there_are}", "language")
    return known


def _number(context: str) -> int:
    """Return a context's number. Raises NotFound for what is none."""
    if NUMBER.fullmatch(context) is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"there is no context {context!r}")
    return int(context)


async def _known(
    parts: Dependencies, caller: Caller, sandbox_id: UUID, context: str
) -> ContextInfo:
    return await parts.using.context(caller, sandbox_id, _number(context))
