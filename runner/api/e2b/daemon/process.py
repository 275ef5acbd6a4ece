"""`/process.Process/…`: start, follow, feed, signal and list processes, as E2B's clients ask.

A process's `pid` is its number in the sandbox, by which every other call names it. A process that
has ended is no longer found, as E2B has it.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response

from runner.api.counting import Surcharge, count
from runner.api.deps import Parts
from runner.api.e2b.daemon import answers
from runner.api.e2b.daemon.answers import KEEPALIVE, Answer
from runner.api.e2b.daemon.calls import (
    MANY,
    Answers,
    CallRoute,
    ended,
    messages,
    streamed,
    timeout_of,
    too_late,
)
from runner.api.e2b.daemon.connect import Code, ConnectError
from runner.api.e2b.daemon.failures import told
from runner.api.e2b.daemon.messages import (
    ConnectRequest,
    Empty,
    ProcessInput,
    ProcessRequest,
    Selector,
    SendInputRequest,
    SendSignalRequest,
    StartRequest,
    StreamInputRequest,
    UpdateRequest,
)
from runner.api.e2b.daemon.users import CallingUser
from runner.api.e2b.inside import InSandbox, Inside
from runner.api.edge.groups import Group
from runner.api.uploads import left, taken
from runner.base.tasks import attended
from runner.door.streams import ProcessStream
from runner.sandboxes.use import Using
from runner.words.errors import FileRefused, RunnerError
from runner.words.living import OutputGap, ProcessInfo
from runner.words.text import counted

MESSAGES_FOR_ONE = 200
"""A stream of input costs one more place of its rate for each so many messages."""
ALIVE = frozenset({b'{"keepalive":{}}', b'{"keepalive": {}}'})
"""The message of an idle stream of input."""
INPUT_S = 300.0
"""How long a process may take to read the input of one call."""

router = APIRouter(prefix="/process.Process", tags=["e2b"], route_class=CallRoute)

STREAMED: dict[str, Any] = {"requestBody": {"required": True, "content": MANY}}
FRAMES: dict[int | str, dict[str, Any]] = {
    200: {"description": "A stream of messages.", "content": MANY}
}


@router.post("/Start", summary="Start a process (E2B)", openapi_extra=STREAMED, responses=FRAMES)
async def start(request: Request, inside: InSandbox, parts: Parts, _: CallingUser) -> Response:
    """Start a process, and stream its output until it has ended.

    `Connect-Timeout-Ms` ends the process. If the client leaves, the process goes on.
    """
    return await streamed(
        request, StartRequest, partial(_started, parts.using, inside), answers.event(KEEPALIVE)
    )


async def _started(
    using: Using, inside: Inside, asked: StartRequest, timeout_s: float | None
) -> Answers:
    launch = asked.launch(timeout_s)
    try:
        async with using.start(inside.caller, inside.sandbox_id, launch) as stream:
            yield answers.event(answers.started(stream.process))
            async for each in _output(stream):
                yield each
    except FileRefused as refused:
        if launch.cwd is not None and refused.errno_name in {"ENOENT", "ENOTDIR"}:
            await _require_folder(using, inside, launch.cwd)
        known = told(refused)
        if known is None or known.code is not Code.NOT_FOUND:
            raise
        # To its client, "not found" would be a missing sandbox or process.
        raise ConnectError(Code.INVALID_ARGUMENT, known.message) from None


async def _require_folder(using: Using, inside: Inside, path: str) -> None:
    """Raise ConnectError if a process could not start because its folder is not there."""
    try:
        await using.list_files(inside.caller, inside.sandbox_id, path, most=1)
    except FileRefused as error:
        raise ConnectError(Code.INVALID_ARGUMENT, f"cwd: {error.detail}") from None


async def _output(stream: ProcessStream) -> AsyncIterator[Answer]:
    """Yield what a process writes, and its end. Raises ConnectError if it has no ordinary one."""
    async for piece in stream.output():
        if isinstance(piece, OutputGap):
            raise ConnectError(
                Code.DATA_LOSS,
                f"{counted(piece.omitted, 'byte')} of output cannot be read any more, because "
                "newer output took their place: read faster, or have the process write to a file",
            )
        yield answers.event(answers.output(piece, terminal=stream.process.terminal))
    if stream.end is None:
        raise ConnectError(Code.UNAVAILABLE, "the sandbox ended before the process did")
    if stream.end.timed_out:
        raise ConnectError(
            Code.DEADLINE_EXCEEDED, "the process ran longer than it may, and was killed"
        )
    yield answers.event(answers.ended(stream.end))


@router.post("/Connect", summary="Follow a process (E2B)", openapi_extra=STREAMED, responses=FRAMES)
async def connect(request: Request, inside: InSandbox, parts: Parts) -> Response:
    """Stream what a process writes from now on; with `replay`, all that is kept of its output.

    `Connect-Timeout-Ms` ends the stream alone.
    """
    return await streamed(
        request, ConnectRequest, partial(_followed, parts.using, inside), answers.event(KEEPALIVE)
    )


async def _followed(
    using: Using, inside: Inside, asked: ConnectRequest, _: float | None
) -> Answers:
    found = await _running(using, inside, asked.process)
    caller, sandbox_id = inside.caller, inside.sandbox_id
    offset = 0 if asked.replay else found.output_bytes
    async with using.attach(caller, sandbox_id, found.number, offset=offset, wakes=True) as stream:
        yield answers.event(answers.started(stream.process))
        async for each in _output(stream):
            yield each


@router.post("/List", summary="List processes (E2B)")
async def list_processes(
    inside: InSandbox, parts: Parts, _: Annotated[Empty, Body()]
) -> dict[str, Any]:
    """List the running processes. Their environment and folder are not kept, and not told."""
    found = await parts.using.processes(inside.caller, inside.sandbox_id, wakes=True)
    return {"processes": [answers.process(each) for each in found if each.end is None]}


@router.post("/SendInput", summary="Write to a process (E2B)")
async def send_input(
    request: Request, inside: InSandbox, parts: Parts, body: SendInputRequest
) -> dict[str, Any]:
    """Write to a process's stdin or terminal; answer once the process has been given it all."""
    found = await _running(parts.using, inside, body.process)
    _require_same(found, body.input)
    await _written(request, parts.using, inside, found, body.input.data)
    return {}


