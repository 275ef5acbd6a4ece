"""One sandbox's life: runs and files go into it and come out of it, until it is destroyed.

A sandbox is made of what it is (`Identity`), the container that it lives in, and the channel to the
supervisor inside. What one run in it may take and who watches it, the run's own `Process` knows.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from runner.base.masking import Masker
from runner.protocol.commands import Clean, Live, Load, Ping, Prepare
from runner.protocol.events import Alive, Cleaned, Living, Loaded, NotStarted
from runner.sandbox.guest import patience
from runner.sandbox.guest.artifacts import NOTHING, ArtifactSink, CollectedFiles, collect, plain
from runner.sandbox.guest.channel import Channel, Closed, unexpected
from runner.sandbox.guest.container import Container
from runner.sandbox.guest.ending import Ending
from runner.sandbox.guest.inputs import Reader, nothing_stored, place
from runner.sandbox.guest.living import LivingSandbox, Residence
from runner.sandbox.guest.mux import Mux
from runner.sandbox.guest.patience import Patience
from runner.sandbox.guest.process import Process, RunTerms, RunWatch
from runner.sandbox.guest.run import Report, Run
from runner.sandbox.guest.sockets import listen_for_egress
from runner.sandbox.observe.watchdog import Term
from runner.words.errors import LaunchFailed, LeaseLost
from runner.words.execution import InputFile, Program

LIVING_GENERATION = 2
"""Supervisors of an older one cannot live."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a sandbox, for as long as it lives."""

    id: str
    image_digest: str
    profile_hash: str


@dataclass(frozen=True, slots=True)
class Bridge:
    """That the program may talk to the egress proxy, and whose certificates it shall trust."""

    trust: str = ""


