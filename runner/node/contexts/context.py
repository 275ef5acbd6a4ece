"""One code context: runs code in its interpreter, one piece after another."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from signal import SIGKILL
from typing import Annotated, Any, Literal

import structlog
from pydantic import Field, TypeAdapter, ValidationError, with_config

from runner.base.masking import Masker
from runner.node.contexts.masked import JsonTurns
from runner.node.contexts.run import ContextRun, RunEvent
from runner.node.contexts.said import (
    ContextBroken,
    EndedSaid,
    GoneSaid,
    ReadySaid,
    Said,
    SaidLines,
    UnavailableSaid,
)
from runner.node.starvation import starved
from runner.protocol.codec import STRICT
from runner.sandbox.guest.processes import GuestProcess
from runner.words.errors import (
    Conflict,
    GuestRefused,
    Invalid,
    RunnerError,
    SandboxFault,
)
from runner.words.living import ContextInfo, Language, OutputGap

MOST_WAITING = 16
"""How many runs wait for the one under way."""
KILLED_AFTER_S = 5.0
"""How long code may go on after it was interrupted because its time was up."""
AGAIN_AFTER_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""When to interrupt code again that nobody waits for."""
_CWD = 512

_log = structlog.get_logger("runner.worker")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ContextLabel:
    """The node's notes about a context, as the label of its process."""

    context: Language
    cwd: Annotated[str, Field(max_length=_CWD)]
    started_at: Annotated[float, Field(ge=0)]
    shared: bool = False
    """Whether it is the one of its language for all who name none."""

    def text(self) -> str:
        """Return the note as a label."""
        return json.dumps(_LABELS.dump_python(self, mode="json"), ensure_ascii=False)

    @classmethod
    def of(cls, language: Language, cwd: str, *, shared: bool = False) -> "ContextLabel":
        """Return the note for a context that begins now."""
        return cls(language, cwd[-_CWD:], time.time(), shared)

    @classmethod
    def read(cls, text: str) -> "ContextLabel | None":
        """Return what a label says; None if it is that of another process."""
        try:
            return _LABELS.validate_json(text)
        except ValidationError:
            return None


_LABELS = TypeAdapter(ContextLabel)


