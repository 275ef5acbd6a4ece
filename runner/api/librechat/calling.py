"""Code that calls LibreChat's tools (programmatic tool calling), in as many runs as it needs.

LibreChat sends code and the names of its tools. If the code waits for some, the answer says for
which, and has a token. LibreChat calls its tools and sends the token back with their results. The
code then runs again from its beginning, with these results (`replay`). The token holds the code and
all results so far, so nothing is kept here. It needs no seal: whoever changes it could as well have
sent other code.
"""

import asyncio
import base64
import binascii
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from runner.api.attended import run_to_its_end
from runner.api.deps import Allow, Parts, require
from runner.api.edge.json import JsonRoute, NotStrict, aside, read
from runner.api.fields import Text
from runner.api.librechat import replay
from runner.api.librechat.messages import ExecAnswer, FileRef, FileReference
from runner.api.librechat.paths import PROGRAMMATIC
from runner.api.librechat.runs import keep, output, placed_files, submitted, unused
from runner.api.librechat.sessions import new_session
from runner.api.requests import MAX_CODE, MAX_FILES
from runner.api.views import View
from runner.auth.caller import Caller
from runner.auth.permissions import Permission
from runner.words.errors import Invalid
from runner.words.execution import Stream

MAX_TOOLS = 256
MAX_CALLS = 1000
"""Calls of one piece of code, over all its runs."""
RUNS, KNOWN = "_calls.py", "_calls.json"
NO_TOKEN = "continuation_token is no token of this API, or has been changed"  # noqa: S105 - an answer
router = APIRouter(route_class=JsonRoute, include_in_schema=False)
CanRun = Annotated[Caller, Depends(Allow(Permission.EXECUTION_CREATE))]


def _of_json(value: Any) -> Any:
    """Refuse what an answer in JSON cannot hold, wherever it is in a value."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        raise ValueError("must hold finite numbers and valid Unicode only") from None
    return value


class _Sent(BaseModel):
    """A request of LibreChat. Fields that are not here are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)


class CalledTool(_Sent):
    """A tool that code may call. What it takes is between the code and LibreChat."""

    name: Annotated[Text, StringConstraints(min_length=1, max_length=256)]


class ToolWanted(_Sent):
    """A call that the code waits for."""

    id: Text
    name: Text
    input: Annotated[dict[str, Any], AfterValidator(_of_json)]


class ToolOutcome(_Sent):
    """The result of a call."""

    call_id: Text
    result: Annotated[Any, AfterValidator(_of_json)] = None
    is_error: bool = False
    error_message: Text | None = None


class CallingCode(_Sent):
    """Code to run, with the names of tools; the first of its requests."""

    code: Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CODE)]
    lang: Literal["py", "python"] = "py"
    tools: list[CalledTool] = Field(default_factory=list, max_length=MAX_TOOLS)
    files: list[FileReference] = Field(default_factory=list, max_length=MAX_FILES)
    timeout: int | None = Field(default=None, ge=1)
    """Milliseconds for one run of it."""


