"""Sandboxes in which to try attacks: guarded ones, and ones that lack one control."""

import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.base.settings import Settings
from runner.quotas.sizes import load_sizes
from runner.sandbox.drive import launched
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.run import OnOutput
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.verify import programs
from runner.verify.build_guest import BuildGuest
from runner.verify.check import Observation, Probe
from runner.verify.controls import Change
from runner.verify.guests import (
    ExecutionGuest,
    Guest,
    GuestRun,
    LivingGuest,
    Way,
    exit_words,
)
from runner.verify.layers import Layer, layers
from runner.verify.outside import Outside
from runner.verify.surroundings import surroundings
from runner.words.execution import Program
from runner.words.resources import Limits, RunBounds
from runner.words.sandbox import Isolation, SandboxSpec

PATIENCE_S = 10.0
_LONGER = 4
"""How many times as long as one probe many of them may take together."""
_ALONE_S = 60
"""How long a living sandbox outlives a bench that has crashed."""

_LEAVES = """
import os
os.chdir('/workspace')
os.mkfifo('pipe')
for name in ('/proc/1/mem', '/proc/1/environ', '/run', '/', '..'):
    os.symlink(name, 'link' + name.replace('/', '-'))
open('copied', 'w').close()
"""
"""The content of the workspace of a sandbox that is copied."""


