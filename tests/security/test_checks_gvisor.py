"""The same checks behind gVisor's kernel: none succeeds, except for differences that are listed."""

import pytest

from runner.base.settings import Settings
from runner.verify.bench import Bench
from runner.verify.check import Probe
from runner.verify.checks import every_check
from runner.verify.gvisor import DIFFERENCES
from runner.verify.suite import CheckResult, CheckVerdict, run
from runner.words.sandbox import Isolation

PROBES = tuple(check for check in every_check() if isinstance(check, Probe))


@pytest.mark.timeout(600)
async def test_every_probe_is_stopped_or_its_difference_named(image: None) -> None:
    """This notices a release of gVisor that behaves differently."""
    outcomes: list[CheckResult] = []
    async with Bench.open(Settings(), Isolation.GVISOR) as bench:
        outcomes += [outcome async for outcome in run(bench, PROBES)]
    assert [(each.check.id, each.guarded) for each in outcomes if not each.good] == []
    differing = {each.check.id for each in outcomes if each.verdict is CheckVerdict.DIFFERS}
    assert len(differing) >= len(DIFFERENCES) / 2, "the list is of another gVisor"


def test_every_difference_is_of_a_check() -> None:
    """Nothing is excused that no check tries."""
    assert set(DIFFERENCES) <= {probe.id for probe in PROBES}
