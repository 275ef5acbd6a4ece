"""A sandbox that Docker could not remove does not stay."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from runner.node.stock.sandboxes import FreshSandboxes, Need
from runner.sandbox.reap import remove_strays
from runner.words.errors import DockerUnavailable
from runner.words.execution import Claim, ExecutionRequest, Program, RunSpec
from runner.words.ids import new_id
from tests.support import sandboxes

CLAIM = Claim(execution_id=UUID(int=1), tenant_id=UUID(int=2), attempt=1)


@pytest.fixture
async def bench(image: None, tmp_path: Path) -> AsyncIterator[sandboxes.Bench]:
    """Return a bench that checks at the end that nothing is left behind."""
    async with sandboxes.bench(tmp_path) as made:
        yield made


async def test_one_that_could_not_be_removed_is_swept_up(
    bench: sandboxes.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker is away during the disposal, which does not fail; the next sweep removes it."""
    fresh = FreshSandboxes(bench.launcher)
    run = RunSpec(Program(("true",), {}), bench.limits.bounds)
    request = ExecutionRequest(bench.spec(), run, size="small")
    sandbox = await fresh.claim(Need.of(CLAIM, request))
    in_use = await fresh.claim(Need.of(Claim(new_id(), new_id(), 1), request))

    async def away(_: str) -> None:
        raise DockerUnavailable("Docker does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(bench.launcher.engine, "remove", away)
        await fresh.dispose(sandbox)
    assert await remove_strays(bench.launcher) == 1
    assert await remove_strays(bench.launcher) == 0
    await in_use.upload(())
    await fresh.dispose(in_use)
