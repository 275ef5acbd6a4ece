"""Processes of a living sandbox: start, feed, signal, and read output from any offset on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum, auto

from runner.protocol.commands import Invocation
from runner.protocol.events import SupervisorEvent
from runner.protocol.frames import Data
from runner.protocol.living import Terminal
from runner.protocol.living_commands import (
    Attach,
    CloseStdin,
    ForgetProcess,
    ResizeTerminal,
    SignalProcess,
    StartProcess,
)
from runner.protocol.living_events import (
    Done,
    Failed,
    OutputDrained,
    OutputLost,
    ProcessExited,
    ProcessKnown,
    ProcessNotStarted,
    ProcessStarted,
)
from runner.sandbox.guest.channel import unexpected
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.stream import Stream
from runner.words.errors import GuestRefused, ProtocolViolation
from runner.words.execution import Program
from runner.words.execution import Stream as Output
from runner.words.living import OutputGap, OutputPiece, TerminalSize

_OUTPUTS = {b"O": Output.STDOUT, b"E": Output.STDERR}


class _State(Enum):
    """The supervisor's account of a process."""

    STARTING = auto()
    RUNS = auto()
    ENDED = auto()


class GuestProcess:
    """One process. Its number is never used again in its sandbox."""

    def __init__(self, mux: Mux, *, label: str, terminal: bool, stdin: bool) -> None:
        self.label = label
        self.terminal = terminal
        self.stdin = stdin
        """Whether it has a stdin to write to."""
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[ProcessExited] = loop.create_future()
        """Its end, as the supervisor reports it; raises the reason if the connection was lost."""
        self.forgotten = False
        self._mux = mux
        self._stream: Stream | None = None
        self._state = _State.STARTING
        self._program = ""
        self._began: asyncio.Future[None] = loop.create_future()
        mux.lost.add_done_callback(self._lost)

    @property
    def number(self) -> int:
        """The number of its stream."""
        return self._own.number

    @property
    def _own(self) -> Stream:
        if self._stream is None:
            raise RuntimeError("the process was not started")
        return self._stream

    def begin(self, program: Program, *, terminal: TerminalSize | None, keep_bytes: int) -> None:
        """Have it started; `started` waits for the answer."""
        self._program = program.argv[0]
        invocation = Invocation(program.argv, program.env, program.cwd, interpret=False).encode()
        size = None if terminal is None else Terminal(terminal.rows, terminal.columns)
        command = StartProcess(len(invocation), self.stdin, size, keep_bytes, self.label)
        self._stream = self._mux.open(command, invocation, hear=self._hear)

    async def started(self) -> None:
        """Wait until it runs. Raises GuestRefused if it cannot be executed.

        If this is cancelled, the process is killed and forgotten.
        """
        try:
            await asyncio.shield(self._began)
        except asyncio.CancelledError:
            self.forget()
            raise
        except GuestRefused as error:
            raise GuestRefused(error.errno, self._program) from None

    def adopt(self, known: ProcessKnown) -> None:
        """Become the process that an earlier connection started."""
        self._stream = self._mux.adopt(known.process, self._hear)
        self._state = _State.RUNS
        self._began.set_result(None)
        if known.ended:
            self._end(ProcessExited(known.exit_code, known.signal, known.output))

    async def write(self, content: bytes) -> None:
        """Write to its stdin as fast as it reads. Raises GuestRefused if nothing reads it."""
        if not await self._own.send(content):
            raise GuestRefused("EPIPE", f"process {self.number}")

    def close_stdin(self) -> None:
        """Close its stdin; a terminal gets an end of file."""
        self._own.say(CloseStdin())
        if not self.terminal:
            self._own.close()

    def signal(self, number: int) -> None:
        """Signal it and its group, unless it has ended."""
        self._own.say(SignalProcess(number))

    def resize(self, size: TerminalSize) -> None:
        """Give its terminal another size."""
        self._own.say(ResizeTerminal(Terminal(size.rows, size.columns)))

    def forget(self) -> None:
        """Discard it and its output; if it still runs, it is killed."""
        if not self.forgotten and self._stream is not None:
            self.forgotten = True
            self._fail(GuestRefused("ESRCH", f"process {self.number}"))
            self._stream.close()
            if not self._mux.lost.done():
                self._stream.say(ForgetProcess())
                self._mux.expect_end(self._stream)

    @asynccontextmanager
    async def attach(self, offset: int = 0, *, follow: bool = True) -> AsyncIterator["Attached"]:
        """Read its output from the byte at `offset` on; with `follow`, until it has ended.

        `offset` counts the bytes of both outputs together. Raises GuestRefused with EINVAL if it is
        beyond what the process has written.
        """
        async with self._mux.open(Attach(self.number, offset, follow)) as stream:
            yield Attached(stream, self.number, offset)

    # ---- What the supervisor tells -----------------------------------------------------------

    def _hear(self, event: SupervisorEvent) -> None:
        if isinstance(event, ProcessStarted) and self._state is _State.STARTING:
            self._state = _State.RUNS
            if not self._began.done():
                self._began.set_result(None)
        elif isinstance(event, ProcessNotStarted) and self._state is _State.STARTING:
            self._fail(GuestRefused(event.error, "process"))
        elif isinstance(event, ProcessExited) and self._state is _State.RUNS:
            self._end(event)
        elif not (isinstance(event, Done) and self.forgotten):
            raise unexpected(event)

    def _end(self, event: ProcessExited) -> None:
        self._state = _State.ENDED
        self._own.close()
        if not self.exited.done():
            self.exited.set_result(event)

    def _lost(self, lost: "asyncio.Future[ProtocolViolation]") -> None:
        self._fail(lost.result())

    def _fail(self, reason: GuestRefused | ProtocolViolation) -> None:
        self._mux.lost.remove_done_callback(self._lost)
        for future in (self._began, self.exited):
            if not future.done():
                future.set_exception(reason)
                future.exception()  # marked as seen, even if nobody asks


class Attached:
    """A process's output, as it comes. Iterate over it once."""

    def __init__(self, stream: Stream, process: int, offset: int) -> None:
        self.offset = offset
        """The offset of the next byte; after iteration, that of the end."""
        self._stream = stream
        self._process = process

    @property
    def ready(self) -> bool:
        """Whether more output is here already."""
        return self._stream.ready

    async def __aiter__(self) -> AsyncIterator[OutputPiece | OutputGap]:
        """Yield pieces of both outputs in order, and gaps for output that is no longer kept."""
        while not isinstance(message := await self._stream.read(), OutputDrained):
            at = self.offset
            if isinstance(message, Data):
                self.offset += len(message.payload)
                yield OutputPiece(_OUTPUTS[message.kind], at, message.payload)
            elif isinstance(message, OutputLost):
                self.offset += message.omitted
                yield OutputGap(at, message.omitted)
            elif isinstance(message, Failed):
                raise GuestRefused(message.error, f"process {self._process}")
            else:
                raise self._stream.unexpected(message)
        if message.offset != self.offset:
            raise self._stream.unexpected(message)
