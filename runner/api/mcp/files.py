"""Files in sandboxes, and files that code left: as text, or as pictures that a model sees."""

import base64
import binascii
from collections.abc import AsyncIterator

from runner.api.mcp.arguments import (
    MAX_READ,
    ListFilesArguments,
    ReadArtifactArguments,
    ReadFileArguments,
    WriteFileArguments,
)
from runner.api.mcp.results import (
    HEAD,
    MAX_PICTURES,
    Picture,
    ToolResult,
    of_lines,
    picture_type,
    too_large,
)
from runner.api.mcp.tool import ToolCall, execution_id, sandbox_id
from runner.executions.read import artifact
from runner.words.errors import Invalid
from runner.words.living import FileEntry
from runner.words.text import character_end, counted, printable, whole_characters


async def read_file(call: ToolCall, arguments: ReadFileArguments) -> ToolResult:
    """Read a part of a text file, or see a picture."""
    using, caller, id_ = call.parts.using, call.caller, sandbox_id(arguments.sandbox_id)
    offset, length = arguments.offset, arguments.length
    if offset == 0:
        async with using.read_file(caller, id_, arguments.path, length=HEAD) as stream:
            kind, size = picture_type(await _whole(stream.chunks(), HEAD)), stream.file.size
        if kind is not None and size > MAX_PICTURES:
            return of_lines(too_large(kind, size))
        if kind is not None:
            length = MAX_PICTURES
    async with using.read_file(caller, id_, arguments.path, offset=offset, length=length) as stream:
        data, size = await _whole(stream.chunks(), length), stream.file.size
    return _shown(data, offset, size)


async def write_file(call: ToolCall, arguments: WriteFileArguments) -> ToolResult:
    """Write a file as a whole, and the folders above it."""
    data = arguments.content.encode()
    if arguments.encoding == "base64":
        try:
            data = base64.b64decode(data, validate=True)
        except binascii.Error:
            raise Invalid("it is not base64", "content") from None
    written = await call.parts.using.write_file(
        call.caller, sandbox_id(arguments.sandbox_id), arguments.path, _once(data)
    )
    return of_lines(f"Wrote {counted(written.size, 'byte')} to {printable(written.path)}.")


async def list_files(call: ToolCall, arguments: ListFilesArguments) -> ToolResult:
    """List a folder, and those below it."""
    found = await call.parts.using.list_files(
        call.caller,
        sandbox_id(arguments.sandbox_id),
        arguments.path,
        depth=arguments.depth,
        most=arguments.limit,
    )
    lines = [_line(each) for each in found.files] or ["The folder is empty."]
    if found.more:
        lines.append(f"[only {arguments.limit} are shown: list a folder below it]")
    return of_lines(*lines)


async def read_artifact(call: ToolCall, arguments: ReadArtifactArguments) -> ToolResult:
    """Read a file that an execution left, from its beginning, or see it if it is a picture."""
    async with call.parts.database.tenant(call.caller.tenant_id) as tx:
        stored = await artifact(tx, execution_id(arguments.execution_id), arguments.path)
    size = stored.artifact.size
    data = await _whole(call.parts.objects.read(stored.object_key), MAX_PICTURES + 1)
    kind = picture_type(data)
    if kind is not None and size > MAX_PICTURES:
        return of_lines(too_large(kind, size))
    return _shown(data if kind else data[:MAX_READ], 0, size)


async def _whole(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """Return the bytes, at most so many."""
    data = bytearray()
    async for chunk in chunks:
        data += chunk[: most - len(data)]
        if len(data) >= most:
            break
    return bytes(data)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _shown(data: bytes, offset: int, size: int) -> ToolResult:
    """Return a part of a file as a model can read it, and say where to go on."""
    if offset == 0 and (kind := picture_type(data)) is not None:
        return ToolResult((Picture(data, kind),))
    start = character_end(data, 0) if offset else 0
    end = whole_characters(data) if offset + len(data) < size else len(data)
    if b"\0" in data or end < start:
        return of_lines(
            f"[a binary file of {counted(size, 'byte')}, which is not shown; look into it with "
            "run_command]"
        )
    said = data[start:end].decode(errors="replace")
    if offset == 0 and end == size:
        return of_lines(said)
    return of_lines(
        said,
        f"[bytes {offset + start} to {offset + end} of {size}"
        + (f"; read on with offset {offset + end}]" if offset + end < size else "; the end]"),
    )


def _line(entry: FileEntry) -> str:
    path = printable(entry.path)
    match entry.kind:
        case "folder":
            return f"{path}/"
        case "link":
            return f"{path} -> {printable(entry.target or '?')}"
        case "file":
            return f"{path} ({counted(entry.size, 'byte')})"
        case _:
            return f"{path} [neither a file nor a folder]"
