"""Sandboxes to try attacks in: guarded ones, and ones that lack one control."""

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
from runner.sandbox.drive import ProgramRun, launched, run
from runner.sandbox.engine.maker import Configure
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest.ending import Cause, Ending
from runner.sandbox.guest.run import OnOutput
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import Launcher, SandboxOrder
from runner.verify.check import Observation, Probe
from runner.verify.controls import Change
from runner.verify.layers import Layer, layers
from runner.verify.outside import Outside
from runner.verify.surroundings import surroundings
from runner.words.execution import Program
from runner.words.resources import Limits, RunBounds
from runner.words.sandbox import Isolation, SandboxSpec

PATIENCE_S = 10.0
_FLOOD_BYTES = 2**22

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


class Bench:
    """Starts sandboxes for checks on one Docker daemon; afterwards nothing of them is left."""

    def __init__(
        self,
        launcher: Launcher,
        settings: Settings,
        limits: Limits,
        isolation: Isolation,
        facts: Mapping[str, Any],
        layers: Sequence[Layer],
    ) -> None:
        self.launcher = launcher
        self.settings = settings
        self.limits = limits
        self.isolation = isolation
        self.facts = {**facts, "isolation": isolation.value}
        """What probes are told of the host, as `FACTS`."""
        self.layers = layers
        """What else of this host stands in the way of attacks."""
        self._outside: Outside | None = None
        self._afterwards = AsyncExitStack()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, isolation: Isolation = Isolation.CONTAINER
    ) -> AsyncIterator["Bench"]:
        """Open a bench of its own node and folder. Raises what `Launcher.open` raises."""
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
                        bench = cls(launcher, own, limits, isolation, facts, standing)
                        async with bench._afterwards:
                            yield bench
                finally:
                    await launcher.engine.remove_network(node)
        finally:
            shutil.rmtree(folder)

    async def outside(self) -> Outside:
        """Return the server and the proxies of the checks of egress, started at first use."""
        if self._outside is None:
            self._outside = await self._afterwards.enter_async_context(Outside.open(self.settings))
        return self._outside

    @asynccontextmanager
    async def sandbox(
        self,
        *changes: Change,
        limits: Mapping[str, float] | None = None,
        configure: Configure | None = None,
    ) -> AsyncIterator[Sandbox]:
        """Start a sandbox whose configuration has these changes; destroy it after use."""

        def changed(*given: Any) -> dict[str, Any]:
            config = (configure or container_config)(*given)
            for change in changes:
                change(config)
            return config

        launcher = self.launcher
        launcher.maker.configure = changed
        order = SandboxOrder(
            SandboxSpec(self.settings.images[0], self.within(limits).resources, self.isolation),
            tenant="verify",
            execution="verify",
            attempt="1",
        )
        async with launched(launcher, order) as sandbox:
            yield sandbox

    def within(self, limits: Mapping[str, float] | None) -> Limits:
        """Return the bench's limits with these changed."""
        return replace(self.limits, **(limits or {}))  # type: ignore[arg-type]  # by name

    async def probe(self, sandbox: Sandbox, probe: Probe) -> tuple[Observation, bool]:
        """Run a probe; return what it showed, and whether the sandbox can serve another."""
        code = _PRELUDE + probe.code
        ran = await self.run(sandbox, code, bounds=self.within(probe.limits).bounds)
        ending = ran.ending
        return observation(ran), ending.cause is Cause.NONE and not ending.container_died

    async def run(
        self,
        sandbox: Sandbox,
        code: str,
        *,
        bounds: RunBounds | None = None,
        on_output: OnOutput | None = None,
    ) -> ProgramRun:
        """Run Python code in a sandbox."""
        environment = {"FACTS": json.dumps(self.facts)}
        return await run(
            sandbox,
            Program(("python3", "-I", "-c", code), environment),
            bounds or self.limits.bounds,
            flood_bytes=_FLOOD_BYTES,
            grace_s=0.3,
            on_output=on_output,
        )


def observation(ran: ProgramRun) -> Observation:
    """Return what a probe's last line says; a probe that was ended before it spoke was stopped."""
    ending, last = ran.ending, ran.stdout.rsplit(b"\n", 1)[-1]
    try:
        said = json.loads(last)
        return Observation(bool(said["breached"]), str(said["saw"]), bool(said["absent"]))
    except (ValueError, KeyError, TypeError):
        broke = ending.cause is Cause.NONE and ending.exit_code is not None
        return Observation(breached=False, saw=_ended(ending), failed=broke)


def _ended(ending: Ending) -> str:
    if ending.cause is not Cause.NONE:
        return ending.cause.value
    if ending.oom_killed or ending.container_died:
        return "killed for its memory" if ending.oom_killed else "the sandbox died"
    return f"signal {ending.signal}" if ending.signal else f"exit code {ending.exit_code}"
