"""A sandbox starts completely or not at all."""

import asyncio
import dataclasses
import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.quotas.sizes import load_sizes
from runner.sandbox.drive import run
from runner.sandbox.engine.masks import MASK
from runner.sandbox.engine.spec import container_config
from runner.sandbox.guest import meeting
from runner.sandbox.launch import NODE_LABEL, Launcher, SandboxOrder
from runner.sandbox.reap import remove_strays
from runner.words.errors import DockerUnavailable, ImageMissing, LaunchFailed
from runner.words.execution import Program
from runner.words.sandbox import Isolation
from tests.support.sandboxes import Bench


async def test_an_unknown_image_is_its_own_failure(bench: Bench) -> None:
    """It names the image and how to build it; nothing is pulled."""
    order = SandboxOrder(dataclasses.replace(bench.spec(), image="no-such-image"))
    with pytest.raises(ImageMissing, match="no-such-image"):
        await bench.launcher.launch(order)


async def test_a_daemon_that_is_not_there_is_its_own_failure(tmp_path: Path) -> None:
    """The error says that Docker is away, and a retry is safe."""
    settings = Settings(state_dir=tmp_path, docker_url=f"unix://{tmp_path}/none.sock")
    with pytest.raises(DockerUnavailable):
        async with Launcher.open(settings, node="n", instance="i"):
            pass


async def test_a_container_that_ends_before_reporting_is_a_failed_launch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is noticed before the time is over, and nothing is left behind."""

    def broken(*args: Any) -> dict[str, Any]:
        return {**container_config(*args), "Entrypoint": ["/bin/false"]}

    monkeypatch.setattr(bench.launcher.maker, "configure", broken)
    with pytest.raises(LaunchFailed, match="exit code 1"):
        await bench.launcher.launch(bench.order())


async def test_a_supervisor_that_stays_silent_is_a_failed_launch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait ends, and nothing is left behind."""

    def silent(*args: Any) -> dict[str, Any]:
        return {**container_config(*args), "Entrypoint": ["/bin/sleep", "60"]}

    monkeypatch.setattr(bench.launcher.maker, "configure", silent)
    monkeypatch.setattr(bench.launcher, "report_s", 0.5)
    with pytest.raises(LaunchFailed, match="did not report"):
        await bench.launcher.launch(bench.order())


async def test_a_slow_host_waits_longer_for_the_supervisor(image: None, tmp_path: Path) -> None:
    """A wait that is too short for its start suffices with more patience."""
    given = Settings(state_dir=tmp_path, node="test", launch_timeout_s=0.005, patience=1)
    with pytest.raises(LaunchFailed, match=r"did not report within 0\.005 s"):
        await launched(given)
    await launched(given.model_copy(update={"patience": 1000}))


async def launched(settings: Settings) -> None:
    """Start a sandbox with these settings, and remove it."""
    async with Launcher.open(settings, node=settings.node_id, instance="only") as launcher:
        limits = load_sizes(settings.profiles_path)["nano"]
        order = Bench(launcher, limits, Isolation.CONTAINER).order()
        await (await launcher.launch(order)).destroy()


@pytest.mark.parametrize("step", ["create", "start", "accept", "inspect", "remove"])
async def test_cancelling_a_launch_leaves_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """This holds at every step; the bench counts at the end, and no connection stays open."""
    launcher = bench.launcher
    owner, name = (meeting, "accept") if step == "accept" else (launcher.engine, step)
    original = getattr(owner, name)
    reached = asyncio.Event()

    async def announced(*args: Any) -> Any:
        reached.set()
        return await original(*args)

    def failing(*args: Any) -> dict[str, Any]:
        return {**container_config(*args), "Entrypoint": ["/bin/false"]}

    if step == "remove":
        monkeypatch.setattr(launcher.maker, "configure", failing)
    monkeypatch.setattr(owner, name, announced)
    launching = asyncio.create_task(launcher.launch(bench.order()))
    await reached.wait()
    launching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await launching
    del launching
    gc.collect()  # which warns of a connection that nobody closed


async def test_a_clean_up_that_fails_does_not_replace_a_cancellation(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise, the canceller waits for ever; a sweep finds what is left."""
    launcher = bench.launcher
    reached = asyncio.Event()

    async def accept(*_: object) -> None:
        reached.set()
        await asyncio.sleep(3600)

    async def away(*_: object) -> None:
        raise DockerUnavailable("Docker does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(meeting, "accept", accept)
        patch.setattr(launcher.engine, "containers", away)
        launching = asyncio.create_task(launcher.launch(bench.order()))
        await reached.wait()
        launching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await launching
    assert await remove_strays(launcher) == 1


async def test_a_removal_that_is_cancelled_is_finished(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops cancels it, and nobody else would remove the folder."""
    sandbox, engine = await bench.launcher.launch(bench.order()), bench.launcher.engine
    original, reached = engine.remove, asyncio.Event()

    async def announced(container: str) -> None:
        reached.set()
        await original(container)

    monkeypatch.setattr(engine, "remove", announced)
    removing = asyncio.create_task(sandbox.destroy())
    await reached.wait()
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing
    assert not sandbox.container.home.exists()


async def test_destroying_twice_is_fine(bench: Bench) -> None:
    """A container that is gone already can be destroyed, too."""
    async with bench.sandbox() as sandbox:
        await bench.launcher.engine.remove(sandbox.container.id)
        await sandbox.destroy()


async def test_the_socket_is_gone_once_the_supervisor_is_connected(bench: Bench) -> None:
    """Nothing is left to connect to, neither inside nor outside."""
    async with bench.sandbox() as sandbox:
        home = bench.launcher.site.folder / sandbox.id
        assert {path.name for path in home.iterdir()} - {MASK} == {"passwd", "group"}
        assert bench.launcher.site.folder.stat().st_mode & 0o777 == 0o700


async def test_a_container_killed_from_outside_is_our_fault_not_the_programs(
    bench: Bench,
) -> None:
    """It counts as died, without a report."""

    async def kill() -> None:
        await bench.launcher.engine.kill(sandbox.container.id)

    async with bench.sandbox() as sandbox:
        ran = await run(sandbox, Program(("sleep", "60"), {}), bench.limits.bounds, on_started=kill)
    assert ran.ending.container_died
    assert not ran.ending.oom_killed


async def test_an_interrupted_run_kills_the_container(bench: Bench) -> None:
    """A cancelled recipe does not leave its program running."""
    async with bench.sandbox() as sandbox:
        running = asyncio.create_task(
            run(sandbox, Program(("sleep", "60"), {}), bench.limits.bounds)
        )
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert bench.launcher.guards.cgroups.processes(sandbox.container.id) == ()


async def test_strays_of_an_earlier_worker_are_removed_and_nothing_else(bench: Bench) -> None:
    """Those of another instance of this node go; our own and another node's stay."""
    launcher = bench.launcher
    site = launcher.site
    later = replace(site, instance="a-later-worker")
    stray = await launcher.launch(bench.order())
    launcher.live.discard(stray.id)
    launcher.site = later
    async with bench.sandbox() as own:
        launcher.site = replace(later, node=f"{site.node}-other")
        assert await remove_strays(launcher) == 1  # the stray's directory, which has no container
        launcher.site = later
        assert await remove_strays(launcher) == 1
        left = await launcher.engine.containers({NODE_LABEL: site.node})
        assert [facts["Id"] for facts in left] == [own.container.id]
    launcher.site = site
    stray._channel.close()
