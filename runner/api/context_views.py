"""Answers of the API about code contexts, and the events of a run."""

import codecs
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Self

from pydantic import ConfigDict, Field

from runner.api.sandbox_views import signal_name
from runner.api.views import View
from runner.door.replies import (
    GapReply,
    RaisedReply,
    ResultReply,
    RunEndedReply,
    ValueReply,
)
from runner.door.streams import RunPart
from runner.door.wire import Chunk
from runner.words.living import ContextInfo, ContextState, Language

_OUTPUTS = {b"O": "stdout", b"E": "stderr"}


class ContextView(View):
    """An interpreter in a sandbox that keeps its variables."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "context": 3,
                    "language": "python",
                    "cwd": "/workspace",
                    "state": "idle",
                    "created_at": "2026-01-05T12:00:00Z",
                }
            ]
        }
    )

    context: int = Field(description="Its number in the sandbox. No number is used twice.")
    language: Language
    cwd: str = Field(description="The folder it started in.")
    state: ContextState = Field(
        description="`ended` means that its interpreter has ended; it may be restarted."
    )
    created_at: datetime

    @classmethod
    def of(cls, info: ContextInfo) -> Self:
        """Return the view of a context."""
        return cls(
            context=info.number,
            language=info.language,
            cwd=info.cwd,
            state=info.state,
            created_at=info.created_at,
        )


class ContextList(View):
    """The contexts of a sandbox, in order of their beginning."""

    items: list[ContextView]


class RunEventView(View):
    """An event of a run, as the `data` of a server-sent event."""

    text: str | None = Field(default=None, description="Of `stdout` and `stderr`.")
    data: dict[str, Any] | None = Field(
        default=None,
        description="Of `result`: its value in each kind that it has, by media type. Pictures and "
        "PDF are base64; `application/json` and types that end in `+json` are JSON.",
    )
    is_main: bool | None = Field(
        default=None, description="Of `result`: whether it is the value of the code's last line."
    )
    truncated: bool | None = Field(
        default=None, description="Of `result`: whether the sandbox no longer keeps a part of it."
    )
    name: str | None = Field(default=None, description="Of `error`: its class.")
    value: str | None = Field(default=None, description="Of `error`: its message.")
    traceback: str | None = Field(default=None, description="Of `error`.")
    omitted_bytes: int | None = Field(default=None, description="Of `gap`.")
    ok: bool | None = Field(default=None, description="Of `ended`: whether nothing has failed.")
    execution_count: int | None = Field(
        default=None, description="Of `ended`: how many pieces of code the context has run."
    )
    exit_code: int | None = Field(default=None, description="Of `ended`.")
    signal: str | None = Field(
        default=None, description="Of `ended`: the signal that ended the interpreter."
    )
    timed_out: bool | None = Field(default=None, description="Of `ended`.")
    context_ended: bool | None = Field(
        default=None,
        description="Of `ended`: whether the interpreter has ended, with all of its variables.",
    )


class RunEvents:
    """Writes the parts of a run as server-sent events.

    A result may be large, so it is written piece by piece as it comes: its event begins with its
    first value, and ends with the result. JSON is passed on as the node has checked and written
    it, because reading it again would hold up the event loop.
    """

    def __init__(self, parts: AsyncIterator[RunPart]) -> None:
        self._parts = parts
        self._utf8 = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in b"OED"}
        self._is_json = False
        """Whether the value that is coming is JSON."""
        self._empty = True
        """Whether nothing of it has come."""
        self.within = False
        """Whether an event has begun that has not ended."""
        self._valued = False
        """Whether a value of the current result has begun that has not ended."""

    async def written(self) -> AsyncIterator[bytes]:
        """Yield their bytes."""
        async for part in self._parts:
            yield "".join(self._write(part)).encode()

    def _write(self, part: RunPart) -> Iterator[str]:
        match part:
            case Chunk(b"D", data):
                yield from self._continue_value(self._utf8[ord("D")].decode(data))
            case Chunk(kind, data):
                text = self._utf8[ord(kind)].decode(data)
                if text:
                    yield _event(_OUTPUTS[kind], {"text": text})
            case ValueReply(mime=mime, json=is_json):
                yield from self._end_value()
                yield ", " if self.within else 'event: result\ndata: {"data": {'
                yield f"{json.dumps(mime)}: "
                self.within = self._valued = True
                self._is_json, self._empty = is_json, True
                if not is_json:
                    yield '"'
            case ResultReply(main=main, truncated=truncated):
                yield from self._end_value()
                facts = json.dumps({"is_main": main, "truncated": truncated})
                yield "}, " + facts[1:] + "\n\n"
                self.within = False
            case RaisedReply(error=name, value=value, traceback=traceback):
                yield _event("error", {"name": name, "value": value, "traceback": traceback})
            case GapReply(omitted=omitted):
                yield _event("gap", {"omitted_bytes": omitted})
            case RunEndedReply():
                yield _event("ended", _ended(part))

    def _continue_value(self, text: str) -> Iterator[str]:
        self._empty = self._empty and not text
        yield one_line(text) if self._is_json else json.dumps(text)[1:-1]

    def _end_value(self) -> Iterator[str]:
        if not self._valued:
            return
        self._valued = False
        rest = self._utf8[ord("D")].decode(b"", final=True)
        yield from self._continue_value(rest)
        if not self._is_json:
            yield '"'
        elif self._empty:
            yield "null"


def one_line(text: str) -> str:
    """Return a part of JSON without line breaks. In JSON, they stand only where spaces may."""
    return text.replace("\n", " ").replace("\r", " ")


def _ended(reply: RunEndedReply) -> dict[str, Any]:
    return {
        "ok": reply.exit_code == 0 and not reply.gone and not reply.timed_out,
        "execution_count": reply.count,
        "exit_code": None if reply.signal else reply.exit_code,
        "signal": signal_name(reply.signal),
        "timed_out": reply.timed_out,
        "context_ended": reply.gone,
    }


def _event(name: str, facts: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(facts)}\n\n"
