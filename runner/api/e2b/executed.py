"""Events of a run, as E2B's clients of the code interpreter read them: a line of JSON each.

Their clients build a result from one line that names each kind of it by a word of their own:
`text`, `png`, `chart`. Kinds that have no such word are in `extra`, by media type.
"""

import asyncio
import codecs
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from io import StringIO
from types import MappingProxyType

from runner.api.context_views import one_line
from runner.api.sandbox_views import signal_name
from runner.door.replies import GapReply, RaisedReply, ResultReply, RunEndedReply, ValueReply
from runner.door.streams import RunPart
from runner.door.wire import Chunk
from runner.words.living import Language
from runner.words.text import counted

TEXT = "text/plain"
DATA = "application/vnd.runner.data+json"
WORDS: Mapping[str, str] = MappingProxyType(
    {
        TEXT: "text",
        "text/html": "html",
        "text/markdown": "markdown",
        "image/svg+xml": "svg",
        "image/png": "png",
        "image/jpeg": "jpeg",
        "application/pdf": "pdf",
        "text/latex": "latex",
        "application/json": "json",
        "application/javascript": "javascript",
        DATA: "data",
        "application/vnd.runner.chart+json": "chart",
    }
)
"""E2B's words for the kinds of a result."""
MOST_HELD = 1024 * 1024
"""Characters of a value that are held until it is whole; for `extra`, of all values together."""
MOST_DATA = 4 * MOST_HELD
"""Characters of a table that are held: the node's bound, with each character escaped."""
MOST_EXTRA = 64
"""How many kinds are in `extra`."""
_KIND = 64
"""The part of its room that a kind in `extra` takes beside its name and its value."""
_INLINE = 4096
"""Tables of more characters than this are read in a thread."""
KEEP_ALIVE = b'{"type": "keepalive"}\n'
_OUTPUTS = {b"O": "stdout", b"E": "stderr"}


