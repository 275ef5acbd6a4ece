"""Sandboxes that live, in real containers: they outlive their worker, and can be frozen."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from runner.sandbox.guest.channel import Closed
from runner.sandbox.guest.living import LivingSandbox
from runner.sandbox.launch import NODE_LABEL
from runner.sandbox.reap import remove_strays
from runner.words.errors import GuestRefused, LaunchFailed
from runner.words.execution import Program
from runner.words.living import OutputPiece, TerminalSize
from runner.words.sandbox import Isolation
from tests.support import sandboxes
from tests.support.deployment import PATIENCE_S
from tests.support.sandboxes import Bench

SECRET = "5e" * 32


@pytest.fixture(params=list(Isolation))
async def walls(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench of each isolation."""
    async with sandboxes.bench(tmp_path, isolation=request.param) as made:
        yield made


@asynccontextmanager
async def living(bench: Bench) -> AsyncIterator[LivingSandbox]:
    """Launch a sandbox that lives, and destroy it after use."""
    async with bench.sandbox() as sandbox:
        await sandbox.ping()
        lives = await sandbox.live(SECRET, alone_s=60)
        try:
            yield lives
        finally:
            lives.leave()


def shell(script: str) -> Program:
    """Return a shell's program."""
    return Program(("bash", "-c", script), {})


async def output(sandbox: LivingSandbox, script: str) -> str:
    """Return the output of a shell script."""
    process = await sandbox.start(shell(script))
    return await output_of(sandbox, process.number)


async def output_of(sandbox: LivingSandbox, number: int) -> str:
    """Return the output of a process until it has ended."""
    async with sandbox.process(number).attach() as attached:
        pieces = [each.data async for each in attached if isinstance(each, OutputPiece)]
    return b"".join(pieces).decode()


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    """Yield pieces."""
    for piece in pieces:
        yield piece


async def test_processes_files_and_terminals_work_in_one_sandbox(walls: Bench) -> None:
    async with living(walls) as sandbox:
        assert await output(sandbox, "echo $0; pwd; id -un") == "bash\n/workspace\nagent\n"
        await sandbox.files.write("a", chunks(b"of the node"))
        assert await output(sandbox, "cat a; echo -n of the program > b") == "of the node"
        async with sandbox.files.read("b") as file:
            assert [chunk async for chunk in file] == [b"of the program"]
        process = await sandbox.start(
            shell("tty; stty size"), terminal=TerminalSize(24, 80), stdin=True
        )
        said = await output_of(sandbox, process.number)
        assert "/dev/pts/" in said
        assert "24 80" in said


async def test_one_that_was_made_ready_for_a_program_can_live(bench: Bench) -> None:
    """Sandboxes of the stock are like this: modules loaded, and the next process made."""
    async with bench.sandbox() as sandbox:
        await sandbox.load()
        await sandbox.prepare()
        lives = await sandbox.live(SECRET, alone_s=60)
        assert await output(lives, "echo here") == "here\n"
        lives.leave()


async def test_the_supervisors_own_files_are_nobodys(walls: Bench) -> None:
    """No path leads to reading or writing its memory or its descriptors."""
    async with living(walls) as sandbox:
        await output(sandbox, "ln -s /proc/1/environ env; ln -s /proc/self/mem mem")
        for path in ("env", "mem", "/proc/1/environ", "/proc/self/status", "/dev/pts/ptmx"):
            with pytest.raises(GuestRefused):
                async with sandbox.files.read(path) as file:
                    [chunk async for chunk in file]


async def test_a_later_worker_takes_it_over_with_all_that_runs(walls: Bench) -> None:
    launcher = walls.launcher
    async with living(walls) as before:
        running = await before.start(
            shell("for i in $(seq 100); do echo $i; sleep 0.02; done"), label="mine"
        )
        before.leave()
        launcher.live.discard(before.id)
        launcher.site = replace(launcher.site, instance="a-later-worker")
        after = await launcher.adopt(before.residence)
        assert after.process(running.number).label == "mine"
        said = await output_of(after, running.number)
        assert said.split() == [str(number) for number in range(1, 101)]
        assert launcher.live == {after.id}
        assert after.container.counters().cpu_s
        await after.destroy()


async def test_what_may_live_is_no_stray(bench: Bench) -> None:
    """Once it may no longer live, nothing of it stays."""
    launcher = bench.launcher
    async with living(bench) as sandbox:
        sandbox.leave()
        launcher.live.discard(sandbox.id)
        launcher.site = replace(launcher.site, instance="a-later-worker")
        assert await remove_strays(launcher, {sandbox.id}) == 0
        async with asyncio.timeout(PATIENCE_S):
            after = await launcher.adopt(sandbox.residence)
        await after.ping()
        assert await remove_strays(launcher) == 0
        after.leave()
        launcher.live.discard(sandbox.id)
        assert await remove_strays(launcher) == 1
        assert await launcher.engine.containers({NODE_LABEL: launcher.site.node}) == []


