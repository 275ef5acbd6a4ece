"""A supervisor that lives, without a container, and a node's end of its connection.

Everything it says is read as a node reads it, and what is beyond a window is a failure.
"""

import asyncio
import contextlib
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from runner.base.settings import Settings
from runner.protocol import greeting
from runner.protocol.commands import COMMANDS, Command, Invocation, Live, Ping
from runner.protocol.events import EVENTS, Alive, Living, SupervisorEvent
from runner.protocol.frames import GRANT, HEADER, Data, any_frame, frame, pieces
from runner.protocol.living import OVERHEAD, WINDOW, Terminal
from runner.protocol.living_commands import LIVING_COMMANDS, StartProcess
from runner.protocol.living_events import (
    LIVING_EVENTS,
    FilesChanged,
    FilesListed,
    OutputLost,
    ProcessExited,
    ProcessStarted,
)
from runner.words.errors import ProtocolViolation

WITHIN_S = 60.0
"""How long anything may take on a host that is busy with other tests."""
SUPERVISOR = Settings().recipes_path / "supervisor"
COUNTED = (OutputLost, FilesListed, FilesChanged)
HERE = """
import os, signal, socket, sys
sys.path.insert(0, sys.argv[1])
import files, wire
wire.SOCKET, files.WORKSPACE = sys.argv[2:4]
from wire import Wire, Disconnected
children, wakeup = socket.socketpair()
for end in (children, wakeup):
    end.setblocking(False)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
connection = socket.socket(socket.AF_UNIX)
connection.connect(wire.SOCKET)
spoken = Wire(connection)
spoken.greet()
from live import Living
Living(spoken, children, spoken.command()).live()
"""
"""The work of `serve` before a sandbox lives, apart from runs."""

E = TypeVar("E", bound=SupervisorEvent)
Heard = SupervisorEvent | Data


