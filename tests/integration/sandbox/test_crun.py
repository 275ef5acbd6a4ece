"""crun in runc's place: taken if it is fit, and then sandboxes work as they do under runc."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import OciRuntime, Settings
from runner.cli import crun_findings
from runner.cli.host import Status
from runner.sandbox.engine import runtimes
from runner.sandbox.engine.docker import Engine
from runner.sandbox.launch import NODE_LABEL, Launcher
from runner.sandbox.reap import remove_strays
from runner.words.errors import SetupError
from runner.words.execution import Program
from runner.words.states import Reason, State
from tests.support import sandboxes
from tests.support.sandboxes import Bench

CRUN: dict[str, Any] = {"path": "/usr/bin/crun"}


@pytest.fixture
async def crun(tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench whose sandboxes are crun's; without crun every test here fails."""
    async with sandboxes.bench(tmp_path, oci_runtime="crun") as made:
        yield made


async def opened(tmp_path: Path, wanted: OciRuntime) -> tuple[str, str | None]:
    """Return the runtime of a launcher that was opened so, and why it is not crun."""
    settings = Settings(state_dir=tmp_path, oci_runtime=wanted, patience=sandboxes.BESIDE_OTHERS)
    node = f"test-{tmp_path.name}"
    async with Launcher.open(settings, node=node, instance="only") as launcher:
        assert await launcher.engine.containers({NODE_LABEL: node}) == []
        assert list(launcher.site.folder.iterdir()) == []
        return launcher.maker.host.runtime, launcher.declined


@pytest.mark.parametrize("wanted", ["auto", "crun"])
async def test_crun_is_taken_if_a_container_starts_with_it(
    tmp_path: Path, wanted: OciRuntime
) -> None:
    """Nothing of the try is left."""
    assert await opened(tmp_path, wanted) == ("crun", None)


async def test_what_a_killed_worker_left_of_its_try_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is left here because nothing is removed. The sweep of strays removes it."""
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(AssertionError):
            await opened(tmp_path, "crun")
    settings = Settings(state_dir=tmp_path, oci_runtime="crun", patience=sandboxes.BESIDE_OTHERS)
    async with Launcher.open(settings, node=f"test-{tmp_path.name}", instance="next") as launcher:
        assert launcher.maker.host.runtime == "crun"
        assert await remove_strays(launcher) == 1
        assert list(launcher.site.folder.iterdir()) == []


async def test_a_host_that_refuses_the_folder_makes_crun_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a full disk, `auto` goes on with runc."""
    monkeypatch.setattr(runtimes, "_TRIAL", "missing/")
    runtime, declined = await opened(tmp_path, "auto")
    assert runtime == "runc"
    assert "this host refused a sandbox: No such file" in str(declined)


