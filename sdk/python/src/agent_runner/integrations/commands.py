"""A command from its start to its end, and a file that is written, as frameworks want them."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from uuid import uuid4

import anyio

from agent_runner import ApiError, AsyncSandbox, NotFound
from agent_runner._async.local import Content
from agent_runner._async.sandbox_files import WORKSPACE
from agent_runner.living import Ran
from agent_runner.transport import params
from agent_runner.types import Stream, omission

MOST_KIB = 1024
"""The most of each output that the API returns."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""A shell's codes for a program that is missing, or that cannot be run (POSIX, 2.8.2)."""
NEW_FILE, KEPT_MODE = 0o644, 0o777
LEAST_S = 0.1
"""The shortest time limit that the API takes."""
LOOK_AGAIN_S = 0.1


async def finished(
    sandbox: AsyncSandbox,
    command: str | Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Ran:
    """Run a command to its end. If this is cancelled, the command and its group are killed.

    Raises ApiError; its `reason` is `ENOENT` if there is no such program.
    """
    tag = f"cancellable {uuid4()}"
    limit = None if timeout_s is None else max(timeout_s, LEAST_S)
    # Where the files of the adapters are, whatever the template's working directory is.
    options = params(cwd=cwd or WORKSPACE, env=env, timeout_s=limit)
    run = sandbox.run(command, output_kb=MOST_KIB, tag=tag, **options)
    running = asyncio.ensure_future(run)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await _kill(sandbox, tag, running)
        raise


async def write(sandbox: AsyncSandbox, path: str, content: Content | str) -> None:
    """Write a file, and make the folders above it. If it exists, it keeps its mode.

    Raises ApiError.
    """
    mode = NEW_FILE
    with suppress(NotFound):
        found = await sandbox.files.stat(path)
        mode = int(found.mode, 8) & KEPT_MODE if found.kind == "file" else NEW_FILE
    await sandbox.files.write(path, content, mode=mode)


async def _kill(sandbox: AsyncSandbox, tag: str, running: asyncio.Future[Ran]) -> None:
    """Kill a command, which may be about to start. Nothing is left of an API that stays away."""
    try:
        with suppress(ApiError):
            while not running.done():
                for each in await sandbox.processes():
                    if each.tag == tag and not each.ended:
                        await (await sandbox.process(each.process)).kill()
                await asyncio.wait({running}, timeout=LOOK_AGAIN_S)
    finally:
        running.cancel()
        await asyncio.wait({running})


def not_started(error: ApiError) -> int | None:
    """Return the exit code that a shell has for a program that is missing or cannot be run."""
    return {"ENOENT": NOT_FOUND, "EACCES": NOT_EXECUTABLE, "ENOEXEC": NOT_EXECUTABLE}.get(
        error.reason or ""
    )


def is_whole(ran: Ran) -> bool:
    """Return whether nothing of a command's output is missing."""
    return not (ran.stdout.truncated or ran.stderr.truncated)


def text(stream: Stream) -> str:
    """Return an output as text; if some of it is missing, its last line says how much."""
    if not stream.truncated:
        return stream.text
    return f"{stream.text}\n{omission(stream.omitted_bytes)}\n"
