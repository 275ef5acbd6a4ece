"""Deadlines and leases hold even if the event loop is blocked, or Docker is away."""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner.sandbox import drive
from runner.sandbox.guest.ending import Cause, Ending
from runner.sandbox.guest.outcome import classify
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.watchdog import Watchdog
from runner.sandbox.reap import remove_strays
from runner.words.errors import DockerUnavailable, LeaseLost
from runner.words.execution import Program, Stream
from runner.words.resources import RunBounds
from runner.words.states import State
from tests.support.sandboxes import Bench, bench

pytestmark = pytest.mark.alone

SLEEP = "import time; time.sleep(30)"
IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(30)
"""
HELD_UP_S = 6.0
KILLED_WITHIN_S = 2.5
"""The grace, the loop's allowance, and what a loaded host needs in addition."""


@asynccontextmanager
async def launched(bench: Bench) -> AsyncIterator[tuple[Sandbox, Cgroups]]:
    """Launch a sandbox; return where the host counts its processes."""
    cgroups = Cgroups.of((await bench.launcher.engine.info())["info"])
    async with bench.sandbox() as sandbox:
        yield sandbox, cgroups


class Life:
    """Watches in a thread how long a container has processes."""

    def __init__(self, sandbox: Sandbox, cgroups: Cgroups) -> None:
        self.ended_at = float("inf")
        self._thread = threading.Thread(target=self._watch, args=(sandbox.container.id, cgroups))
        self._stop = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator["Life"]:
        """Watch inside the context."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _watch(self, container: str, cgroups: Cgroups) -> None:
        while not self._stop.wait(0.05):
            if not cgroups.processes(container):
                self.ended_at = time.monotonic()
                return


async def run(sandbox: Sandbox, code: str, bounds: RunBounds, hold_up_s: float) -> Ending:
    """Run it, and block the event loop as soon as it has started."""

    async def hold_up() -> None:
        time.sleep(hold_up_s)  # noqa: ASYNC251 - that is what is tested

    async def store(stream: Stream, chunk: bytes) -> None:
        assert stream
        assert chunk
        await asyncio.sleep(0.01)

    program = Program(("python3", "-c", code), {})
    ran = await drive.run(sandbox, program, bounds, on_started=hold_up, on_output=store)
    return ran.ending


async def test_a_program_ends_at_its_deadline_though_the_loop_is_held_up(bench: Bench) -> None:
    """It counts as timed out, and its use is reported."""
    bounds = bench.within(timeout_s=1).bounds
    async with launched(bench) as (sandbox, cgroups):
        with Life(sandbox, cgroups).watched() as life:
            began = time.monotonic()
            ending = await run(sandbox, SLEEP, bounds, HELD_UP_S)
        assert life.ended_at - began < 1 + KILLED_WITHIN_S
        assert classify(ending).state is State.TIMED_OUT
        assert ending.usage.cpu_s
        assert ending.usage.wall_s < 1 + KILLED_WITHIN_S


async def test_without_the_watchdog_it_outlives_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the loop alone acts only when it can."""
    monkeypatch.setattr(Watchdog, "_watch", lambda _: None)
    async with bench(tmp_path) as made, launched(made) as (sandbox, cgroups):
        with Life(sandbox, cgroups).watched() as life:
            began = time.monotonic()
            await run(sandbox, SLEEP, made.within(timeout_s=1).bounds, HELD_UP_S)
        assert life.ended_at - began > HELD_UP_S


async def test_a_sandbox_ends_with_its_lease_though_the_loop_is_held_up(bench: Bench) -> None:
    """Its own time limit does not matter; later callers learn that it is lost."""
    bounds = bench.within(timeout_s=60).bounds
    async with launched(bench) as (sandbox, cgroups):
        with Life(sandbox, cgroups).watched() as life:
            until = time.monotonic() + 2
            sandbox.end_by(until)
            await run(sandbox, SLEEP, bounds, 4)
        assert life.ended_at - until < 1
        with pytest.raises(LeaseLost):
            sandbox.end_by(None)


async def test_a_program_that_ended_while_the_worker_was_held_up_has_ended_by_itself(
    bench: Bench,
) -> None:
    """It is not called timed out with exit code 0."""
    bounds = bench.within(timeout_s=1).bounds
    async with launched(bench) as (sandbox, _):
        ending = await run(sandbox, "print('done' * 20_000)", bounds, 1.8)
    assert (ending.cause, ending.exit_code) == (Cause.NONE, 0)
    assert classify(ending).state is State.SUCCEEDED


@contextlib.contextmanager
def docker_away(bench: Bench) -> Iterator[None]:
    """Let Docker answer nothing, as if it was killed; afterwards it is back."""
    engine = bench.launcher.engine

    def ask(*_: object, **__: object) -> None:
        raise DockerUnavailable("Docker does not answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_ask", ask)
        yield


async def until_dead(sandbox: Sandbox, cgroups: Cgroups, within_s: float) -> bool:
    """Return whether all of it has ended within that time."""
    until = time.monotonic() + within_s
    while cgroups.processes(sandbox.container.id) and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return not cgroups.processes(sandbox.container.id)


async def test_a_program_ends_at_its_deadline_though_docker_is_away(bench: Bench) -> None:
    """It counts as timed out: Docker's silence is no internal error."""
    sandbox = await bench.launcher.launch(bench.order())
    cgroups = bench.launcher.guards.cgroups
    with docker_away(bench):
        ending = await run(sandbox, IGNORES, bench.within(timeout_s=1).bounds, 0)
        assert cgroups.processes(sandbox.container.id) == ()
        with pytest.raises(DockerUnavailable):
            await sandbox.destroy()
    assert classify(ending).state is State.TIMED_OUT
    await remove_strays(bench.launcher)


async def test_a_program_ends_with_its_attempt_though_docker_is_away(bench: Bench) -> None:
    """Another node may run the execution next."""
    sandbox = await bench.launcher.launch(bench.order())
    cgroups = bench.launcher.guards.cgroups
    with docker_away(bench):
        running = asyncio.create_task(run(sandbox, IGNORES, bench.limits.bounds, 0))
        await asyncio.sleep(0.5)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert cgroups.processes(sandbox.container.id) == ()
        with pytest.raises(DockerUnavailable):
            await sandbox.destroy()
    await remove_strays(bench.launcher)


async def test_without_the_kernels_kill_it_outlives_both_while_docker_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control. It ends as soon as Docker is back, without another request."""
    sandbox = await bench.launcher.launch(bench.order())
    cgroups = bench.launcher.guards.cgroups
    with docker_away(bench):
        with monkeypatch.context() as without:
            without.setattr(Cgroups, "kill", lambda *_: False)
            with pytest.raises(DockerUnavailable):
                await run(sandbox, IGNORES, bench.within(timeout_s=1).bounds, 0)
            assert not await until_dead(sandbox, cgroups, 1.5)
        assert await until_dead(sandbox, cgroups, 3)
        with pytest.raises(DockerUnavailable):
            await sandbox.destroy()
    await remove_strays(bench.launcher)


async def test_what_runs_in_a_sandbox_ends_though_docker_does_not_remove_it(
    bench: Bench,
) -> None:
    """This holds even if its supervisor does not notice that its worker hung up."""
    sandbox = await bench.launcher.launch(bench.order())
    for process in bench.launcher.guards.cgroups.processes(sandbox.container.id):
        os.kill(process, signal.SIGSTOP)
    with docker_away(bench):
        with pytest.raises(DockerUnavailable):
            await sandbox.destroy()
        assert await until_dead(sandbox, bench.launcher.guards.cgroups, 1)
    await remove_strays(bench.launcher)
