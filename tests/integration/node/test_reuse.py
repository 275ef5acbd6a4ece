"""A used sandbox serves its tenant's similar executions, while it is clean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from runner.node.stock.reuse import ReuseBounds, ReusedSandboxes, open_reuse
from runner.node.stock.sandboxes import FreshSandboxes, Need
from runner.sandbox import drive
from runner.sandbox.guest.sandbox import Sandbox
from runner.words.execution import (
    Claim,
    ExecutionRequest,
    InputFile,
    Program,
    RunSpec,
    StoredObject,
)  # fmt: skip
from runner.words.ids import new_id
from runner.words.resources import RunBounds
from runner.words.sandbox import Isolation
from tests.support import sandboxes
from tests.support.sandboxes import Bench

TENANT = new_id()
BOUNDS = ReuseBounds(runs=10, age_s=600, idle_s=600, waiting=4)


@pytest.fixture
async def bench(image: None, tmp_path: Path) -> AsyncIterator[Bench]:
    """Return a bench that checks at the end that nothing is left behind."""
    async with sandboxes.bench(tmp_path) as made:
        yield made


@asynccontextmanager
async def reused(bench: Bench, **bounds: float) -> AsyncIterator[ReusedSandboxes]:
    """Keep sandboxes for reuse while the context lasts."""
    fresh = FreshSandboxes(bench.launcher)
    changed = replace(BOUNDS, **bounds)  # type: ignore[arg-type]  # by name
    async with open_reuse(
        fresh, bounds=changed, digest=bench.launcher.maker.images.require
    ) as made:
        yield made


def request(bench: Bench, **changes: object) -> ExecutionRequest:
    """Return a request that asks for reuse, and for other things as well."""
    run = RunSpec(Program(("true",), {}), bench.limits.bounds)
    plain = ExecutionRequest(bench.spec(), run, size="small", reuse=True)
    return replace(plain, **changes)  # type: ignore[arg-type]  # by name


async def use(
    made: ReusedSandboxes,
    bench: Bench,
    code: str = "true",
    *,
    tenant: UUID = TENANT,
    again: bool = True,
    **changes: object,
) -> str:
    """Run a shell script in a sandbox claimed for it; return the sandbox's id."""
    wanted = request(bench, **changes)
    sandbox = await made.claim(Need.of(Claim(new_id(), tenant, 1), wanted))
    program = Program(("bash", "-c", code), {})
    ran = await drive.use(sandbox, program, bench.limits.bounds, again=again)
    assert ran.ending.exit_code == 0, ran.stderr
    await made.dispose(sandbox)
    return sandbox.id


async def test_one_whose_files_were_taken_for_the_last_time_is_not_kept(bench: Bench) -> None:
    """Its supervisor then held a run's bytes itself, and obeys nothing more."""
    async with reused(bench) as made:
        first = await use(made, bench, again=False)
        assert made.waiting == 0
        assert await use(made, bench) != first


async def test_the_tenants_next_execution_gets_it(bench: Bench) -> None:
    """They run in one sandbox, one after the other; time and output limits do not matter."""
    async with reused(bench) as made:
        first = await use(made, bench, "echo x > y")
        assert await use(made, bench, "test ! -e y") == first
        shorter = RunSpec(Program(("true",), {}), RunBounds(timeout_s=3, output_kb=1))
        assert await use(made, bench, run=shorter) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": new_id()},
        {"reuse": False},
        {"image": "data"},
        {"isolation": Isolation.GVISOR},
        {"egress": ({"scheme": "https", "host": "example.com", "port": 443},)},
        {"memory_mb": 300},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_nobody_else_and_nothing_unlike_gets_it(
    bench: Bench, changes: dict[str, object]
) -> None:
    """This is for another tenant, other isolation, or an execution that did not ask for it."""
    if "memory_mb" in changes:
        changes = {"sandbox": bench.spec(memory_mb=300)}
    elif changes.keys() & {"image", "isolation"}:
        changes = {"sandbox": replace(bench.spec(), **changes)}  # type: ignore[arg-type]  # by name
    async with reused(bench) as made:
        first = await use(made, bench)
        assert await use(made, bench, **changes) != first  # type: ignore[arg-type]  # by name
        assert await use(made, bench) == first


async def test_a_sweep_that_is_cancelled_loses_none(bench: Bench) -> None:
    """A worker that stops cancels it. The bench counts at the end."""
    async with reused(bench, idle_s=0) as made:
        await use(made, bench)
        sweeping = asyncio.create_task(made.sweep())
        while made.waiting:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping
        assert bench.launcher.live == set()


async def test_at_once_each_has_its_own(bench: Bench) -> None:
    """A sandbox serves one execution at a time; afterwards all of them wait."""
    async with reused(bench) as made:
        claims = [made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench))) for _ in range(3)]
        taken: list[Sandbox] = await asyncio.gather(*claims)
        assert len({each.id for each in taken}) == 3
        for each in taken:
            await drive.use(each, Program(("true",), {}), bench.limits.bounds, again=True)
            await made.dispose(each)
        assert made.waiting == 3


async def test_one_that_is_being_cleaned_is_waited_for(bench: Bench) -> None:
    """The next execution comes before it is cleaned, and starts no other sandbox."""
    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        await drive.use(sandbox, Program(("true",), {}), bench.limits.bounds, again=True)
        disposing = asyncio.create_task(made.dispose(sandbox))
        await asyncio.sleep(0)
        again = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        assert again.id == sandbox.id
        await disposing
        await made.dispose(again)


