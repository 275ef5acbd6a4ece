"""The security checks as steps of a template's build, by root: gVisor's, and nobody on the host."""

import pytest

from runner.base.settings import Settings
from runner.verify.bench import Bench
from runner.verify.build import BUILD_DIFFERENCES
from runner.verify.check import Probe
from runner.verify.checks import every_check
from runner.verify.guests import Way
from runner.verify.gvisor import DIFFERENCES
from runner.verify.suite import CheckResult, CheckVerdict, run, tried
from runner.words.sandbox import Isolation
from tests.security.test_checks import probe

PROBES = [each for each in tried(every_check(), living=True) if isinstance(each, Probe)]
OF_A_BUILD = BUILD_DIFFERENCES.keys() - DIFFERENCES.keys()
LIMIT = "resources.memory.heap"
"""The limit that is tried in a build each time: what a sandbox's limits are does not depend on who
is in it."""
SOME = [
    each
    for number, each in enumerate(PROBES)
    if each.id in OF_A_BUILD or each.id == LIMIT or (number % 3 == 0 and not each.alone)
]
"""Each probe that ends otherwise in a build, and every third of the others."""


async def found(*probes: Probe) -> list[CheckResult]:
    """Return what became of probes in a build's sandbox."""
    async with Bench.open(Settings(), Isolation.GVISOR, ways=(Way.BUILD,)) as bench:
        return [each async for each in run(bench, probes)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("probes", "least", "stopped"),
    [
        pytest.param(SOME, 85, 50, id="some"),
        pytest.param(PROBES, 200, 150, id="all", marks=pytest.mark.matrix),
    ],
)
async def test_each_probe_is_stopped_in_a_build_or_its_difference_named(
    image: None, probes: list[Probe], least: int, stopped: int
) -> None:
    """Most are stopped even though they are root's."""
    results = await found(*probes)
    assert [(each.check.id, each.guarded) for each in results if not each.good] == []
    differing = {each.check.id for each in results if each.verdict is CheckVerdict.DIFFERS}
    assert len(results) >= least
    assert len(results) - len(differing) >= stopped
    assert len(differing & OF_A_BUILD) >= len(OF_A_BUILD) / 2, "the list is of another gVisor"


async def test_a_step_that_reaches_something_is_noticed(image: None) -> None:
    """The control: what root does in its own root succeeds, and is no listed difference."""
    writes = probe(id="writes", code="open('/srv/x', 'w').write('x'); breached()")
    (result,) = await found(writes)
    assert result.verdict is CheckVerdict.BREACHED


def test_every_difference_is_of_a_probe() -> None:
    """Nothing is excused that no probe tries."""
    assert set(BUILD_DIFFERENCES) <= {each.id for each in PROBES}
