"""Waiting for work that must not be left half done."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")


P = ParamSpec("P")


async def uninterrupted(
    work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call and wait to the end, also when cancelled meanwhile; the cancellation comes after."""
    task = asyncio.create_task(work(*args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
