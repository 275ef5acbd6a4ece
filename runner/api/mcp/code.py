"""Code: in a context, where variables stay, or once in a container of its own."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from runner.api.edge.fair import waits
from runner.api.edge.groups import Group
from runner.api.mcp.arguments import RUN_S, ExecutionArguments, RunCodeArguments
from runner.api.mcp.results import (
    MAX_PICTURES,
    Excerpt,
    Part,
    Picture,
    ToolResult,
    of_lines,
    outputs,
    too_large,
)
from runner.api.mcp.tool import ToolCall, execution_id, sandbox_id
from runner.api.sandbox_views import signal_name
from runner.auth.permissions import Permission
from runner.door.replies import GapReply, RaisedReply, ResultReply, RunEndedReply, ValueReply
from runner.door.streams import RunPart
from runner.door.wire import Chunk
from runner.executions.order import Order
from runner.executions.read import Seen
from runner.executions.read import read as read_whole
from runner.executions.through import through
from runner.sandboxes.place import Asleep
from runner.words.errors import Invalid
from runner.words.execution import Result, Stream
from runner.words.living import ContextInfo, Language
from runner.words.text import counted, printable

PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
PLAIN = "text/plain"
MOST_SHOWN = 64
"""How many results of one run a model gets."""
MOST_SHOWN_TEXT = 64 * 1024
"""Bytes of their text, all together."""
MOST_BASE64 = MAX_PICTURES * 4 // 3 + 4
QUEUE_S = 600.0
"""How long code that runs once may wait for its turn, beside its own time."""
MOST_FILES = 50
MOST_KINDS = 64
"""How many kinds of one result are looked at; the node tells no more."""


async def run_code(call: ToolCall, arguments: RunCodeArguments) -> ToolResult:
    """Run code in a sandbox's context of its language, or once in a container of its own."""
    if arguments.sandbox_id is None:
        return await _once(call, arguments)
    id_ = sandbox_id(arguments.sandbox_id)
    timeout_s = arguments.timeout_s or RUN_S
    context = await _context(call, id_, arguments.language, restart=arguments.restart)
    ran = ShownRun()
    call.progress.total_s, call.progress.output = timeout_s, ran.stdout
    running = call.parts.using.run_code(
        call.caller, id_, context, arguments.code, timeout_s=timeout_s
    )
    async with running as stream:
        waits(call.request)
        async for part in stream.parts():
            ran.take(part)
    return ran.result(timeout_s)


async def _context(call: ToolCall, id_: UUID, language: Language, *, restart: bool) -> int:
    """Return the sandbox's oldest context of the language; begin one if there is none."""
    using, caller = call.parts.using, call.caller
    try:
        found = await using.contexts(caller, id_)
    except Asleep:
        # A sandbox that its use resumes; to list contexts is not to use it.
        await call.parts.sandboxes.resume(caller, id_)
        found = await using.contexts(caller, id_)
    ours: ContextInfo | None = next((each for each in found if each.language == language), None)
    if ours is None:
        return (await using.open_context(caller, id_, language)).number
    if restart or ours.state == "ended":
        await using.restart(caller, id_, ours.number)
    return ours.number


@dataclass(slots=True)
class _Value:
    """One kind of a result, as far as a model can use it."""

    mime: str
    raw: bytearray = field(default_factory=bytearray)
    size: int = 0

    def take(self, data: bytes) -> None:
        self.size += len(data)
        if self.mime == PLAIN or self.mime in PICTURES:
            self.raw += data[: MOST_BASE64 - len(self.raw)]


