"""One run of code in a context, as its caller hears of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from runner.base.masking import INLINE, Masker
from runner.base.masking import Stream as Mask
from runner.door.replies import (
    GapReply,
    RaisedReply,
    Reply,
    ResultReply,
    RunEndedReply,
    ValueReply,
)
from runner.door.wire import Chunk
from runner.node.contexts.masked import HOP_S, JsonTurns, OutputMask, fed
from runner.node.contexts.said import (
    MOST_TRACE,
    ContextBroken,
    EndedSaid,
    ErrorSaid,
    GoneSaid,
    OutputSaid,
    ResultSaid,
    Said,
    ValueSaid,
)
from runner.words.errors import RunnerError
from runner.words.execution import Stream
from runner.words.living import OutputGap

MOST_JSON = 1024 * 1024
"""A value that is JSON is masked as a whole, and may have this many bytes."""
MOST_HELD = 1024 * 1024
"""Bytes of output that wait while a result is coming; with more, the result is cut off."""
MOST_KINDS = 64
"""How many kinds one result may have; each costs its readers something, even if it is empty."""
_HELD = 256
"""Bytes that each piece counts beside its own: the memory of the object that holds it."""
_AHEAD = 16
"""How many events wait for the caller, at most a few 100 KiB."""
_KINDS = {Stream.STDOUT: b"O", Stream.STDERR: b"E"}

RunEvent: TypeAlias = Reply | Chunk


class ContextRun:
    """One run. A caller that has left hears no more; the run itself goes on to its end."""

    def __init__(
        self, number: int, masker: Masker, json: JsonTurns, charge: Callable[[float], None]
    ) -> None:
        """Take what stars secrets, alone and in JSON.

        `charge` is told what holds the event loop, in seconds.
        """
        self.number = number
        self.timed_out = False
        self.begun = False
        """Whether the context was told to run the code."""
        self.withdrawn: EndedSaid | GoneSaid | None = None
        """The reason why the context must not be told any more."""
        self.over = False
        """Whether it has ended."""
        self._masker = masker
        self._masked_json = json
        self._charge = charge
        self._outputs = OutputMask(masker, charge)
        self._ready: asyncio.Queue[RunEvent | RunnerError | None] = asyncio.Queue(_AHEAD)
        self._left = False
        self._mime: str | None = None
        """The kind of which pieces are coming."""
        self._value: Mask | None = None
        self._json = bytearray()
        self._skipped = False
        """Whether the pieces that are coming are left out."""
        self._told: set[str] = set()
        """The kinds of the result that is coming which were told."""
        self._lacks = False
        """Whether one of them was left out."""
        self._held: list[Chunk] = []
        """Output that came within a result, which is told as a whole."""
        self._held_bytes = 0

    # ---- The caller --------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[RunEvent]:
        """Yield what happens, until it has ended. Raises what keeps it from going on."""
        while (event := await self._ready.get()) is not None:
            if isinstance(event, RunnerError):
                raise event
            yield event

    def withdraw(self, instead: EndedSaid | GoneSaid) -> bool:
        """Keep it from beginning; it ends like this instead. False if it has begun."""
        if not self.begun and self.withdrawn is None:
            self.withdrawn = instead
        return not self.begun

    def leave(self) -> None:
        """Hear no more."""
        self._left = True
        while not self._ready.empty():
            self._ready.get_nowait()

    # ---- The context -------------------------------------------------------------------------

    async def take(self, each: Said | OutputGap) -> None:
        """Take what the context says; leave out what is about an earlier run."""
        if isinstance(each, OutputGap):
            await self._tear(each)
        elif each.run == self.number:
            await self._take(each)

    async def fail(self, error: RunnerError) -> None:
        """End it with a failure."""
        self.over = True
        await self._tell(error)

    async def _take(self, each: Said) -> None:
        match each:
            case OutputSaid(of=of, text=text):
                stream = Stream(of)
                data = await self._outputs.take(stream, text.encode())
                await self._tell_output(stream, data)
            case ValueSaid():
                await self._take_value(each)
            case ResultSaid(main=main):
                await self._end_value()
                if self._told:
                    await self._tell(ResultReply(main=main, truncated=self._lacks))
                await self._after_result()
            case ErrorSaid():
                await self._tear_result()
                await self._tell(
                    RaisedReply(
                        await self._text(each.error),
                        await self._text(each.value),
                        await self._text(each.traceback),
                    )
                )
            case EndedSaid(count=count, exit_code=code):
                await self._end(RunEndedReply(count, code, None, self.timed_out, gone=False))
            case GoneSaid(exit_code=code, signal=signal):
                await self._end(
                    RunEndedReply(None, code, signal or None, self.timed_out, gone=True)
                )

    async def _take_value(self, said: ValueSaid) -> None:
        if said.mime != self._mime:
            await self._end_value()
            self._mime = said.mime
            self._skipped = len(self._told) >= MOST_KINDS or said.mime in self._told
            self._lacks = self._lacks or self._skipped
            if not said.json and not self._skipped:
                self._value = self._masker.stream()
                await self._begin_value(said.mime, json=False)
        if self._skipped:
            return
        if self._value is not None:
            await self._tell_value(await fed(self._value, said.text.encode(), self._charge))
            return
        self._json += said.text.encode()
        if len(self._json) > MOST_JSON:
            raise ContextBroken("a context said too much JSON")

    async def _end_value(self) -> None:
        if self._mime is None:
            return
        if self._value is not None:
            await self._tell_value(self._value.rest())
        elif not self._skipped:
            await self._end_json(self._mime)
        self._mime = self._value = None
        self._json.clear()

    async def _end_json(self, mime: str) -> None:
        whole = await self._masked_json.masked(self._json.decode(), self._masker)
        if whole is None:
            self._lacks = True
            return
        await self._begin_value(mime, json=True)
        await self._tell_value(whole.encode())

    async def _begin_value(self, mime: str, *, json: bool) -> None:
        self._told.add(mime)
        await self._tell(ValueReply(self._masker.text(mime), json))

    async def _tear(self, gap: OutputGap) -> None:
        """End the result that was coming: the rest of it may be in the gap."""
        await self._tear_result()
        await self._tell(GapReply(gap.omitted))

    async def _text(self, text: str) -> str:
        # A secret may have been cut off with the rest of a long text.
        if len(text) >= MOST_TRACE:
            return self._masker.beginning(text)
        if len(text) > INLINE:
            self._charge(HOP_S)
        return await self._masker.text_aside(text)

    async def _end(self, reply: RunEndedReply) -> None:
        await self._tear_result()
        for stream, data in self._outputs.rest():
            await self._tell_output(stream, data)
        self.over = True
        await self._tell(reply)
        await self._tell(None)

    async def _tear_result(self) -> None:
        if self._value is not None:
            await self._tell_value(self._value.rest())
        self._mime = self._value = None
        self._json.clear()
        if self._told:
            await self._tell(ResultReply(main=False, truncated=True))
        await self._after_result()

    async def _after_result(self) -> None:
        self._told.clear()
        self._lacks = False
        self._held_bytes = 0
        held, self._held = self._held, []
        for each in held:
            await self._tell(each)

    async def _tell_output(self, stream: Stream, data: bytes) -> None:
        """Tell what was written; if a thread or a child wrote it within a result, after that."""
        if not data:
            return
        chunk = Chunk(_KINDS[stream], data)
        if not self._told:
            await self._tell(chunk)
            return
        self._held.append(chunk)
        self._held_bytes += len(data) + _HELD
        if self._held_bytes > MOST_HELD:
            await self._tear_result()

    async def _tell_value(self, data: bytes) -> None:
        if data:
            await self._tell(Chunk(b"D", data))

    async def _tell(self, event: RunEvent | RunnerError | None) -> None:
        if not self._left:
            # A caller that leaves meanwhile makes room, and nobody reads this.
            await self._ready.put(event)
