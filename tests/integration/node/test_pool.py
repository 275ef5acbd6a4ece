"""Sandboxes started ahead: each for one execution, isolated as usual, none left behind."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from runner.base.duties import Duties
from runner.node.stock import pool as pools
from runner.node.stock.demand import PoolBounds
from runner.node.stock.pool import WarmSandboxes, open_pool
from runner.node.stock.sandboxes import Need
from runner.node.traffic import QUIET_S, Traffic
from runner.sandbox.drive import use
from runner.sandbox.engine import spec
from runner.sandbox.guest.sandbox import Sandbox
from runner.sandbox.launch import SandboxOrder
from runner.words.errors import DockerUnavailable, ImageMissing, IsolationMissing, LaunchFailed
from runner.words.execution import Claim, ExecutionRequest, Program, RunSpec
from runner.words.ids import new_id
from runner.words.sandbox import Isolation
from tests.support import sandboxes
from tests.support.deployment import PATIENCE_S


@pytest.fixture
async def bench(image: None, tmp_path: Path) -> AsyncIterator[sandboxes.Bench]:
    """Return a bench that checks at the end that nothing is left behind."""
    async with sandboxes.bench(tmp_path) as made:
        yield made


@asynccontextmanager
async def pool(
    bench: sandboxes.Bench,
    floor: int = 2,
    ceiling: int = 4,
    max_idle_s: float = 600,
    traffic: Traffic | None = None,
    duties: Duties | None = None,
    blames_node: Callable[[], Awaitable[bool]] | None = None,
) -> AsyncIterator[WarmSandboxes]:
    """Keep a pool of the default kind, which is full at first."""
    steady = bench.spec()
    bounds = PoolBounds(floor, ceiling, reserve_mb=0)
    async with open_pool(
        bench.launcher,
        bounds=bounds,
        steady=steady,
        max_idle_s=max_idle_s,
        traffic=traffic,
        duties=duties,
        blames_node=blames_node,
    ) as made:
        await until(lambda: made.idle == floor)
        yield made


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something; fail after a while."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - a test looks from outside
            await asyncio.sleep(0.01)


def request(bench: sandboxes.Bench) -> ExecutionRequest:
    """Return a request of the default kind."""
    run = RunSpec(Program(("true",), {}), bench.limits.bounds)
    return ExecutionRequest(bench.spec(), run, size="small")


async def claim(made: WarmSandboxes, bench: sandboxes.Bench) -> Sandbox:
    """Claim a sandbox for an execution of its own."""
    return await made.claim(Need.of(Claim(new_id(), new_id(), 1), request(bench)))


async def works(sandbox: Sandbox, bench: sandboxes.Bench) -> bool:
    """Run a program in it."""
    ran = await use(sandbox, Program(("echo", "here"), {}), bench.limits.bounds)
    return ran.stdout == b"here\n"


async def test_a_claim_takes_what_waits_and_another_comes(bench: sandboxes.Bench) -> None:
    """There is no start in between, and nobody else gets the same one."""
    async with pool(bench) as made:
        before = set(bench.launcher.live)
        taken = await asyncio.gather(*(claim(made, bench) for _ in range(2)))
        assert {each.id for each in taken} == before
        assert all([await works(each, bench) for each in taken])
        await until(lambda: made.idle >= 2)
        assert {each.id for each in taken} <= bench.launcher.live
        for each in taken:
            await made.dispose(each)


async def test_what_can_wait_is_started_when_nobody_runs(bench: sandboxes.Bench) -> None:
    """Enough are left, so the next start does not slow the execution down."""
    traffic = Traffic()
    async with pool(bench, floor=4, traffic=traffic) as made:
        with traffic.passing():
            taken = await claim(made, bench)
            assert await works(taken, bench)
            await asyncio.sleep(QUIET_S + 0.5)
            assert made.idle == 3
        await until(lambda: made.idle == 4)
        await made.dispose(taken)


async def test_a_kind_that_cannot_wait_is_not_held_up_by_one_that_can(
    bench: sandboxes.Bench,
) -> None:
    """None is left, so more are started at once, although the other kind lacks more."""
    traffic = Traffic()
    async with pool(bench, floor=8, ceiling=12, traffic=traffic) as made:
        with traffic.passing():
            taken = [await claim(made, bench) for _ in range(3)]
            other = replace(request(bench), sandbox=bench.spec(memory_mb=96))
            taken.append(await made.claim(Need.of(Claim(new_id(), new_id(), 1), other)))
            # Five are left of the eight; two come of the other kind.
            await until(lambda: made.idle == 7)
        for each in taken:
            await made.dispose(each)


async def test_an_empty_pool_is_a_start_not_an_error(bench: sandboxes.Bench) -> None:
    """Six are claimed at once although two wait, and one of a kind that is new."""
    async with pool(bench) as made:
        taken = await asyncio.gather(*(claim(made, bench) for _ in range(6)))
        assert len({each.id for each in taken}) == 6
        other = replace(request(bench), sandbox=bench.spec(memory_mb=96))
        odd = await made.claim(Need.of(Claim(new_id(), new_id(), 1), other))
        for each in (*taken, odd):
            assert await works(each, bench)
            await made.dispose(each)


async def test_what_was_started_ahead_is_as_isolated_as_what_was_not(
    bench: sandboxes.Bench,
) -> None:
    """Read back from the kernel and from Docker, nothing differs except names."""
    async with pool(bench) as made:
        warm = await claim(made, bench)
        async with bench.sandbox() as fresh:
            assert warm.container.isolation is not None
            assert fresh.container.isolation is not None
            users = [
                str(each.container.isolation.uid)
                for each in (warm, fresh)
                if each.container.isolation
            ]
            same_user = {
                key: getattr(warm.container.isolation, key) for key in ("uid", "gid", "groups")
            }
            assert replace(fresh.container.isolation, **same_user) == warm.container.isolation
            facts = [
                await bench.launcher.engine.inspect(each.container.id) for each in (warm, fresh)
            ]
            configs = []
            for each in facts:
                assert each is not None
                text = str({key: each[key] for key in ("HostConfig", "Config", "AppArmorProfile")})
                configs.append(text.split("'Labels'", maxsplit=1)[0])
            for sandbox, index in ((warm, 0), (fresh, 1)):
                configs[index] = configs[index].replace(sandbox.id, "X")
                configs[index] = configs[index].replace(sandbox.container.id[:12], "Y")
                configs[index] = configs[index].replace(users[index], "Z")
            assert configs[0] == configs[1]
        await made.dispose(warm)


async def test_one_that_died_is_passed_over(bench: sandboxes.Bench) -> None:
    """It was killed from outside: the next one is taken, or one is started."""
    async with pool(bench, floor=1) as made:
        (waiting,) = bench.launcher.live
        for facts in await bench.launcher.engine.containers({"runner.sandbox": waiting}):
            await bench.launcher.engine.kill(facts["Id"])
        taken = await claim(made, bench)
        assert taken.id != waiting
        assert await works(taken, bench)
        await made.dispose(taken)


async def test_one_that_does_not_answer_is_passed_over(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused: it neither closes its connection nor answers."""
    monkeypatch.setattr("runner.sandbox.guest.patience.ANSWER_S", 0.1)
    async with pool(bench, floor=1) as made:
        (waiting,) = bench.launcher.live
        (facts,) = await bench.launcher.engine.containers({"runner.sandbox": waiting})
        await bench.launcher.engine._call(lambda client: client.pause(facts["Id"]))
        taken = await claim(made, bench)
        assert taken.id != waiting
        await made.dispose(taken)