class Node:
    """A connection to a supervisor that lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._heard: dict[int, asyncio.Queue[Heard | None]] = defaultdict(asyncio.Queue)
        self._left: dict[int, int] = defaultdict(lambda: WINDOW)
        """The bytes that the supervisor may still send, by stream."""
        self._may_send: dict[int, int] = defaultdict(lambda: WINDOW)
        self._granted = asyncio.Event()
        self.next = 1
        self.grants = True
        self._violation: Exception | None = None
        self._listening: asyncio.Task[None] | None = None

    async def meet(self, *, alone_s: int = 60, secret: str = "0" * 64) -> None:
        """Agree on a generation, and have it live."""
        await self.hear_first_word()
        live = Live(secret=secret, alone_s=alone_s, egress=False, trust="")
        self.writer.write(frame(b"C", 0, COMMANDS.encode(live)))
        kind, _, payload = await self._frame()
        assert kind == b"C" and EVENTS.decode(payload) == Living()
        self.listen()

    async def hear_first_word(self) -> greeting.FirstWord:
        """Return how the supervisor greets, and agree."""
        header = await self._reader.readexactly(greeting.HEADER.size)
        rest = await self._reader.readexactly(greeting.HEADER.unpack(header)[1])
        found = greeting.first_word(bytearray(header + rest))
        assert found is not None
        agree = greeting.Agree(greeting.agreed(found[0], "test"))
        self.writer.write(greeting.framed(greeting.ANSWERS.encode(agree)))
        return found[0]

    def listen(self) -> None:
        """Read whatever comes, for whoever awaits it."""
        self._listening = asyncio.create_task(self._listen())

    async def _frame(self) -> tuple[bytes, int, bytes]:
        header = await self._reader.readexactly(HEADER.size)
        payload = await self._reader.readexactly(HEADER.unpack(header)[2])
        found = any_frame(bytearray(header + payload), 0)
        assert found is not None
        return found[0], found[1], payload

    async def _listen(self) -> None:
        try:
            while True:
                kind, stream, payload = await self._frame()
                if kind == b"W":
                    self._may_send[stream] += GRANT.unpack(payload)[0]
                    self._granted.set()
                    continue
                heard = LIVING_EVENTS.decode(payload) if kind == b"C" else Data(kind, payload)
                if isinstance(heard, (Data, *COUNTED)):
                    assert self._left[stream] > 0, "sent beyond the window"
                    self._left[stream] -= len(payload) + OVERHEAD
                    if self.grants:
                        self.grant(stream, len(payload) + OVERHEAD)
                self._heard[stream].put_nowait(heard)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (AssertionError, ProtocolViolation) as error:
            self._violation = error
        finally:
            for queue in self._heard.values():
                queue.put_nowait(None)

    def grant(self, stream: int, size: int) -> None:
        """Let so much more be sent."""
        self._left[stream] += size
        self.writer.write(frame(b"W", stream, GRANT.pack(size)))

    def say(self, stream: int, command: Command) -> None:
        """Say something on a stream."""
        self.writer.write(frame(b"C", stream, LIVING_COMMANDS.encode(command)))

    async def send(self, stream: int, content: bytes) -> None:
        """Send bytes on a stream, as its window lets."""
        for each in pieces(stream, content):
            while self._may_send[stream] <= 0:
                self._granted.clear()
                await asyncio.wait_for(self._granted.wait(), WITHIN_S)
            self._may_send[stream] -= len(each) - HEADER.size + OVERHEAD
            self.writer.write(each)

    def open(self, command: Command) -> int:
        """Open the next stream."""
        self.next += 1
        self.say(self.next - 1, command)
        return self.next - 1

    async def next_of(self, stream: int) -> Heard:
        """Return what is said next on a stream."""
        heard = await asyncio.wait_for(self._heard[stream].get(), WITHIN_S)
        assert heard is not None, self._violation or "the supervisor hung up"
        return heard

    async def expect(self, stream: int, kind: type[E]) -> E:
        """Return the event that is said next, which is of this kind."""
        heard = await self.next_of(stream)
        assert isinstance(heard, kind), heard
        return heard

    def silent(self, stream: int) -> bool:
        """Return whether nothing was said on a stream that was not awaited."""
        return self._heard[stream].empty()

    async def until(self, stream: int, kind: type[E]) -> tuple[dict[bytes, bytes], E]:
        """Return all bytes that come before an event of this kind, by kind, and the event."""
        got: dict[bytes, bytes] = {b"D": b"", b"O": b"", b"E": b""}
        while isinstance(heard := await self.next_of(stream), Data):
            got[heard.kind] += heard.payload
        assert isinstance(heard, kind), heard
        return got, heard

    async def ping(self) -> float:
        """Wait for the answer to a ping; return how long that takes, in seconds."""
        loop = asyncio.get_running_loop()
        before = loop.time()
        self.say(0, Ping())
        await self.expect(0, Alive)
        return loop.time() - before

    def begin(
        self,
        *argv: str,
        stdin: bool = False,
        terminal: Terminal | None = None,
        keep_bytes: int = 2**20,
        env: dict[str, str] | None = None,
        cwd: str = "",
        label: str = "",
    ) -> int:
        """Order a process to be started; return its number."""
        program = Invocation(argv, env or {}, cwd, interpret=False).encode()
        number = self.open(
            StartProcess(
                program_bytes=len(program),
                stdin=stdin,
                terminal=terminal,
                keep_bytes=keep_bytes,
                label=label,
            )
        )
        for each in pieces(number, program):
            self.writer.write(each)
        return number

    async def start(self, *argv: str, **options: object) -> int:
        """Start a process; return its number."""
        number = self.begin(*argv, **options)  # type: ignore[arg-type]  # by name
        await self.expect(number, ProcessStarted)
        return number

    async def end(self, number: int) -> ProcessExited:
        """Return how a process ended."""
        return await self.expect(number, ProcessExited)

    async def close(self) -> None:
        """Hang up."""
        self.writer.transport.abort()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class Sandbox:
    """A supervisor that is a process of this host, and those who connect to it."""

    def __init__(self, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self._path = folder / "s"
        self._connected: asyncio.Queue[Node] = asyncio.Queue()
        self._nodes: list[Node] = []
        self._server: asyncio.Server | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def listen(self) -> None:
        """Let supervisors connect."""
        self._path.unlink(missing_ok=True)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._nodes.append(Node(reader, writer))
            self._connected.put_nowait(self._nodes[-1])

        self._server = await asyncio.start_unix_server(connected, self._path)

    def deaf(self) -> None:
        """Let nobody connect."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def connection(self) -> Node:
        """Return the next connection."""
        return await asyncio.wait_for(self._connected.get(), WITHIN_S)

    async def start(self, **options: object) -> Node:
        """Start the supervisor, and have it live."""
        await self.listen()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            HERE,
            SUPERVISOR,
            self._path,
            self.workspace,
            start_new_session=True,
        )
        node = await self.connection()
        await node.meet(**options)  # type: ignore[arg-type]  # by name
        return node

    def took_s(self) -> float:
        """Return how much of a processor's time the supervisor has taken."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = status.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> None:
        """End it, if it is still there."""
        self.deaf()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        for node in self._nodes:
            await node.close()


@asynccontextmanager
async def living(folder: Path) -> AsyncIterator[Sandbox]:
    """Open a sandbox without a container."""
    sandbox = Sandbox(folder)
    try:
        yield sandbox
    finally:
        await sandbox.stop()
