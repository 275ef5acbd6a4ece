"""The API's end of a create: the node makes a sandbox ready while its row is being stored."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from runner.door.calls import CreateCall
from runner.door.grants import Knock
from runner.door.replies import StartedReply
from runner.door.streams import Calling, OpenCall
from runner.words.sandbox import SandboxSpec


class Creation:
    """A sandbox that the node makes ready, and gives up unless its row is stored. Close it."""

    def __init__(
        self, calling: Calling, knocking: Coroutine[Any, Any, Knock], spec: SandboxSpec
    ) -> None:
        """Begin at once; `knocking` says where to knock, and for which sandbox."""
        self._open = AsyncExitStack()
        self._calling = asyncio.create_task(self._call(calling, knocking, spec))

    async def _call(
        self, calling: Calling, knocking: Coroutine[Any, Any, Knock], spec: SandboxSpec
    ) -> OpenCall:
        knock = await knocking
        return await self._open.enter_async_context(calling(knock, CreateCall(spec)))

    async def stored(self) -> datetime:
        """Say that its row is stored; return since when the sandbox takes commands.

        Raises what `Door.create` raises.
        """
        call = await self._calling
        await call.stored()
        return (await call.expect(StartedReply)).started_at

    async def close(self) -> None:
        """Hang up. What was made is removed if its row was not said to be stored."""
        self._calling.cancel()
        await asyncio.gather(self._calling, return_exceptions=True)
        await self._open.aclose()
