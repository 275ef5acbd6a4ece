"""The security checks inside sandboxes that live, as `runner verify --living` tries them.

Their programs are processes of one living sandbox, one after the other: after the sandbox was
paused, and on a terminal of a copy of another one. Each check is shown able to fail there, too.
"""

from dataclasses import dataclass

import pytest

from runner.base.settings import Settings
from runner.verify.bench import Bench
from runner.verify.check import Check, Probe
from runner.verify.checks import every_check
from runner.verify.guests import LIVING_WAYS, Way
from runner.verify.gvisor import DIFFERENCES
from runner.verify.suite import CheckResult, CheckVerdict, run, series, tried
from runner.words.sandbox import Isolation
from tests.security.test_checks import MEASURED, judge, probe

CHECKS = tried(every_check(), living=True)
TOGETHER = [check for check in CHECKS if check.id not in MEASURED]
TRIALS = {check.id for check in TOGETHER if not isinstance(check, Probe)}
OF_EACH_KIND = {"time.deadline.fork", "resources.shared.descriptors-in-flight"}
"""Trials that stand for the others: one of a time limit, and one of what a user of the host has.
`test_checks` tries them all in executions."""
WAYS = (Way.RESUMED, Way.FORKED)
"""The others are these without the pause, or without what was copied."""
PROBES = [check for check in CHECKS if isinstance(check, Probe)]


@dataclass(frozen=True)
class Tried:
    """The results of the checks, by id, and how many programs they took."""

    outcomes: dict[str, CheckResult]
    programs: int


async def everything(checks: list[Check], isolation: Isolation) -> Tried:
    """Try these checks in living sandboxes."""
    async with Bench.open(Settings(), isolation, ways=WAYS) as bench:
        outcomes = {each.check.id: each async for each in run(bench, checks)}
        return Tried(outcomes, bench.tries)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("trials", "least"),
    [
        pytest.param(OF_EACH_KIND, 230, id="a trial of each kind"),
        pytest.param(TRIALS, 240, id="every trial", marks=pytest.mark.matrix),
    ],
)
async def test_each_check_holds_in_a_living_sandbox_and_would_not_without_its_control(
    image: None, trials: set[str], least: int
) -> None:
    """No more of them than in executions cannot be shown to fail."""
    assert trials <= TRIALS
    chosen = [check for check in TOGETHER if isinstance(check, Probe) or check.id in trials]
    living = await everything(chosen, Isolation.CONTAINER)
    for check in chosen:
        judge(check, living.outcomes[check.id])
    verdicts = [outcome.verdict for outcome in living.outcomes.values()]
    shown = verdicts.count(CheckVerdict.HELD)
    assert (len(verdicts) >= least, shown >= 0.8 * len(verdicts)) == (True, True), len(verdicts)
    # In a copy, and after a pause: those that share a sandbox. Without its control: each.
    shared = [each for each in PROBES if not each.alone]
    assert living.programs >= 2 * len(shared) + shown


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_behind_gvisor_each_probe_is_stopped_or_its_difference_named(image: None) -> None:
    found = await everything([*PROBES], Isolation.GVISOR)
    outcomes = found.outcomes.values()
    assert [(each.check.id, each.guarded) for each in outcomes if not each.good] == []
    differing = [each for each in outcomes if each.verdict is CheckVerdict.DIFFERS]
    assert len(differing) >= len(DIFFERENCES) / 2, "the list is of another gVisor"
    assert found.programs >= 2 * sum(not each.alone for each in PROBES)


@pytest.mark.alone
@pytest.mark.parametrize("check", [each for each in CHECKS if each.id in MEASURED])
async def test_nobody_else_computing_processor_time_is_limited_in_a_living_sandbox(
    check: Check, image: None
) -> None:
    judge(check, (await everything([check], Isolation.CONTAINER)).outcomes[check.id])


WHERE = {
    Way.PROCESS: "held() if not os.isatty(1) else breached('a terminal')",
    Way.TERMINAL: "held() if os.isatty(1) and os.ttyname(1) else breached('no terminal')",
    Way.RESUMED: "held() if not os.isatty(1) else breached('a terminal')",
    Way.FORKED: "held() if os.isatty(1) and os.path.lexists('/workspace/link-proc-1-mem') "
    "else breached('no copy')",
}


@pytest.mark.parametrize("way", LIVING_WAYS)
async def test_a_probe_is_tried_in_the_way_that_its_report_says(way: Way, image: None) -> None:
    """An attack that works in only one of the ways is a breach."""
    async with Bench.open(Settings(), ways=LIVING_WAYS) as bench:
        paused = _count_pauses(bench)
        found = await series(bench, [probe(code=WHERE[way])], (), way)
        assert not found["x"].breached
        assert paused == ([True] if way is Way.RESUMED else [])
        if way is Way.TERMINAL:
            (outcome,) = [each async for each in run(bench, [probe(code=WHERE[Way.PROCESS])])]
            assert outcome.verdict is CheckVerdict.BREACHED


def _count_pauses(bench: Bench) -> list[bool]:
    """Return a list that grows with each pause."""
    paused: list[bool] = []
    pause = bench.launcher.engine.pause

    async def counted(container: str) -> None:
        await pause(container)
        paused.append((await bench.launcher.engine.state(container))["Paused"])

    bench.launcher.engine.pause = counted  # type: ignore[method-assign]  # it only looks
    return paused


async def test_what_one_probe_leaves_is_seen_by_the_next(image: None) -> None:
    """They do share a sandbox, so the next one would see what the one before could change."""
    leaves = probe(id="a", code="open('/tmp/left', 'w').close(); held()")
    looks = probe(id="b", code="breached() if os.path.exists('/tmp/left') else held()")
    async with Bench.open(Settings(), ways=LIVING_WAYS) as bench:
        found = await series(bench, [leaves, looks], ())
    assert (found["a"].breached, found["b"].breached) == (False, True)
