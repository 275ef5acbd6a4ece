"""Work beside other work: never left half done, and never failing unseen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def cancelled() -> bool:
    """Return whether somebody has cancelled the current task, which must then end.

    Check this after an exception: cleanup that fails may have replaced the cancellation.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Wait until `work` ends, even if cancelled meanwhile; raise the cancellation afterwards."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:  # once, or again and again
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


async def aside(work: Callable[[bytes], T], data: bytes, *, inline: int) -> T:
    """Return `work(data)`. Above `inline` bytes, a thread does it, so that the event loop goes on.

    The thread always finishes the work, even if this is cancelled meanwhile.
    """
    if len(data) <= inline:
        return work(data)
    return await uninterrupted(asyncio.to_thread(work, data))


async def attended(work: Coroutine[Any, Any, T], listening: Coroutine[Any, Any, None]) -> T:
    """Return what the work returns; what `listening` raises ends it before that."""
    working, heard = asyncio.create_task(work), asyncio.create_task(listening)
    try:
        await asyncio.wait({working, heard}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and (heard.cancelled() or heard.exception() is not None):
            working.cancel()
            await asyncio.wait({working})
            await heard
        return await working
    finally:
        for task in (working, heard):
            task.cancel()
        await asyncio.gather(working, heard, return_exceptions=True)


@asynccontextmanager
async def beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Do the work beside the context, and wait for its end; if it fails, the context ends at once.

    If the context is cancelled, so is the work.
    """
    body = asyncio.current_task()
    task = asyncio.ensure_future(work)

    def interrupt(done: "asyncio.Future[None]") -> None:
        if body is not None and not done.cancelled() and done.exception() is not None:
            body.cancel()

    task.add_done_callback(interrupt)
    try:
        yield
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        # Raises the work's own exception instead of the cancellation that it caused.
        task.remove_done_callback(interrupt)
        await task
