"""The API's end of calls about code contexts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from runner.door import code_calls
from runner.door.call import DoorCall
from runner.door.grants import Knock
from runner.door.replies import ContextReply, DoneReply
from runner.door.streams import Calling, RunStream
from runner.words.living import ContextInfo, Language


class ContextsDoor:
    """The part of the door for contexts. Its methods raise what those of `Door` raise."""

    def __init__(self, call: Calling) -> None:
        """Take what makes a call at the door."""
        self._call = call

    async def open(
        self,
        knock: Knock,
        language: Language,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        shared: bool = False,
    ) -> ContextInfo:
        """Begin a context; return once its interpreter takes code.

        With `shared`, find the language's shared context, which is begun by whoever asks first.
        Raises Invalid if the image has no such interpreter.
        """
        asked = code_calls.OpenContextCall(language, cwd, env or {}, shared)
        return await self._context(knock, asked)

    async def list(self, knock: Knock) -> tuple[ContextInfo, ...]:
        """Return every context, in order of its beginning."""
        found = []
        async with self._call(knock, code_calls.ContextsCall()) as call:
            while isinstance(reply := await call.hear(), ContextReply):
                found.append(reply.context)
        return tuple(found)

    async def get(self, knock: Knock, context: int) -> ContextInfo:
        """Return one context."""
        return await self._context(knock, code_calls.ContextCall(context))

    @asynccontextmanager
    async def run(
        self,
        knock: Knock,
        context: int,
        code: str,
        *,
        env: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RunStream]:
        """Run code in a context, once it is its turn. If this ends early, it is interrupted.

        Raises Conflict if too many runs wait already, or if the interpreter has ended.
        """
        asked = code_calls.RunCodeCall(context, code, env or {}, timeout_s)
        async with self._call(knock, asked) as call:
            await call.expect(ContextReply)
            yield RunStream(call)

    async def interrupt(self, knock: Knock, context: int) -> None:
        """Interrupt what runs in a context."""
        await self._short(knock, code_calls.InterruptCall(context))

    async def restart(self, knock: Knock, context: int) -> ContextInfo:
        """Give a context a new interpreter; return once that takes code."""
        return await self._context(knock, code_calls.RestartCall(context))

    async def close(self, knock: Knock, context: int) -> None:
        """End a context with everything that it has started."""
        await self._short(knock, code_calls.CloseContextCall(context))

    async def _short(self, knock: Knock, asked: DoorCall) -> None:
        async with self._call(knock, asked) as call:
            await call.expect(DoneReply)

    async def _context(self, knock: Knock, asked: DoorCall) -> ContextInfo:
        async with self._call(knock, asked) as call:
            return (await call.expect(ContextReply)).context