class ShownRun:
    """The events of a run, put together."""

    def __init__(self) -> None:
        self.stdout, self.stderr = Excerpt(), Excerpt()
        self._shown: list[Part] = []
        self._left = MAX_PICTURES
        self._text_left = MOST_SHOWN_TEXT
        self._omitted = 0
        """How many results are not shown."""
        self._values: dict[str, _Value] = {}
        self._value: _Value | None = None
        self._error: str | None = None
        self._end: RunEndedReply | None = None

    def take(self, part: RunPart) -> None:
        """Take what happens next."""
        match part:
            case Chunk(b"D", data):
                if self._value is not None:
                    self._value.take(data)
            case Chunk(kind, data):
                (self.stdout if kind == b"O" else self.stderr).take(data)
            case ValueReply(mime=mime):
                self._value = self._begun(mime)
            case ResultReply(truncated=truncated):
                values, self._values, self._value = self._values, {}, None
                self._show(values, truncated=truncated)
            case RaisedReply(error=name, value=value, traceback=traceback):
                excerpt = Excerpt()
                excerpt.take((traceback or f"{name}: {value}").encode(errors="replace"))
                self._error = str(excerpt)
            case GapReply(omitted=omitted):
                self.stdout.lose(omitted)
            case RunEndedReply():
                self._end = part

    def _begun(self, mime: str) -> _Value | None:
        """Return the value of this kind; None if it is left out, as a result has enough kinds."""
        if mime not in self._values and len(self._values) >= MOST_KINDS:
            return None
        return self._values.setdefault(mime, _Value(mime))

    def _show(self, values: Mapping[str, _Value], *, truncated: bool) -> None:
        """Show a result in the kind that tells a model most: a picture, else plain text."""
        if len(self._shown) >= MOST_SHOWN:
            self._omitted += 1
            return
        picture = next((each for mime, each in values.items() if mime in PICTURES), None)
        if picture is not None and not truncated:
            self._add(self._picture(picture))
        elif (plain := values.get(PLAIN)) is not None:
            excerpt = Excerpt()
            excerpt.take(bytes(plain.raw))
            excerpt.lose(plain.size - len(plain.raw))
            self._add(str(excerpt))
        elif values:
            kinds = ", ".join(printable(each) for each in sorted(values)[:8])
            self._add(f"[a result that cannot be shown here: {kinds}]")

    def _picture(self, value: _Value) -> Part:
        size = value.size * 3 // 4
        if size > self._left:
            return too_large(value.mime, size)
        try:
            data = base64.b64decode(bytes(value.raw))
        except binascii.Error:
            data = b""
        if not data:
            return f"[a result that says it is {value.mime}, but is not in base64]"
        self._left -= size
        return Picture(data, value.mime)

    def _add(self, part: Part) -> None:
        if isinstance(part, str):
            size = len(part.encode())
            if size > self._text_left:
                self._omitted += 1
                return
            self._text_left -= size
        self._shown.append(part)

    def result(self, timeout_s: float) -> ToolResult:
        """Return all of it: how it ended first, then output, results and the error."""
        lines = [self._how(timeout_s), *outputs(self.stdout, self.stderr)]
        if self._error:
            lines.append(self._error)
        shown = self._shown
        if self._omitted:
            left_out = (
                f"[{counted(self._omitted, 'further result')} left out: one run shows at most "
                f"{MOST_SHOWN} results with {MOST_SHOWN_TEXT:,} bytes of text; display fewer, or "
                "print less]"
            )
            shown = [*shown, left_out]
        return ToolResult(("\n".join(lines), *shown))

    def _how(self, timeout_s: float) -> str:
        end = self._end
        if end is None:
            return "The sandbox ended while the code ran."
        gone = " Its interpreter has ended: variables are lost." if end.gone else ""
        if end.timed_out:
            return f"Interrupted: it took longer than {timeout_s:g} s.{gone}"
        if end.signal:
            return f"Ended by {signal_name(end.signal)}.{gone}"
        return ("ok" if end.exit_code == 0 and not self._error else "failed") + gone


async def _once(call: ToolCall, arguments: RunCodeArguments) -> ToolResult:
    """Run code as an execution, and cancel it if nobody waits for it any more."""
    if arguments.restart:
        raise Invalid("code that runs once has a fresh interpreter; leave it out", "restart")
    await call.require(Permission.EXECUTION_CREATE)
    await call.require(Permission.EXECUTION_READ)
    await call.count(Group.SUBMIT)
    parts, timeout_s = call.parts, arguments.timeout_s
    await parts.doorbell.require()
    order = Order(
        code=arguments.code,
        language=arguments.language,
        limits={} if timeout_s is None else {"timeout_s": timeout_s},
        metadata={"made-by": "mcp"},
    )
    seen = await parts.submitting.submit(call.caller, order)
    waits(call.request)
    call.progress.total_s = seen.execution.limits.timeout_s
    ended = await through(parts.submitting, call.caller, seen, queue_s=QUEUE_S)
    if ended is None:
        return of_lines(
            f"execution_id: {seen.execution.id}",
            "It still waits for its turn. get_execution shows its result later.",
        )
    return _shown(ended)


async def get_execution(call: ToolCall, arguments: ExecutionArguments) -> ToolResult:
    """Show how an execution ended, or where it is."""
    id_ = execution_id(arguments.execution_id)
    return _shown(await read_whole(call.parts.database, call.caller, id_))


def _shown(seen: Seen) -> ToolResult:
    execution = seen.execution
    lines = [f"execution_id: {execution.id}", f"state: {execution.state.value}"]
    if (result := execution.result) is not None:
        lines += _told(seen, result)
    elif seen.place is not None:
        lines.append(f"position in the queue: {seen.place.position}")
    return of_lines(*lines)


def _told(seen: Seen, result: Result) -> list[str]:
    lines = [f"how it ended: {result.detail}"]
    if result.limits_hit:
        lines.append(f"limits that it ran into: {', '.join(result.limits_hit)}")
    kept = {Stream.STDOUT: Excerpt(), Stream.STDERR: Excerpt()}
    for stream, stored in (seen.output or {}).items():
        output = result.stdout if stream is Stream.STDOUT else result.stderr
        kept[stream].take(stored.raw)
        if output.truncated:
            kept[stream].lose(max(0, output.total_bytes - len(stored.raw) + stored.noted))
    lines += outputs(kept[Stream.STDOUT], kept[Stream.STDERR])
    if left := list(seen.artifacts or ()):
        lines.append("files that it left (read_artifact shows one):")
        lines += [
            f"  {printable(each.path)} ({counted(each.size, 'byte')})" for each in left[:MOST_FILES]
        ]
        if len(left) > MOST_FILES:
            lines.append(f"  [{len(left) - MOST_FILES} more]")
    return lines