@pytest.mark.parametrize(
    "code",
    [
        "python3 -c 'import os; os.setpriority(os.PRIO_PROCESS, 1, 5)'",
        "kill -KILL -1; true",
    ],
)
async def test_one_that_is_not_clean_or_never_ran_out_is_destroyed(bench: Bench, code: str) -> None:
    """Nothing of it waits, and the next execution starts another."""
    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        await drive.use(sandbox, Program(("bash", "-c", code), {}), bench.limits.bounds, again=True)
        await made.dispose(sandbox)
        if "setpriority" in code:
            assert made.waiting == 0
            assert bench.launcher.live == set()


async def test_one_that_was_killed_at_its_deadline_is_destroyed(bench: Bench) -> None:
    """A container that died serves nobody."""
    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        stubborn = "trap '' TERM; while :; do :; done"
        short = bench.within(timeout_s=0.3).bounds
        await drive.use(
            sandbox, Program(("bash", "-c", stubborn), {}), short, grace_s=0.1, again=True
        )
        await made.dispose(sandbox)
        assert made.waiting == 0


@pytest.mark.parametrize("bounds", [{"runs": 2}, {"age_s": 0.0}, {"waiting": 0}])
async def test_bounds_end_it(bench: Bench, bounds: dict[str, float]) -> None:
    """The bounds are its number of runs, its age, and how many are kept."""
    async with reused(bench, **bounds) as made:
        used = [await use(made, bench) for _ in range(3)]
        assert used[2] not in used[:2]
        assert (used[0] == used[1]) is ("runs" in bounds)


async def test_one_that_nobody_asks_for_does_not_wait_for_ever(bench: Bench) -> None:
    """It is destroyed after its idle time."""
    async with reused(bench, idle_s=0.1) as made:
        await use(made, bench)
        assert made.waiting == 1
        async with asyncio.timeout(10):
            while made.waiting or bench.launcher.live:  # noqa: ASYNC110 - seen from outside
                await asyncio.sleep(0.05)


async def test_what_a_run_used_is_its_own(bench: Bench) -> None:
    """CPU time, killed and refused processes of the previous run are not counted again."""
    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        busy = "python3 -c 'x = bytearray(60 << 20); [0 for _ in range(10**7)]'"
        first = await drive.use(
            sandbox, Program(("bash", "-c", busy), {}), bench.limits.bounds, again=True
        )
        await made.dispose(sandbox)
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        second = await drive.use(sandbox, Program(("true",), {}), bench.limits.bounds, again=True)
        await made.dispose(sandbox)
    assert first.ending.usage.cpu_s is not None
    assert second.ending.usage.cpu_s is not None
    assert second.ending.usage.cpu_s < first.ending.usage.cpu_s / 2
    peak = second.ending.usage.memory_peak_bytes
    assert peak is None or peak < 40 * 2**20


@pytest.mark.parametrize("during", ["the claim", "the cleaning"])
async def test_a_cancellation_leaves_no_sandbox_behind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """At that moment, it is in no list, so nobody else would destroy it."""
    asked = asyncio.Event()

    async def silent(_: Sandbox) -> list[str]:
        asked.set()
        return await asyncio.Future[list[str]]()

    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        await drive.use(sandbox, Program(("true",), {}), bench.limits.bounds, again=True)
        if during == "the claim":
            await made.dispose(sandbox)
            assert made.waiting == 1
            monkeypatch.setattr(Sandbox, "ping", silent)
            work: asyncio.Future[object] = asyncio.ensure_future(
                made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
            )
        else:
            monkeypatch.setattr(Sandbox, "clean", silent)
            work = asyncio.ensure_future(made.dispose(sandbox))
        await asked.wait()
        work.cancel()
        await asyncio.wait({work})
        assert (work.cancelled(), made.waiting, bench.launcher.live) == (True, 0, set())


class Stuck:
    """Takes the first artifact, and never comes to its end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def add(self, *_: object) -> None:
        """Wait for ever."""
        self.begun.set()
        await asyncio.Future[None]()


@pytest.mark.parametrize("during", ["the upload", "the collection"])
async def test_one_whose_files_were_cut_short_serves_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    """Its channel is in the middle of a file: it is not even asked to clean itself."""
    asked, stuck = list[Sandbox](), Stuck()

    async def clean(sandbox: Sandbox) -> list[str]:
        asked.append(sandbox)
        return []

    async def stalls(_: object) -> AsyncIterator[bytes]:
        yield b"half"
        stuck.begun.set()
        await asyncio.Future[None]()

    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        leave = Program(("bash", "-c", "echo left > file"), {})
        work: asyncio.Future[object]
        if during == "the upload":
            stored = StoredObject("key", 8, "0" * 64)
            work = asyncio.ensure_future(sandbox.upload([InputFile("in", stored)], stalls))
        else:
            await drive.run(sandbox, leave, bench.limits.bounds)
            work = asyncio.ensure_future(
                sandbox.collect(max_files=9, max_bytes=999, sink=stuck, again=True)
            )
        await stuck.begun.wait()
        work.cancel()
        await asyncio.wait({work})
        monkeypatch.setattr(Sandbox, "clean", clean)
        await made.dispose(sandbox)
        assert (sandbox.spent, asked, made.waiting) == (True, [], 0)
        assert bench.launcher.live == set()


async def test_one_whose_cleaning_fails_unexpectedly_is_destroyed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This holds for any failure: nobody holds it any more."""

    async def broken(_: Sandbox) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(Sandbox, "clean", broken)
    async with reused(bench) as made:
        sandbox = await made.claim(Need.of(Claim(new_id(), TENANT, 1), request(bench)))
        await drive.use(sandbox, Program(("true",), {}), bench.limits.bounds, again=True)
        with pytest.raises(ZeroDivisionError):
            await made.dispose(sandbox)
        assert bench.launcher.live == set()