class ExecutionLines:
    """Writes the parts of a run.

    A result may be large, so its line is written piece by piece as it comes; JSON as the node has
    checked and written it. Only a short text, a table and what goes into `extra` are held until
    they are whole.
    """

    def __init__(self, parts: AsyncIterator[RunPart], language: Language) -> None:
        self._parts = parts
        self._language = language
        self._utf8 = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in b"OED"}
        self.within = False
        """Whether a line has begun that has not ended."""
        self._mime: str | None = None
        """The kind of which pieces are coming."""
        self._is_json = False
        self._held: StringIO | None = None
        """The JSON that has come, if it is held."""
        self._size = 0
        """How many characters of it have come."""
        self._extra: dict[str, str] = {}
        """JSON of each kind that has no word."""
        self._room = MOST_HELD
        """How many characters more `extra` takes."""
        self._raised = False

    async def written(self) -> AsyncIterator[bytes]:
        """Yield their bytes."""
        async for part in self._parts:
            if self._mime == DATA and isinstance(part, ValueReply | ResultReply):
                await self._unwrap()
            if text := "".join(self._write(part)):
                yield text.encode()

    def _write(self, part: RunPart) -> Iterator[str]:
        match part:
            case Chunk(b"D", data):
                yield from self._continue_value(self._utf8[ord("D")].decode(data))
            case Chunk(kind, data):
                if text := self._utf8[ord(kind)].decode(data):
                    yield _output(_OUTPUTS[kind], text)
            case ValueReply(mime=mime, json=is_json):
                yield from self._end_value()
                if not self.within:
                    yield '{"type": "result"'
                self.within = True
                self._mime, self._is_json = mime, is_json
                self._held, self._size = StringIO(), 0
            case ResultReply():
                yield from self._end_result(part)
            case RaisedReply(error=name, value=value, traceback=traceback):
                self._raised = True
                yield _line("error", name=name, value=value, traceback=traceback)
            case GapReply(omitted=omitted):
                yield _output(
                    "stderr", f"[lost {counted(omitted, 'byte')} of output: read faster]\n"
                )
            case RunEndedReply():
                yield from self._end(part)

    def _continue_value(self, text: str) -> Iterator[str]:
        self._size += len(text)
        if self._held is None:
            yield self._written(text)
            return
        word = WORDS.get(self._mime or "")
        if word is None:
            if self._size > self._room:
                # Told by its absence: what there is room for is in `extra`.
                self._held = StringIO()
            else:
                self._held.write(text)
        elif self._is_held(text):
            self._held.write(text)
        elif self._size:
            held, self._held = self._held.getvalue(), None
            quote = "" if self._is_json else '"'
            yield f', "{word}": {quote}{self._written(held + text)}'

    def _is_held(self, text: str) -> bool:
        """Return whether this belongs to what is told as a whole.

        That is a table, or a text that begins as a string's representation does.
        """
        held = self._held is not None and self._held.tell() > 0
        if self._is_json:
            return self._mime == DATA and self._size <= MOST_DATA
        quoted = held or text.startswith("'")
        return self._mime == TEXT and quoted and self._size <= MOST_HELD

    def _written(self, text: str) -> str:
        return one_line(text) if self._is_json else json.dumps(text)[1:-1]

    def _end_value(self) -> Iterator[str]:
        mime = self._mime
        if mime is None:
            return
        yield from self._continue_value(self._utf8[ord("D")].decode(b"", final=True))
        self._mime = None
        if self._held is None:
            if not self._is_json:
                yield '"'
            return
        word, whole = WORDS.get(mime), self._held.getvalue()
        if word is None:
            self._keep(mime, whole)
        elif self._is_json:
            yield f', "{word}": {one_line(whole) or "null"}'
        else:
            # As E2B's interpreter does: the value of a string is shown without its quotes.
            bare = whole[1:-1] if len(whole) > 1 and whole[0] == whole[-1] == "'" else whole
            yield f', "{word}": {json.dumps(bare)}'

    def _keep(self, mime: str, whole: str) -> None:
        """Keep a kind that has no word, if there is room for it and its name."""
        size = self._size + len(mime) + _KIND
        if size <= self._room and len(self._extra) < MOST_EXTRA:
            self._room -= size
            self._extra[mime] = (one_line(whole) or "null") if self._is_json else json.dumps(whole)

    async def _unwrap(self) -> None:
        """Leave nothing but its columns of a table that is held."""
        if not self._is_json or self._held is None:
            return
        if not (whole := self._held.getvalue()):
            return
        if len(whole) <= _INLINE:
            columns = _columns(whole)
        else:
            columns = await asyncio.to_thread(_columns, whole)
        self._held = StringIO()
        self._held.write(columns)

    def _end_result(self, reply: ResultReply) -> Iterator[str]:
        yield from self._end_value()
        extra, self._extra, self._room = self._extra, {}, MOST_HELD
        if reply.truncated:
            extra["truncated"] = "true"
        if extra:
            kinds = ", ".join(f"{json.dumps(mime)}: {value}" for mime, value in extra.items())
            yield f', "extra": {{{kinds}}}'
        yield f', "is_main_result": {json.dumps(reply.main)}}}\n'
        self.within = False

    def _end(self, reply: RunEndedReply) -> Iterator[str]:
        if reply.gone:
            how = signal_name(reply.signal) or f"exit code {reply.exit_code}"
            value = f"the interpreter ended ({how}), and its variables with it"
            yield _line("error", name="ContextEnded", value=value, traceback="")
        elif reply.exit_code and self._language == "bash" and not self._raised:
            value = f"exit code {reply.exit_code}"
            yield _line("error", name="CommandFailed", value=value, traceback="")
        if reply.count is not None:
            yield _line("number_of_executions", execution_count=reply.count)
        yield _line("end_of_execution")


def _columns(table: str) -> str:
    """Return the columns of a table; ours says how many rows there are, too."""
    value = json.loads(table)
    if isinstance(value, dict) and "columns" in value:
        return json.dumps(value["columns"])
    return table


def _output(stream: str, text: str) -> str:
    return _line(stream, text=text, timestamp=time.time_ns())


def _line(kind: str, **facts: object) -> str:
    return json.dumps({"type": kind, **facts}) + "\n"