async def test_runc_is_taken_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert Settings(state_dir=tmp_path).oci_runtime == "runc"
    assert await opened(tmp_path, "runc") == ("runc", None)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no such runtime": ({}, "no runtime of this name"),
    "arguments": ({"crun": {**CRUN, "runtimeArgs": ["--debug"]}}, "arguments"),
    "no such program": ({"crun": {"path": "/nonexistent"}}, "cannot be read"),
    "another program": ({"crun": {"path": "/bin/true"}}, "cannot be read"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_crun_that_is_not_fit_is_refused_and_the_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """`auto` goes on with runc, and a worker that is told to use crun does not start."""
    registered, reason = FAULTS[fault]
    real = Engine.info

    async def changed(engine: Engine) -> dict[str, Any]:
        facts = await real(engine)
        return {**facts, "info": {**facts["info"], "Runtimes": registered}}

    monkeypatch.setattr(Engine, "info", changed)
    runtime, declined = await opened(tmp_path, "auto")
    assert (runtime, reason in str(declined)) == ("runc", True), declined
    with pytest.raises(SetupError, match=f"RUNNER_OCI_RUNTIME is crun.*{reason}"):
        await opened(tmp_path, "crun")


async def test_a_crun_that_starts_nothing_is_refused_and_docker_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the try is left. The runtime here is one that Docker does not have."""
    monkeypatch.setattr(runtimes, "CRUN", "no-such-runtime")
    real = Engine.info

    async def changed(engine: Engine) -> dict[str, Any]:
        facts = await real(engine)
        known = facts["info"]["Runtimes"]
        renamed = {"no-such-runtime": known["crun"]}
        return {**facts, "info": {**facts["info"], "Runtimes": renamed}}

    monkeypatch.setattr(Engine, "info", changed)
    runtime, declined = await opened(tmp_path, "auto")
    assert runtime == "runc"
    assert "a container does not start" in str(declined)
    assert "no-such-runtime" in str(declined)


async def test_without_an_image_crun_cannot_be_tried(tmp_path: Path) -> None:
    """`auto` waits with crun until there is one."""
    settings = Settings(state_dir=tmp_path, images=("not-built",), oci_runtime="auto")
    async with Launcher.open(settings, node="test", instance="only") as launcher:
        assert launcher.maker.host.runtime == "runc"
        assert "cannot be tried yet" in str(launcher.declined)
    insisting = settings.model_copy(update={"oci_runtime": "crun"})
    async with Launcher.open(insisting, node="test", instance="only") as launcher:
        assert launcher.maker.host.runtime == "crun"


async def test_what_happened_is_told_as_under_runc(crun: Bench) -> None:
    """Output, files, usage, and the runtime that receipts name."""
    async with crun.sandbox() as sandbox:
        assert sandbox.container.isolation is not None
        assert sandbox.container.isolation.runtime == "crun"
        assert sandbox.container.disk_bytes() is not None
        assert sandbox.container.traces() == []
    ran = await crun.bash("cat; echo made > a; exit 4", stdin=b"in\n")
    assert (ran.stdout, ran.ending.exit_code, ran.files["a"]) == (b"in\n", 4, b"made\n")
    assert ran.ending.usage.cpu_s is not None
    assert ran.ending.usage.memory_peak_bytes is not None
    assert ran.ending.usage.pids_peak is not None


async def test_limits_hold_and_are_told(crun: Bench) -> None:
    """Memory, time and processes."""
    greedy = await crun.python("x = bytearray(1024 * 2**20)")
    assert greedy.verdict[:2] == (State.OUT_OF_MEMORY, Reason.MEMORY_LIMIT)
    late = await crun.bash("trap '' TERM; while :; do sleep 0.1; done", timeout_s=1)
    assert late.verdict[:2] == (State.TIMED_OUT, Reason.WALL_CLOCK_LIMIT)
    forks = await crun.bash("for i in $(seq 200); do sleep 5 & done; echo", pids=16)
    assert "pids" in forks.ending.limits_hit


async def test_a_sandbox_is_paused_resumed_and_seen_to_be_used(crun: Bench) -> None:
    """The traces of a program that still runs are found from outside, as under runc."""
    async with crun.sandbox() as sandbox:
        lives = await sandbox.live("s" * 32, alone_s=60)
        process = await lives.start(Program(("bash", "-c", "while :; do :; done"), {}))
        await lives.pause()
        used = lives.container.counters().cpu_s
        await asyncio.sleep(0.3)
        assert (lives.container.counters().cpu_s or 0.0) - (used or 0.0) < 0.05
        await lives.resume()
        assert lives.container.traces() == ["processes, seen from outside"]
        process.signal(9)
        assert (await process.exited).signal == 9
        lives.leave()


async def test_doctor_tries_it_as_a_worker_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells the same reason."""
    settings = Settings(state_dir=tmp_path, oci_runtime="auto")
    async with Engine(settings.docker_url, timeout_s=30, threads=1) as engine:
        docker = await engine.info()
    found = await crun_findings.crun(settings, docker)
    assert found.status is Status.OK
    assert re.match(r"\d+\.\d+.*: a sandbox starts with it; used$", found.value)
    monkeypatch.setattr(runtimes, "OLDEST_CRUN", (99,))
    found = await crun_findings.crun(settings, docker)
    assert found.status is Status.WARN
    assert "older than 99" in found.value