class Bench:
    """Starts sandboxes for checks on one Docker daemon, and leaves nothing behind."""

    def __init__(
        self,
        launcher: Launcher,
        settings: Settings,
        limits: Limits,
        isolation: Isolation,
        facts: Mapping[str, Any],
        layers: Sequence[Layer],
        *,
        ways: Sequence[Way] = (Way.EXECUTION,),
    ) -> None:
        self.launcher = launcher
        self.settings = settings
        self.limits = limits
        self.isolation = isolation
        self.facts = {**facts, "isolation": isolation.value}
        """The facts about the host that probes get as `FACTS`."""
        self.layers = layers
        """Other layers of this host that may stop attacks."""
        self.ways = ways
        """How each probe is tried with all controls; without one, the first of these is enough."""
        self.tries = 0
        """How many programs were tried so far."""
        self._outside: Outside | None = None
        self._left: bytes | None = None
        self._afterwards = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        isolation: Isolation = Isolation.CONTAINER,
        *,
        ways: Sequence[Way] = (Way.EXECUTION,),
    ) -> AsyncIterator["Bench"]:
        """Open a bench with its own node name and folder. Raises what `Launcher.open` raises.

        Attacks come by these `ways`: as executions, or by others into sandboxes that live.
        """
        node = f"verify-{secrets.token_hex(6)}"
        folder = Path(tempfile.mkdtemp(prefix="runner-verify-"))
        try:
            folder.chmod(0o711)  # noqa: ASYNC240 - one call, at the start
            own = settings.model_copy(update={"state_dir": folder})
            async with Launcher.open(own, node=node, instance="only") as launcher:
                size = load_sizes(settings.profiles_path)["nano"]
                limits = replace(size, timeout_s=own.patient(PATIENCE_S), cpu=1.0)
                standing = layers((await launcher.engine.info())["info"])
                await launcher.engine.make_network(node)
                try:
                    with surroundings() as facts:
                        bench = cls(launcher, own, limits, isolation, facts, standing, ways=ways)
                        async with bench._afterwards:
                            yield bench
                finally:
                    await launcher.engine.remove_network(node)
        finally:
            shutil.rmtree(folder)

    @property
    def living(self) -> bool:
        """Whether its sandboxes live."""
        return Way.EXECUTION not in self.ways

    @property
    def builds(self) -> bool:
        """Whether templates are built in its sandboxes."""
        return Way.BUILD in self.ways

    async def outside(self) -> Outside:
        """Return the server and the proxies for the checks of egress; start them at first use."""
        if self._outside is None:
            self._outside = await self._afterwards.enter_async_context(Outside.open(self.settings))
        return self._outside

    @asynccontextmanager
    async def sandbox(
        self, *changes: Change, limits: Mapping[str, float] | None = None
    ) -> AsyncIterator[Guest]:
        """Start a sandbox of the bench's kind with these changes; destroy it after use."""
        async with self._launched(changes, limits) as sandbox:
            if not self.living:
                yield ExecutionGuest(sandbox)
                return
            lives = await sandbox.live(secrets.token_hex(32), alone_s=_ALONE_S)
            try:
                guest = LivingGuest(lives, self._source)
                yield BuildGuest(guest) if self.builds else guest
            finally:
                lives.leave()

    async def _source(self) -> bytes:
        """Return the archive of a hostile workspace, from a sandbox that is gone by then."""
        if self._left is None:
            async with self._launched(()) as sandbox:
                lives = await sandbox.live(secrets.token_hex(32), alone_s=_ALONE_S)
                try:
                    source = LivingGuest(lives)
                    await self.run(source, _LEAVES, way=Way.PROCESS)
                    self._left = await source.pack()
                finally:
                    lives.leave()
        return self._left

    @asynccontextmanager
    async def execution(self, *changes: Change) -> AsyncIterator[ExecutionGuest]:
        """Start a sandbox for executions; destroy it after use."""
        async with self._launched(changes) as sandbox:
            yield ExecutionGuest(sandbox)

    @asynccontextmanager
    async def _launched(
        self, changes: Sequence[Change], limits: Mapping[str, float] | None = None
    ) -> AsyncIterator[Sandbox]:
        def changed(*given: Any) -> dict[str, Any]:
            config = container_config(*given)
            for change in changes:
                change(config)
            return config

        launcher = self.launcher
        launcher.maker.configure = changed
        order = SandboxOrder(
            SandboxSpec(
                self.settings.images[0],
                self.within(limits).resources,
                self.isolation,
                self.builds,
            ),
            tenant="verify",
            execution="verify",
            attempt="1",
        )
        async with launched(launcher, order) as sandbox:
            yield sandbox

    def within(self, limits: Mapping[str, float] | None) -> Limits:
        """Return the bench's limits with these changes."""
        return replace(self.limits, **(limits or {}))  # type: ignore[arg-type]  # by name

    async def probe(self, guest: Guest, probe: Probe, way: Way) -> tuple[Observation, bool]:
        """Run a probe; return what it showed, and whether the sandbox can serve another."""
        bounds = self.within(probe.limits).bounds
        ran = await self.run(guest, programs.alone(probe.code), way=way, bounds=bounds)
        return observation(ran), ran.usable

    async def probes(
        self, guest: Guest, probes: Sequence[Probe], way: Way
    ) -> tuple[dict[str, Observation], bool]:
        """Run some probes in turn, as one program; as `probe`, of those that came to an end.

        The next one took too long, or ended more than itself: it must be tried alone.
        """
        together = programs.Together.of([each.code for each in probes], self.limits.timeout_s)
        bounds = replace(self.limits.bounds, timeout_s=self.limits.timeout_s * _LONGER)
        ran = await self.run(guest, together.program, way=way, bounds=bounds)
        said = together.said(ran.stdout)
        self.tries += len(said) - 1
        found = {
            probe.id: observation(
                GuestRun(each.stdout, exit_words(each.code), by_itself=each.code >= 0, usable=True)
            )
            for probe, each in zip(probes, said, strict=False)
        }
        return found, ran.usable

    async def run(
        self,
        guest: Guest,
        code: str,
        *,
        way: Way | None = None,
        bounds: RunBounds | None = None,
        on_output: OnOutput | None = None,
    ) -> GuestRun:
        """Run Python code in a sandbox."""
        self.tries += 1
        program = Program(("python3", "-I", "-c", code), {"FACTS": json.dumps(self.facts)})
        return await guest.run(
            program, bounds or self.limits.bounds, way or self.ways[0], on_output
        )


def observation(ran: GuestRun) -> Observation:
    """Return what a probe's last line says; a probe that ended before it spoke was stopped."""
    try:
        said = json.loads(ran.stdout.rsplit(b"\n", 1)[-1])
        return Observation(bool(said["breached"]), str(said["saw"]), bool(said["absent"]))
    except (ValueError, KeyError, TypeError):
        return Observation(breached=False, saw=ran.ended, failed=ran.by_itself)