async def test_what_waited_too_long_is_replaced(bench: sandboxes.Bench) -> None:
    """A newer one replaces it."""
    async with pool(bench, floor=1, max_idle_s=0.5) as made:
        (first,) = bench.launcher.live
        await until(lambda: made.idle == 1 and first not in bench.launcher.live)


async def test_what_is_of_another_image_is_let_go(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image was removed; once there is one again, the pool fills."""
    monkeypatch.setattr(pools, "REST_S", 0.1)
    async with pool(bench, floor=1) as made:

        async def missing(_: str) -> str:
            raise ImageMissing("gone")

        with monkeypatch.context() as patch:
            patch.setattr(bench.launcher.maker.images, "find", missing)
            await until(lambda: made.idle == 0 and not bench.launcher.live)
        await until(lambda: made.idle == 1)


async def test_docker_may_be_away_for_a_while(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is started and nothing breaks; the pool fills once Docker is back."""
    async with pool(bench, floor=1) as made:

        async def away(*_: object) -> str:
            raise DockerUnavailable("away")

        with monkeypatch.context() as patch:
            patch.setattr(bench.launcher.engine, "create", away)
            taken = await claim(made, bench)
            with pytest.raises(DockerUnavailable):
                await claim(made, bench)
        await until(lambda: made.idle >= 1)
        await made.dispose(taken)


async def test_a_run_folder_that_refuses_does_not_end_the_pool(bench: sandboxes.Bench) -> None:
    """For example, it was mounted read-only for a while: the pool fills again by itself."""
    launcher, site = bench.launcher, bench.launcher.site
    nowhere = site.folder / "no folder"
    async with pool(bench, floor=1) as made:
        launcher.site = replace(site, folder=nowhere)
        nowhere.touch()
        with capture_logs() as logs:
            taken = await claim(made, bench)
            await until(lambda: any(each["event"] == "duty_failed" for each in logs))
        nowhere.unlink()
        launcher.site = site
        await until(lambda: made.idle == 1)
        await made.dispose(taken, at_once=True)


async def test_a_claim_that_is_cancelled_leaves_no_sandbox_behind(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had left the pool and was being checked when its claim was cancelled."""
    async with pool(bench, floor=1) as made:
        (waiting,) = bench.launcher.live
        asked = asyncio.Event()

        async def silent(_: Sandbox) -> None:
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Sandbox, "ping", silent)
        claiming = asyncio.create_task(claim(made, bench))
        await asked.wait()
        claiming.cancel()
        await until(lambda: claiming.done() and waiting not in bench.launcher.live)


async def _innocent() -> bool:
    return False


@pytest.mark.parametrize(
    "cannot",
    ["an image that was not built", "an isolation that Docker lacks", "an order Docker refuses"],
)
async def test_a_kind_that_cannot_start_holds_up_no_other(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch, cannot: str
) -> None:
    """One request of the kind suffices. The others are kept full, and the worker is healthy."""
    plain = request(bench)
    odd = replace(plain, sandbox=replace(bench.spec(), image="not-built"))
    if cannot == "an isolation that Docker lacks":
        odd = replace(plain, sandbox=replace(bench.spec(), isolation=Isolation.GVISOR))
        monkeypatch.setattr(spec, "RUNSC", "no-such-runtime")
    elif cannot == "an order Docker refuses":
        # Below the six megabytes that Docker gives at least.
        odd = replace(plain, sandbox=bench.spec(memory_mb=1))
    starts = []
    started = bench.launcher.launch

    async def counted(order: SandboxOrder) -> Sandbox:
        starts.append(order)
        return await started(order)

    monkeypatch.setattr(bench.launcher, "launch", counted)
    duties = Duties()
    async with pool(bench, floor=2, duties=duties, blames_node=_innocent) as made:
        for _ in range(3):
            with pytest.raises((ImageMissing, IsolationMissing, LaunchFailed)):
                await made.claim(Need.of(Claim(new_id(), new_id(), 1), odd))
        other = replace(plain, sandbox=bench.spec(memory_mb=96))
        taken = [await claim(made, bench) for _ in range(2)]
        taken.append(await made.claim(Need.of(Claim(new_id(), new_id(), 1), other)))
        # Two of the steady kind and two of the other.
        await until(lambda: made.idle >= 4)
        assert not duties.failing
        ahead = [each.spec for each in starts if not each.tenant]
        assert ahead.count(odd.sandbox) == 1
        for each in taken:
            await made.dispose(each)