@router.post("/CloseStdin", summary="Close a process's stdin (E2B)")
async def close_stdin(
    request: Request, inside: InSandbox, parts: Parts, body: ProcessRequest
) -> dict[str, Any]:
    """Close a process's stdin; a terminal has none to close."""
    found = await _running(parts.using, inside, body.process)
    if found.terminal:
        raise ConnectError(
            Code.FAILED_PRECONDITION, "this process has a terminal: send Ctrl+D (0x04) instead"
        )
    if found.stdin:
        await _written(request, parts.using, inside, found, b"", close=True)
    return {}


async def _written(
    request: Request,
    using: Using,
    inside: Inside,
    found: ProcessInfo,
    data: bytes,
    *,
    close: bool = False,
) -> None:
    """Write to a process, until its client leaves. Raises ConnectError if it takes too long."""
    try:
        async with asyncio.timeout(INPUT_S):
            await attended(
                using.write_stdin(
                    inside.caller, inside.sandbox_id, found.number, _once(data), close=close
                ),
                left(request),
            )
    except TimeoutError:
        raise too_late(INPUT_S) from None


async def _once(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data


@router.post(
    "/StreamInput", summary="Write to a process in pieces (E2B)", openapi_extra=STREAMED,
    responses=FRAMES,
)  # fmt: skip
async def stream_input(request: Request, inside: InSandbox, parts: Parts) -> Response:
    """Write each message's bytes to a process, in order, as they come.

    The first message names the process. The answer comes after the last.
    """
    try:
        timeout_s = timeout_of(request)
        async with asyncio.timeout(timeout_s) as limit:
            surcharge = Surcharge(partial(count, parts, inside.caller, Group.USE), MESSAGES_FOR_ONE)
            await taken(request, partial(_fed, request, parts.using, inside, surcharge))
    except ConnectError as error:
        return ended(error)
    except TimeoutError:
        if not limit.expired():
            raise
        return ended(too_late(timeout_s))
    except RunnerError as error:
        if (known := told(error)) is None:
            raise
        return ended(known)
    return ended(answer={})


async def _fed(
    request: Request, using: Using, inside: Inside, surcharge: Surcharge, body: AsyncIterator[bytes]
) -> None:
    """Write a stream's input to the process that its first message names."""
    each = messages(request, StreamInputRequest, body, surcharge, ALIVE)
    first = await anext(each, None)
    if first is None or first.start is None:
        raise ConnectError(Code.INVALID_ARGUMENT, "the first message must name the process")
    found = await _running(using, inside, first.start.process)

    async def chunks() -> AsyncIterator[bytes]:
        async for said in each:
            if said.start is not None:
                raise ConnectError(Code.INVALID_ARGUMENT, "only the first message names a process")
            if said.data is not None:
                _require_same(found, said.data.input)
                yield said.data.input.data

    await using.write_stdin(inside.caller, inside.sandbox_id, found.number, chunks())


@router.post("/SendSignal", summary="Signal a process (E2B)")
async def send_signal(inside: InSandbox, parts: Parts, body: SendSignalRequest) -> dict[str, Any]:
    """Signal a process and its group."""
    found = await _running(parts.using, inside, body.process)
    await parts.using.signal(inside.caller, inside.sandbox_id, found.number, body.signal)
    return {}


@router.post("/Update", summary="Resize a process's terminal (E2B)")
async def update(inside: InSandbox, parts: Parts, body: UpdateRequest) -> dict[str, Any]:
    """Give a process's terminal another size."""
    found = await _running(parts.using, inside, body.process)
    if body.pty is None:
        return {}
    if not found.terminal:
        raise ConnectError(Code.FAILED_PRECONDITION, f"process {found.number} has no terminal")
    size = body.pty.terminal()
    await parts.using.resize(inside.caller, inside.sandbox_id, found.number, size)
    return {}


async def _running(using: Using, inside: Inside, which: Selector) -> ProcessInfo:
    """Return a running process; of several with a tag, the last. Raises ConnectError."""
    caller, sandbox_id = inside.caller, inside.sandbox_id
    if which.tag is not None:
        every = await using.processes(caller, sandbox_id, wakes=True)
        found = next((each for each in reversed(every) if each.tag == which.tag), None)
    elif which.pid:
        found = await using.process(caller, sandbox_id, which.pid, wakes=True)
    else:
        found = None
    if found is None or found.end is not None:
        name = f"tag {which.tag!r}" if which.tag is not None else f"pid {which.pid}"
        raise ConnectError(Code.NOT_FOUND, f"no process with {name} is running in this sandbox")
    return found


def _require_same(found: ProcessInfo, given: ProcessInput) -> None:
    """Refuse input of a kind that a process does not take. Raises ConnectError."""
    if not found.stdin:
        raise ConnectError(
            Code.FAILED_PRECONDITION,
            f"process {found.number} has no stdin: start it with stdin, or it has been closed",
        )
    if given.typed != found.terminal:
        has, send = ("a terminal", "pty") if found.terminal else ("no terminal", "stdin")
        raise ConnectError(
            Code.FAILED_PRECONDITION, f"process {found.number} has {has}: send `{send}`"
        )
