"""A sandbox that lives: many processes, files and ports at once, until somebody ends it.

It outlives its node's process. The supervisor then reconnects to the same place, and proves by its
secret that it is the same one. `Launcher.adopt` takes the sandbox over.
"""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from runner.protocol.living_commands import Dial
from runner.protocol.living_events import Connected, Failed, ProcessKnown
from runner.sandbox.guest import patience
from runner.sandbox.guest.archives import GuestArchives
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.dialled import DialledPort
from runner.sandbox.guest.filing import GuestFiles
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.processes import Attached, GuestProcess
from runner.sandbox.guest.sockets import listen_for_egress
from runner.words.errors import GuestRefused
from runner.words.execution import Program
from runner.words.living import TerminalSize

_DIES_S = 5.0
"""How long Docker may take to see that a container has ended whose supervisor has hung up."""


@dataclass(frozen=True, slots=True)
class Residence:
    """Everything that a later process of this node must know to take a living sandbox over."""

    sandbox_id: str
    container_id: str
    secret: str = field(repr=False)
    """64 hexadecimal digits that only the supervisor and its node know."""
    image_digest: str
    profile_hash: str


class LivingSandbox:
    """A container whose supervisor was told to live.

    Every method raises Closed if the connection has ended, and ProtocolViolation once the
    supervisor has broken the protocol. The sandbox is then lost: its container must be destroyed.
    """

    def __init__(
        self, residence: Residence, container: Container, mux: Mux, waits: Patience
    ) -> None:
        self.id = residence.sandbox_id
        self.residence = residence
        self.container = container
        self.files = GuestFiles(mux)
        self.archives = GuestArchives(mux, waits)
        self.lost = mux.lost
        """The end of the connection; its result is the ProtocolViolation."""
        self._mux = mux
        self._patience = waits
        self._processes: dict[int, GuestProcess] = {}

    def listen_for_egress(self) -> socket.socket:
        """Return a listening socket that only this sandbox can reach, which identifies it."""
        return listen_for_egress(self.container.home)

    async def ping(self) -> None:
        """Wait until the supervisor answers. Raises ProtocolViolation if it does not in time."""
        async with self._patience(patience.ANSWER_S, "answer"):
            await self._mux.ping()

    def charge(self, seconds: float) -> None:
        """Charge its share of the event loop for work on what it said."""
        self._mux.charge(seconds)

    # ---- Processes ---------------------------------------------------------------------------

    async def start(
        self,
        program: Program,
        *,
        stdin: bool = False,
        terminal: TerminalSize | None = None,
        keep_bytes: int = 2**20,
        label: str = "",
    ) -> GuestProcess:
        """Start a program. The last `keep_bytes` of its output are kept for `attach`.

        The program's own `stdin` and `interpret` are ignored; with the argument `stdin`, it reads
        what is written to the process. Raises GuestRefused if it cannot be executed.
        """
        process = GuestProcess(self._mux, label=label, terminal=terminal is not None, stdin=stdin)
        process.begin(program, terminal=terminal, keep_bytes=keep_bytes)
        await self._started(process)
        return process

    @asynccontextmanager
    async def start_attached(
        self,
        program: Program,
        *,
        stdin: bool = False,
        terminal: TerminalSize | None = None,
        keep_bytes: int = 2**20,
        label: str = "",
    ) -> AsyncIterator[tuple[GuestProcess, Attached]]:
        """Start a program and read its output from the first byte on, for the context.

        This is faster than `start` and then `attach`, and loses nothing of what it writes at once.
        The process stays when the context ends. Raises what `start` raises.
        """
        process = GuestProcess(self._mux, label=label, terminal=terminal is not None, stdin=stdin)
        process.begin(program, terminal=terminal, keep_bytes=keep_bytes)
        async with process.attach() as attached:
            await self._started(process)
            yield process, attached

    async def _started(self, process: GuestProcess) -> None:
        async with self._patience(patience.START_S, "start a program"):
            await process.started()
        self._processes[process.number] = process

    def process(self, number: int) -> GuestProcess:
        """Return the process of this number. Raises GuestRefused if there is none."""
        try:
            return self._processes[number]
        except KeyError:
            raise GuestRefused("ESRCH", f"process {number}") from None

    @property
    def processes(self) -> list[GuestProcess]:
        """Return the processes known here that were not forgotten, by number."""
        return list(self._processes.values())

    async def list_processes(self) -> list[ProcessKnown]:
        """Return every process that was not forgotten, as the supervisor describes it."""
        async with self._patience(patience.LIST_S, "list its processes"):
            return await self._mux.processes()

    def forget(self, number: int) -> None:
        """Discard a process and its output; one that still runs is killed."""
        self.process(number).forget()
        del self._processes[number]

    async def take_over(self) -> None:
        """Take over the processes that an earlier connection started."""
        async with self._patience(patience.LIST_S, "list its processes"):
            await self._mux.processes(self._adopt)

    def _adopt(self, known: ProcessKnown) -> None:
        process = GuestProcess(
            self._mux, label=known.label, terminal=known.terminal, stdin=known.stdin
        )
        process.adopt(known)
        self._processes[known.process] = process

    # ---- Ports -------------------------------------------------------------------------------

    @asynccontextmanager
    async def dial(self, port: int) -> AsyncIterator[DialledPort]:
        """Connect to a port of the sandbox's own loopback for the context.

        Raises GuestRefused if nobody listens.
        """
        async with self._mux.open(Dial(port)) as stream:
            message = await stream.read()
            if isinstance(message, Failed):
                raise GuestRefused(message.error, f"port {port}")
            if not isinstance(message, Connected):
                raise stream.unexpected(message)
            yield DialledPort(stream, port)

    # ---- Its life ----------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether it is frozen, or may be, because Docker did not say."""
        return self.container.paused

    async def pause(self) -> None:
        """Freeze all its processes: they keep their memory and take no processor time."""
        self._mux.frozen = True
        try:
            await self.container.pause()
        except BaseException:
            self._mux.frozen = False
            raise

    async def resume(self) -> None:
        """Thaw its processes."""
        await self.container.resume()
        self._mux.frozen = False

    async def died_of_memory(self) -> bool:
        """Return whether the kernel killed it for its use of memory."""
        until = time.monotonic() + self._patience.stretched(_DIES_S)
        return await self.container.died_of_memory_by(until)

    def leave(self) -> None:
        """Hang up, and leave it alive without its node."""
        self._mux.close()

    async def destroy(self) -> None:
        """Remove the container and its folder. Safe to repeat; raises DockerUnavailable."""
        self._mux.close()
        await self.container.remove()
