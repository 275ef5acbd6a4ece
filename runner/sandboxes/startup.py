"""Begins what a template names in a new sandbox, and waits until that is ready.

Both commands are ordinary processes of the sandbox, by its own user, started through its node's
door: on record, with the sandbox's variables, and with secrets starred in what they write.
"""

import asyncio
from codecs import getincrementaldecoder
from contextlib import suppress
from uuid import UUID

from runner.auth.caller import Caller
from runner.door.streams import ProcessStream
from runner.sandboxes.use import Using
from runner.words.errors import RunnerError, StartupFailed
from runner.words.living import Launch, OutputPiece, ProcessEnd
from runner.words.templates import START_TAG, Startup
from runner.words.text import printable

READY_TAG = "ready"
_UNTIL_READY = 'until /bin/sh -c "$1"; do sleep 0.5; done'
_TOLD = 500
"""How many of the last characters that a command wrote are told if it fails."""


async def begin(using: Using, caller: Caller, sandbox_id: UUID, startup: Startup) -> None:
    """Begin the start command; return once the ready command has exited with 0.

    Without a ready command, return once the start command runs. Raises StartupFailed if time is up,
    or if the start command fails first: then the sandbox has ended, and its row says why.
    """
    try:
        await _begin(using, caller, sandbox_id, startup)
    except StartupFailed as error:
        # Whatever keeps its node from it now, its caller kills it next.
        with suppress(RunnerError):
            knock = await using.places.knock(caller, sandbox_id)
            await using.door.end(knock, "start_failed", error.detail)
        raise


async def _begin(using: Using, caller: Caller, sandbox_id: UUID, startup: Startup) -> None:
    if startup.command is None:
        await _until_ready(using, caller, sandbox_id, startup)
        return
    launch = Launch(("/bin/sh", "-c", startup.command), tag=START_TAG)
    async with using.start(caller, sandbox_id, launch) as started:
        if startup.ready is None:
            return
        ready = asyncio.create_task(_until_ready(using, caller, sandbox_id, startup))
        failing = asyncio.create_task(_failed(started))
        try:
            done, _ = await asyncio.wait({ready, failing}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await ready
        finally:
            for task in (ready, failing):
                task.cancel()
            await asyncio.gather(ready, failing, return_exceptions=True)


async def _failed(started: ProcessStream) -> None:
    """Return once the start command has ended well. Raises StartupFailed if it fails."""
    end, wrote = await _heard(started)
    if end is not None and end.exit_code != 0:
        raise StartupFailed(f"the template's start command {_how(end)}{wrote}")


async def _until_ready(using: Using, caller: Caller, sandbox_id: UUID, startup: Startup) -> None:
    argv = ("/bin/sh", "-c", _UNTIL_READY, READY_TAG, startup.ready or "")
    launch = Launch(argv, tag=READY_TAG, timeout_s=startup.within_s)
    async with using.start(caller, sandbox_id, launch) as checking:
        end, wrote = await _heard(checking)
    if end is None or end.exit_code != 0:
        raise StartupFailed(
            f"the template's ready command did not exit with 0 within {startup.within_s} s{wrote}"
        )
    await using.forget(caller, sandbox_id, checking.process.number)


async def _heard(process: ProcessStream) -> tuple[ProcessEnd | None, str]:
    """Wait until a process has ended; return how, and a text with the last of what it wrote."""
    decoder, last = getincrementaldecoder("utf-8")("replace"), ""
    async for piece in process.output():
        if isinstance(piece, OutputPiece):
            last = (last + decoder.decode(piece.data))[-_TOLD:]
    # It may be anything, and ends up in a row, which keeps no NUL, and on a terminal.
    wrote = printable(" ".join(last.split()))
    return process.end, f"; it wrote: {wrote}" if wrote else ""


def _how(end: ProcessEnd) -> str:
    if end.exit_code is None:
        return f"was killed by signal {end.signal}"
    return f"exited with {end.exit_code}"