class Context:
    """An interpreter and what it is asked for.

    A run holds the turn until it has ended, even if its caller has left.
    """

    def __init__(
        self,
        process: GuestProcess,
        label: ContextLabel,
        masker: Callable[[], Masker],
        *,
        json: JsonTurns,
        charge: Callable[[float], None],
        written: Callable[[int], Awaitable[int]],
        known: bool,
    ) -> None:
        """Take its process; `written` says how much that has written.

        `masker` returns what stars the secrets that are known now, and `json` does that in JSON.
        `charge` charges the sandbox's share of the event loop, in seconds.

        A `known` context was begun by an earlier process of this node.
        """
        self.process = process
        self.label = label
        self._masker = masker
        self._json = json
        self._charge = charge
        self._written = written
        self._offset: int | None = None if known else 0
        """The byte from which its output is new; None for the end of the output as it is now."""
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._number = int(time.time() * 1000)
        """The last run's number: the clock is ahead of those of earlier processes of this node."""
        self._run: ContextRun | None = None
        self._gone = False
        self._tasks: set[asyncio.Task[None]] = set()
        """Tasks under way. They end with the connection to the sandbox at the latest."""

    @property
    def number(self) -> int:
        """Its number in the sandbox, which is its process's."""
        return self.process.number

    def info(self) -> ContextInfo:
        """Return what the API is told."""
        state: Literal["idle", "running", "ended"] = "idle"
        if self._gone or self.process.exited.done():
            state = "ended"
        elif self._turn.locked():
            state = "running"
        return ContextInfo(
            number=self.number,
            language=self.label.context,
            cwd=self.label.cwd,
            state=state,
            created_at=datetime.fromtimestamp(self.label.started_at, UTC),
        )

    @property
    def has_ended(self) -> bool:
        """Whether its process has ended, so that nothing can be asked of it."""
        return self.process.exited.done()

    # ---- Its life ----------------------------------------------------------------------------

    async def begin(self) -> None:
        """Wait until its interpreter takes code. Raises Invalid if the image has none."""
        async with self._turn:
            await self._greet()

    async def take_over(self) -> None:
        """Interrupt what runs: whoever waited for it was cut off with this node's last process."""
        with suppress(GuestRefused):
            await self._say("interrupt", run=0)

    async def restart(self) -> None:
        """Give it a new interpreter. A run under way ends."""
        self._require_process()
        if self._run is not None:
            self._run.withdraw(GoneSaid(self._run.number, 0, 0))
        await self._say("restart", run=0)
        async with self._turn:
            await self._greet()

    async def interrupt(self) -> None:
        """Interrupt what runs, if anything does."""
        self._require_process()
        if self._run is not None:
            await self._interrupt(self._run)
        elif self._turn.locked():
            await self._say("interrupt", run=0)

    # ---- Runs --------------------------------------------------------------------------------

    def require_room(self) -> None:
        """Raise Conflict if too many runs wait already, or if its interpreter has ended."""
        self._require_process()
        if self._gone:
            raise Conflict("the interpreter of this context has ended: restart the context")
        if self._waiting >= MOST_WAITING:
            raise Conflict(f"{MOST_WAITING} runs wait for this context already")

    @asynccontextmanager
    async def run(
        self, code: str, env: Mapping[str, str], timeout_s: float | None
    ) -> AsyncIterator[AsyncIterator[RunEvent]]:
        """Run code once it is its turn. A caller that leaves early interrupts it."""
        await self._my_turn()
        run = self._run = ContextRun(self._next(), self._masker(), self._json, self._charge)
        work = self._perform(run, code, env, timeout_s)
        self._in_background(work).add_done_callback(lambda _: self._turn.release())
        try:
            yield run.events()
        finally:
            run.leave()
            if not run.over:
                self._in_background(self._end_unwanted(run))

    async def _my_turn(self) -> None:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        if self._offset is None:
            try:
                await self._greet()
            except BaseException:
                self._turn.release()
                raise

    async def _perform(
        self, run: ContextRun, code: str, env: Mapping[str, str], timeout_s: float | None
    ) -> None:
        """Run code to its end, whatever becomes of the caller."""
        timing = None
        try:
            if self._gone:
                # While it waited for its turn.
                await run.take(GoneSaid(run.number, 0, 0))
                return
            if timeout_s is not None:
                timing = self._in_background(self._time(run, timeout_s))
            heard = self._heard("run", run, run=run.number, code=code, env=dict(env))
            async with aclosing(heard):
                async for each in heard:
                    if isinstance(each, GoneSaid):
                        self._gone = True
                    await run.take(each)
                    if run.over:
                        return
            self._gone = True
            await run.take(GoneSaid(run.number, 0, SIGKILL))
        except RunnerError as error:
            await run.fail(error)
        except Exception as error:  # noqa: BLE001 - logged, and told to the caller
            _log.exception("context_failed")
            await run.fail(starved(error) or SandboxFault("the node failed: see its log"))
        finally:
            run.over = True
            self._run = None
            if timing is not None:
                timing.cancel()

    async def _time(self, run: ContextRun, timeout_s: float) -> None:
        """End the run when its time is up: interrupt it, and then end its interpreter."""
        await asyncio.sleep(timeout_s)
        run.timed_out = True
        await self._interrupt(run)
        await asyncio.sleep(KILLED_AFTER_S)
        with suppress(RunnerError):
            await self._say("kill", run=0)
            await asyncio.sleep(KILLED_AFTER_S)
            # The code has stopped even what stands before the interpreter.
            self.process.signal(SIGKILL)

    async def _end_unwanted(self, run: ContextRun) -> None:
        """Interrupt a run that nobody waits for until it ends, or is stubborn.

        One interrupt can be lost: bash ignores it if the program that it is just about to run does
        not end by it. The next run would wait behind that program.
        """
        for pause_s in AGAIN_AFTER_S:
            await self._interrupt(run)
            await asyncio.sleep(pause_s)
            if run.over:
                return

    async def _interrupt(self, run: ContextRun) -> None:
        """Interrupt a run, or keep it from beginning. One that has ended meanwhile stays so."""
        if run.withdraw(EndedSaid(run.number, 0, 1)):
            return
        with suppress(RunnerError):
            await self._say("interrupt", run=run.number)

    async def _greet(self) -> None:
        """Wait until its interpreter answers."""
        number = self._next()
        async with aclosing(self._heard("hello", run=number)) as heard:
            async for each in heard:
                match each:
                    case ReadySaid(run=run) if run == number:
                        self._gone = False
                        return
                    case UnavailableSaid(detail=detail):
                        raise Invalid(self._masker().text(detail), "language")
                    case GoneSaid(run=run) if run == number:
                        break
        self._gone = True
        raise Conflict("the interpreter of this context has ended")

    async def _heard(
        self, do: str, for_run: ContextRun | None = None, **fields: object
    ) -> AsyncGenerator[Said | OutputGap, None]:
        """Say something; yield what it says from where the last listener stopped.

        If it is said for a run that was withdrawn, yield only how that ends.
        """
        torn = self._offset is None
        offset = await self._written(self.number) if self._offset is None else self._offset
        async with self.process.attach(offset) as attached:
            if for_run is not None:
                if for_run.withdrawn is not None:
                    yield for_run.withdrawn
                    return
                # What is said about it from now on comes after it.
                for_run.begun = True
            await self._say(do, **fields)
            lines = SaidLines(aiter(attached), torn=torn, charge=self._charge)
            try:
                async with aclosing(aiter(lines)) as heard:
                    async for each in heard:
                        yield each
            except ContextBroken:
                self.process.signal(SIGKILL)
                raise
            finally:
                self._offset = self._offset if lines.offset is None else lines.offset

    async def _say(self, do: str, **fields: object) -> None:
        """Say something to it, as a line."""
        await self.process.write(json.dumps({"do": do, **fields}).encode() + b"\n")

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _require_process(self) -> None:
        if self.process.exited.done():
            raise Conflict("this context has ended: make another one")

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
