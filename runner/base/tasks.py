"""Work beside other work: not left half done, and not failing unseen."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


def cancelled() -> bool:
    """Return whether somebody has cancelled the task that asks, which is to end then.

    What fails while it is cancelled, as its clean-up, may have raised in place of the cancellation.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Wait for `work` to its end also when cancelled meanwhile; the cancellation comes after."""
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
    """Return `work(data)`; above `inline` bytes a thread does it, and the event loop goes on.

    The work is done to its end also when this is cancelled meanwhile.
    """
    if len(data) <= inline:
        return work(data)
    return await uninterrupted(asyncio.to_thread(work, data))


@asynccontextmanager
async def beside(work: Awaitable[None]) -> AsyncIterator[None]:
    """Do it while the context lasts, and to its end; its failure ends the context at once.

    A cancellation of the context is one of the work.
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
        # Raises what the work has raised, in place of the cancellation that told of it.
        task.remove_done_callback(interrupt)
        await task