class Sandbox:
    """A started container with its supervisor's connection.

    Serves one execution; more, of the same tenant, only if `clean` has found it clean after each.
    """

    def __init__(
        self,
        identity: Identity,
        container: Container,
        channel: Channel,
        waits: Patience,
        *,
        furnished: bool = False,
    ) -> None:
        """Take its parts. If it is `furnished`, its home begins with the files of its template."""
        self.id = identity.id
        self.identity = identity
        self.container = container
        self._channel = channel
        self._patience = waits
        self._furnished = furnished
        self._preparing = False
        self.runs = 0
        self.spent = False
        self.started_at = time.monotonic()
        """The time at which it was ready, on this process's monotonic clock."""

    def listen_for_egress(self) -> socket.socket:
        """Return a listening socket that this sandbox alone can reach, as its identity."""
        return listen_for_egress(self.container.home)

    @property
    def gone(self) -> bool:
        """Whether the supervisor has hung up: the container has died."""
        return self._channel.closed

    async def ping(self) -> None:
        """Hear that the supervisor waits for commands. Raises ProtocolViolation if it does not."""
        async with self._patience(patience.ANSWER_S, "answer"):
            await self._channel.send(Ping())
            await self._channel.expect(Alive)

    async def load(self) -> list[str]:
        """Let the interpreter import its image's list; return what could not be imported.

        For one that is started ahead. Raises ProtocolViolation; Closed if memory did not suffice.
        """
        async with self._patience(patience.LOAD_S, "load its modules"):
            await self._channel.send(Load())
            return list((await self._channel.expect(Loaded)).failed)

    async def clean(self) -> list[str]:
        """Remove all that was collected; return the kinds of what is left all the same.

        Raises ProtocolViolation when the supervisor does not do it, or not in time.
        """
        if not self.container.alive:
            return ["the container, which has died"]
        async with self._patience(patience.CLEAN_S, "clean up"):
            await self._channel.send(Clean())
            left = (await self._channel.expect(Cleaned)).left
        self.container.forget_peak()
        return [plain(each) for each in left] + self.container.traces()

    async def live(
        self, secret: str, *, alone_s: int, bridge: Bridge | None = None
    ) -> LivingSandbox:
        """Let it live from now on; this object is spent then, and the other one stands for it.

        `secret` is 64 hexadecimal digits, by which the supervisor is known again. Without its node
        it lives for `alone_s` seconds. Raises ImageIncompatible for an image that cannot live, and
        LaunchFailed if its home cannot hold the files of its template.
        """
        self.spent = True
        self._channel.require(LIVING_GENERATION)
        trust = bridge.trust if bridge else ""
        if self._furnished:
            await self.prepare()
        async with self._patience(patience.START_S, "begin to live"):
            await self._channel.send(Live(secret, alone_s, bridge is not None, trust))
            answer = await self._channel.read()
        if isinstance(answer, NotStarted):
            # As it answers `run`: the process that was made ahead has not become anything.
            raise LaunchFailed(
                f"the template's files were not copied to the home ({answer.error}); does the "
                "sandbox's disk have room for them?"
            )
        if not isinstance(answer, Living):
            raise unexpected(answer)
        identity = self.identity
        residence = Residence(
            sandbox_id=identity.id,
            container_id=self.container.id,
            secret=secret,
            image_digest=identity.image_digest,
            profile_hash=identity.profile_hash,
        )
        mux = Mux(self._channel.release(), self._patience)
        return LivingSandbox(residence, self.container, mux, self._patience)

    async def prepare(self) -> None:
        """Let it make the process that becomes the next program, so that nobody waits for it.

        That process copies its template's files, if there are any: this returns when it has.
        Raises ProtocolViolation when the container has died or takes too long.
        """
        if self._preparing:
            return
        await self._channel.send(Prepare())
        self._preparing = True
        if self._furnished:
            async with self._patience(patience.FURNISH_S, "copy its template's files"):
                await self._channel.send(Ping())
                await self._channel.expect(Alive)

    async def upload(self, files: Sequence[InputFile], read: Reader = nothing_stored) -> None:
        """Place files in the workspace. Raises SandboxFault when one does not fit.

        `read` yields the bytes of those that are stored, as many as they say or an exception.
        """
        self.spent = True  # until it has ended well: half-way, the supervisor waits for bytes
        async with self._patience(patience.UPLOAD_S, "take its input files"):
            await self.prepare()
            await place(self._channel, files, read)
        self.spent = False

    async def run(
        self, program: Program, terms: RunTerms, watch: RunWatch, *, bridge: Bridge | None = None
    ) -> Ending:
        """Run the program to its end, or to ours for it, and return the facts.

        With a `bridge`, 127.0.0.1:3128 inside leads to the socket of `listen_for_egress`. The
        program does not wait for `on_started`; if that fails, it is stopped.

        Raises ProtocolViolation when the supervisor breaks the protocol, SandboxFault when it
        does not start the program, and whatever the callbacks raise; the container is dead then.
        """

        async def follow(run: Run) -> Report:
            try:
                await self.prepare()
            except Closed:
                return None
            self._preparing = False
            trust = bridge.trust if bridge else ""
            return await run.follow(program, egress=bridge is not None, trust=trust)

        process = Process(
            self.container,
            self._channel,
            self._patience,
            terms,
            watch,
            command=program.argv[0],
        )
        ending = await process.end(follow, first=self.runs == 0)
        self.runs += 1
        return ending

    def end_by(self, until: float | None) -> None:
        """End all that runs in it by then, by the clock of `time.monotonic`; None: no more.

        A thread of its own does that, whatever holds up the event loop. Raises LeaseLost when it
        has done so.
        """
        self.container.end_by(Term.LEASE, until)
        fired = self.container.fired
        if fired is not None and fired.term is Term.LEASE:
            raise LeaseLost("the worker was held up for as long as its lease")

    async def collect(
        self,
        *,
        max_files: int,
        max_bytes: int,
        sink: ArtifactSink,
        names: Sequence[str] = (),
        again: bool = False,
        masker: Masker | None = None,
    ) -> CollectedFiles:
        """Hand the files the program left to the sink; nothing when the container is dead.

        `names` are patterns of those to keep; without any, all but what tools made are kept.
        `masker` stars secrets out of the names of those refused.

        Unless another program is to run `again`, the sandbox is spent. That needs no new process
        in it, so ask for it when the program has used up the memory.
        """
        if not self.container.alive:
            return NOTHING
        self.spent = True  # until it has ended well: half-way, frames are left that nobody awaits
        async with self._patience(patience.COLLECT_S, "hand back its artifacts"):
            collected = await collect(
                self._channel,
                names=names,
                max_files=max_files,
                max_bytes=max_bytes,
                again=again,
                sink=sink,
                masker=masker or Masker(()),
            )
        self.spent = not again
        return collected

    async def destroy(self) -> None:
        """Remove the container and its socket directory. Safe to repeat.

        When Docker does not answer, raises DockerUnavailable: what runs in it is ended all the
        same, and `reap.remove_strays` then finds the rest.
        """
        self._channel.close()
        await self.container.remove()