class Going(_Sent):
    """Code that waits for tools: all that its next run needs."""

    code: CallingCode
    known: list[tuple[ToolWanted, ToolOutcome]] = Field(default_factory=list, max_length=MAX_CALLS)
    asked: list[ToolWanted] = Field(default_factory=list, max_length=MAX_CALLS)

    @property
    def token(self) -> str:
        """All of this as a text."""
        return base64.urlsafe_b64encode(self.model_dump_json().encode()).decode()

    @classmethod
    def of(cls, token: str) -> Self:
        """Return what a token holds, if it is as strict as a body. Raises Invalid."""
        try:
            held = base64.b64decode(token, b"-_", validate=True)
            # Few bytes can hold many values, which take far more memory and time than the bytes.
            read(held)
            return cls.model_validate_json(held)
        except NotStrict as error:
            raise Invalid(f"what continuation_token holds {error}", "continuation_token") from error
        except (binascii.Error, ValidationError, ValueError) as error:
            raise Invalid(NO_TOKEN, "continuation_token") from error

    def answered(self, outcomes: Sequence[ToolOutcome]) -> Self:
        """Return the same with the results of what was asked for. Raises Invalid."""
        came = {each.call_id: each for each in outcomes}
        if missing := [each.id for each in self.asked if each.id not in came]:
            raise Invalid(f"tool_results has no result of the call {missing[0]}", "tool_results")
        new = [(each, came[each.id]) for each in self.asked]
        return self.model_copy(update={"known": [*self.known, *new], "asked": []})

    def waiting(self, wanted: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> Self:
        """Return the same when it waits for more calls. Raises Invalid if they are too many."""
        first = len(self.known) + 1
        if first + len(wanted) > MAX_CALLS:
            raise Invalid(f"the code makes more than {MAX_CALLS} calls of tools", "code")
        asked = [
            ToolWanted(id=f"call_{number}", name=names[each["name"]], input=each["input"])
            for number, each in enumerate(wanted, first)
        ]
        return self.model_copy(update={"asked": asked})


class CodeOrResults(_Sent):
    """Either code, or a token with the results that its code waits for."""

    model_config = ConfigDict(extra="allow")

    continuation_token: str | None = None
    tool_results: list[ToolOutcome] = Field(default_factory=list, max_length=MAX_CALLS)

    def going(self) -> Going:
        """Return the code that is to run now. Raises Invalid."""
        if self.continuation_token is not None:
            return Going.of(self.continuation_token).answered(self.tool_results)
        try:
            return Going(code=CallingCode.model_validate(self.model_extra))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise Invalid(f"{field}: {first['msg']}", field) from error


class Waits(View):
    """The code waits for tools."""

    status: Literal["tool_call_required"] = "tool_call_required"
    continuation_token: str
    tool_calls: list[dict[str, Any]]


class Completed(ExecAnswer):
    """The code has ended."""

    status: Literal["completed"] = "completed"


@router.post(PROGRAMMATIC)
async def run(
    request: Request, body: CodeOrResults, caller: CanRun, parts: Parts
) -> Waits | Completed:
    """Run code until it ends, or waits for tools. Raises Invalid and NotFound."""
    await require(request, parts, caller, Permission.EXECUTION_READ)
    await require(request, parts, caller, Permission.FILE_WRITE)
    going, names, told = await aside(request.scope, partial(_prepared, body))
    if going.code.files:
        await require(request, parts, caller, Permission.FILE_READ)
    placed = await placed_files(parts, caller, going.code.files)
    runs, known = (unused(name, placed) for name in (RUNS, KNOWN))
    placed[runs] = {"text": await asyncio.to_thread(Path(replay.__file__).read_text)}
    placed[known] = {"text": told}
    program = {"command": ["python3", runs, known], "output_keep": "head_and_tail"}
    submission = submitted(program, placed, going.code.timeout)
    seen, result = await run_to_its_end(request, parts, caller, submission)
    said = (seen.output or {}).get(Stream.STDERR)
    if said is not None and (wanted := wanted_calls(said.raw, names)):
        waiting = going.waiting(wanted, names)
        calls = [each.model_dump() for each in waiting.asked]
        token = await aside(request.scope, lambda: waiting.token)
        return Waits(continuation_token=token, tool_calls=calls)
    made, notes = await keep(parts, caller, seen, session := new_session())
    stdout, stderr = output(seen, result, notes)
    return Completed(
        session_id=session, stdout=stdout, stderr=stderr, files=[FileRef.of(each) for each in made]
    )


def _prepared(body: CodeOrResults) -> tuple[Going, dict[str, str], str]:
    """Return the code to run, its tools' names, and what the program is told. Raises Invalid."""
    going = body.going()
    names = _names(going.code.tools)
    return going, names, json.dumps(_told(going, names))


def _told(going: Going, names: Mapping[str, str]) -> dict[str, object]:
    """Return what the program in the sandbox is told."""
    called = {name: python for python, name in names.items()}
    known = [
        {"name": called.get(call.name), "input": call.input, **outcome.model_dump()}
        for call, outcome in going.known
    ]
    return {"code": going.code.code, "names": [*names], "known": known}


def _names(tools: Sequence[CalledTool]) -> dict[str, str]:
    """Return the tools' names by those of their functions, as LibreChat tells them to models."""
    found: dict[str, str] = {}
    for each in tools:
        name = re.sub(r"[^a-zA-Z0-9_]", "", re.sub(r"[-\s]", "_", each.name))
        name = f"_{name}" if name[:1].isdigit() else name
        name = f"{name}_tool" if keyword.iskeyword(name) else name
        if not name or found.setdefault(name, each.name) != each.name:
            said = f"the name {each.name!r:.80} in tools is no function's, or another tool's, too"
            raise Invalid(said, "tools")
    return found


def wanted_calls(stderr: bytes, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the calls that the code waits for: none if it has ended.

    Code may write this line itself; then it asks for what it could also have called. What no answer
    could hold is none.
    """
    last = stderr.decode(errors="replace").removesuffix("\n").rpartition("\n")[2]
    if not last.startswith(replay.ASKED):
        return []
    try:
        wanted = read(last.removeprefix(replay.ASKED).encode())
        # One more than there may be shows that there are too many.
        calls = [ToolWanted.model_validate({"id": "", **each}) for each in wanted[: MAX_CALLS + 1]]
    except (TypeError, ValueError, KeyError):
        return []
    if not all(each.name in names for each in calls):
        return []
    return [{"name": each.name, "input": each.input} for each in calls]
