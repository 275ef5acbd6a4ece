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
from runner.verify.build_guest import BuildGuest
from runner.verify.check import Observation, Probe
from runner.verify.controls import Change
from runner.verify.guests import (
    ExecutionGuest,
    Guest,
    GuestRun,
    LivingGuest,
    Way,
)
from runner.verify.layers import Layer, layers
from runner.verify.outside import Outside
from runner.verify.surroundings import surroundings
from runner.words.execution import Program
from runner.words.resources import Limits, RunBounds
from runner.words.sandbox import Isolation, SandboxSpec

PATIENCE_S = 10.0
_ALONE_S = 60
"""How long a living sandbox outlives a bench that has crashed."""

_PRELUDE = """
import ctypes, errno, json, os, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def end(breached, saw, absent=False):
    sys.stdout.write('\\n' + json.dumps({'breached': breached, 'saw': str(saw), 'absent': absent}))
    sys.stdout.flush()
    os._exit(0)
def held(saw='refused'): end(False, saw)
def breached(saw='succeeded'): end(True, saw)
def absent(saw='not on this host'): end(False, saw, True)
def name(number): return errno.errorcode.get(number, str(number))
def call(number, *arguments):
    ctypes.set_errno(0)
    given = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    return '' if result != -1 else name(ctypes.get_errno())
def refused(number, *arguments, by='EPERM'):
    saw = call(number, *arguments)
    # gVisor's filter can say EPERM only, and leaves some calls to a kernel that lacks them.
    stopped = {by, 'EPERM'} if FACTS.get('isolation') == 'gvisor' else {by}
    held(saw) if saw in stopped else breached(saw or 'succeeded')
def attempt(action):
    try: action()
    except FileNotFoundError: absent('ENOENT')
    except OSError as error: held(name(error.errno))
    breached()
FACTS = json.loads(os.environ.get('FACTS', '{}'))
"""

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
        code = _PRELUDE + probe.code
        ran = await self.run(guest, code, way=way, bounds=self.within(probe.limits).bounds)
        return observation(ran), ran.usable

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
