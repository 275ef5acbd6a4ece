"""If somebody changes a living sandbox's limits, they are set back, or the sandbox ends."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from runner.sandbox.drive import run
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.observe.isolation import read_isolation
from runner.words.execution import Program
from tests.support.sandboxes import Bench

V1 = {
    "swap": "memory/memory.memsw.limit_in_bytes",
    "memory": "memory/memory.limit_in_bytes",
    "sockets": "memory/memory.kmem.tcp.limit_in_bytes",
    "pids": "pids/pids.max",
}
V2 = {"memory": "memory.max", "swap": "memory.swap.max", "pids": "pids.max"}


def places(bench: Bench, sandbox: Sandbox) -> dict[str, Path]:
    """Return the files with the sandbox's limits, those to raise first in front."""
    cgroups = bench.launcher.guards.cgroups
    group = cgroups.group(sandbox.container.id)
    found = {}
    for name, place in (V2 if cgroups.version == 2 else V1).items():
        controller, _, file = place.rpartition("/")
        found[name] = cgroups.root / controller / group / file
    return found


async def soon(true: Callable[[], bool]) -> bool:
    """Return whether it becomes true within a few checks of the keeper."""
    for _ in range(100):
        if true():
            return True
        await asyncio.sleep(0.05)
    return False


async def test_every_limit_is_set_back(bench: Bench) -> None:
    """`systemctl daemon-reload` lifts the limit of swap, for example; the sandbox lives on."""
    async with bench.sandbox() as sandbox:
        files = places(bench, sandbox)
        before = {name: path.read_text() for name, path in files.items()}
        lifted = "max" if bench.launcher.guards.cgroups.version == 2 else "-1"
        for name, path in files.items():
            path.write_text("max" if name == "pids" else lifted)
        assert {name: path.read_text() for name, path in files.items()} != before
        assert await soon(
            lambda: {name: path.read_text() for name, path in files.items()} == before
        )
        await sandbox.ping()


SYSTEMD = [True] if Path("/run/systemd/system").is_dir() else []


@pytest.mark.parametrize("reloaded", [False, *SYSTEMD])
async def test_a_reload_of_systemd_leaves_no_limit_lifted(bench: Bench, *, reloaded: bool) -> None:
    """It writes the limits of its units anew: without Docker's for swap. The control is no reload.

    Only a host that is run by systemd can show it (`make guest`).
    """
    async with bench.sandbox() as sandbox:
        files = places(bench, sandbox)
        before = {name: path.read_text() for name, path in files.items()}
        if reloaded:
            reload = await asyncio.create_subprocess_exec("systemctl", "daemon-reload")
            assert await reload.wait() == 0
            await asyncio.sleep(1)  # systemd writes them a moment later.
        assert await soon(
            lambda: {name: path.read_text() for name, path in files.items()} == before
        )
        await sandbox.ping()


async def test_all_sandboxes_together_weigh_less_than_a_service(bench: Bench) -> None:
    """They weigh a quarter of the kernel's default, also after it was set back."""
    cgroups = bench.launcher.guards.cgroups
    parent = cgroups.parent.lstrip("/")
    file, usual, less = (
        (f"{parent}/cpu.weight", "100", "25")
        if cgroups.version == 2
        else (f"cpu/{parent}/cpu.shares", "1024", "256")
    )
    async with bench.sandbox():
        weight = cgroups.root / file
        weight.write_text(usual)
        assert await soon(lambda: weight.read_text().strip() == less)


SPIN = Program(("sh", "-c", "while :; do :; done"), {})


def weight(bench: Bench, sandbox: Sandbox) -> Path:
    """Return the file with the weight of a sandbox."""
    cgroups = bench.launcher.guards.cgroups
    group = cgroups.group(sandbox.container.id)
    if cgroups.version == 2:
        return cgroups.root / group / "cpu.weight"
    return cgroups.root / "cpu" / group / "cpu.shares"


async def test_busy_sandboxes_of_one_tenant_weigh_together_as_much_as_one(bench: Bench) -> None:
    """Without a tenant they keep the usual weight; an idle one of another tenant keeps it, too."""
    async with AsyncExitStack() as stack:
        busy = [await stack.enter_async_context(bench.sandbox()) for _ in range(2)]
        quiet = await stack.enter_async_context(bench.sandbox())
        usual = weight(bench, quiet).read_text()
        spinning = asyncio.gather(*(run(each, SPIN, bench.limits.bounds) for each in busy))
        for each in busy:
            each.container.assign("busy")
        quiet.container.assign("quiet")
        halved = f"{int(usual) // len(busy)}\n"
        assert await soon(
            lambda: [weight(bench, each).read_text() for each in busy] == [halved] * 2
        )
        assert weight(bench, quiet).read_text() == usual
        for each in busy:
            await each.container.kill()
        assert all(each.ending.container_died for each in await spinning)


GREEDY = """
import os, time
while True:
    if os.fork() == 0:
        block = bytearray(300 * 2**20)
        for at in range(0, len(block), 4096): block[at] = 1
        time.sleep(30)
        os._exit(0)
    os.wait()
"""


async def test_a_sandbox_whose_limit_cannot_be_set_back_ends(bench: Bench) -> None:
    """It may not keep what it took meanwhile."""

    async def raised() -> None:
        files = places(bench, sandbox)
        lifted = "max" if bench.launcher.guards.cgroups.version == 2 else "-1"
        with suppress(OSError):  # once the group has gone
            while True:
                # The keeper may be faster than the program.
                files["swap"].write_text(lifted)
                files["memory"].write_text(lifted)
                await asyncio.sleep(0.01)

    async with bench.sandbox(memory_mb=128) as sandbox:
        program = Program(("python3", "-c", GREEDY), {})
        ending = (await run(sandbox, program, bench.limits.bounds, on_started=raised)).ending
    assert ending.container_died
    assert ending.usage.wall_s < bench.limits.timeout_s
    assert ending.usage.cpu_s is not None


async def test_what_was_changed_is_read_back(bench: Bench) -> None:
    """So a sandbox is not used again, and a receipt cannot say otherwise."""
    async with bench.sandbox() as sandbox:
        assert sandbox.container.isolation is not None
        assert sandbox.container.isolation.swap_bytes == 0
        facts = await bench.launcher.engine.inspect(sandbox.container.id) or {}
        assert read_isolation(facts) == sandbox.container.isolation
        lifted = "max" if bench.launcher.guards.cgroups.version == 2 else "-1"
        places(bench, sandbox)["swap"].write_text(lifted)
        assert read_isolation(facts) != sandbox.container.isolation