async def test_another_secret_or_another_sandboxs_container_is_not_taken_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(bench) as one, living(bench) as other:
        for each in (one, other):
            each.leave()
            bench.launcher.live.discard(each.id)
        wrong = {
            "did not return": replace(one.residence, secret="00" * 32),
            "another sandbox's": replace(one.residence, container_id=other.residence.container_id),
            "does not run": replace(one.residence, container_id="0" * 64),
        }
        for told, residence in wrong.items():
            with monkeypatch.context() as patch:
                patch.setattr(bench.launcher, "report_s", 1.0)
                with pytest.raises(LaunchFailed, match=told):
                    await bench.launcher.adopt(residence)
            assert bench.launcher.live == set()
        for each in (one, other):
            after = await bench.launcher.adopt(each.residence)
            await after.ping()
            after.leave()


async def test_a_program_cannot_pretend_to_be_the_supervisor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same user and may connect once the node is away, but it has no secret."""
    pretender = (
        "import json, socket, struct, time\n"
        "said = json.dumps({'say': 'returning', 'generations': [2], 'secret': '0' * 64}).encode()\n"
        "while True:\n"
        "    s = socket.socket(socket.AF_UNIX)\n"
        "    try:\n"
        "        s.connect('/run/sandbox/supervisor.sock')\n"
        "        s.sendall(struct.pack('>cI', b'C', len(said)) + said)\n"
        "        print('knocked', flush=True)\n"
        "        print(s.recv(1) or 'hung up on', flush=True)\n"
        "    except OSError: pass\n"
        "    time.sleep(0.005)\n"
    )
    async with living(bench) as before:
        process = await before.start(Program(("python3", "-c", pretender), {}))
        before.leave()
        bench.launcher.live.discard(before.id)
        after = await bench.launcher.adopt(before.residence)
        after.process(process.number).signal(9)
        said = (await output_of(after, process.number)).splitlines()
        assert set(said) <= {"knocked", "hung up on"}
        await after.ping()
        after.leave()


async def test_a_paused_sandbox_takes_no_processor_time_and_goes_on(walls: Bench) -> None:
    async with living(walls) as sandbox:
        process = await sandbox.start(shell("while :; do :; done"))
        await asyncio.sleep(0.2)
        await sandbox.pause()
        await sandbox.pause()
        used = sandbox.container.counters().cpu_s
        await asyncio.sleep(0.5)
        assert used is not None
        assert (sandbox.container.counters().cpu_s or 0.0) - used < 0.05
        await sandbox.resume()
        await sandbox.resume()
        await sandbox.ping()
        process.signal(9)
        assert (await process.exited).signal == 9


async def test_a_paused_sandbox_is_taken_over_and_paused_again(bench: Bench) -> None:
    async with living(bench) as before:
        number = (await before.start(shell("sleep 60"))).number
        await before.pause()
        before.leave()
        bench.launcher.live.discard(before.id)
        after = await bench.launcher.adopt(before.residence)
        assert (await bench.launcher.engine.state(after.container.id))["Paused"]
        await after.resume()
        assert not after.process(number).exited.done()
        after.leave()


@pytest.mark.alone
async def test_a_paused_sandbox_is_removed_at_once(walls: Bench) -> None:
    async with living(walls) as sandbox:
        await sandbox.start(shell("sleep 60"))
        await sandbox.pause()
        began = time.monotonic()
        await sandbox.destroy()
        assert time.monotonic() - began < 3
        assert isinstance(await sandbox.lost, Closed)


async def test_without_a_node_it_ends_by_itself(bench: Bench) -> None:
    """For example, its host's worker is never started again."""
    async with bench.sandbox() as sandbox:
        lives = await sandbox.live(SECRET, alone_s=1)
        lives.leave()
        async with asyncio.timeout(PATIENCE_S):
            while (await bench.launcher.engine.state(lives.container.id))["Running"]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


async def test_out_of_memory_of_a_process_is_not_the_sandboxs_end(bench: Bench) -> None:
    async with living(bench) as sandbox:
        hungry = await sandbox.start(Program(("python3", "-c", "b'x' * 2**40"), {}))
        greedy = await sandbox.start(
            Program(("python3", "-c", "l = [bytearray(2**20) for _ in range(2**20)]"), {})
        )
        await asyncio.gather(hungry.exited, greedy.exited)
        assert await output(sandbox, "echo here") == "here\n"


async def test_on_gvisor_out_of_memory_is_the_sandboxs_end_and_is_told(tmp_path: Path) -> None:
    """The kernel of gVisor is in the limited memory, too, and the host's kernel ends both."""
    greedy = Program(("python3", "-c", "l = [bytearray(2**20) for _ in range(2**20)]"), {})
    opening = sandboxes.bench(tmp_path, isolation=Isolation.GVISOR)
    async with opening as bench, living(bench) as sandbox:
        await sandbox.start(greedy)
        assert isinstance(await sandbox.lost, Closed)
        assert await sandbox.died_of_memory()


async def test_the_end_of_a_supervisor_for_another_reason_is_none_of_memory(bench: Bench) -> None:
    """The control."""
    async with living(bench) as sandbox:
        await sandbox.container.kill()
        await sandbox.lost
        assert not await sandbox.died_of_memory()


async def test_large_files_go_in_and_out_whole(bench: Bench) -> None:
    async with living(bench) as sandbox:
        whole = os.urandom(2**20) * 20
        parts = [whole[at : at + 2**18] for at in range(0, len(whole), 2**18)]
        await sandbox.files.write("large", chunks(*parts))
        async with sandbox.files.read("large") as file:
            assert b"".join([chunk async for chunk in file]) == whole
