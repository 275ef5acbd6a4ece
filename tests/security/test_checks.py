"""The security checks, each tried with its control and without it, on real sandboxes.

`runner verify` runs the same checks on an operator's host.
"""

import asyncio
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.verify.bench import Bench
from runner.verify.check import Check, Group, Observation, Probe
from runner.verify.checks import every_check
from runner.verify.controls import CONTROLS, Control, host, root
from runner.verify.layers import Layer
from runner.verify.suite import CheckResult, CheckVerdict, checked, run, series
from runner.verify.trial import Trial
from runner.words.sandbox import Isolation

CHECKS = every_check()
MAY_BE_UNSHOWN = 0.2
MEASURED = {"resources.cpu"}
"""Checks that measure how much processor time a program gets."""
TOGETHER = tuple(check for check in CHECKS if check.id not in MEASURED)
ALONE = tuple(check for check in CHECKS if check.id in MEASURED)


async def tried(checks: tuple[Check, ...], isolation: Isolation) -> dict[str, CheckResult]:
    """Return the outcome of each check."""
    async with Bench.open(Settings(), isolation) as bench:
        return {outcome.check.id: outcome async for outcome in run(bench, checks)}


@pytest.fixture(scope="module")
def outcomes(image: None) -> dict[str, CheckResult]:
    """Return the outcomes: probes of one kind share a sandbox, so they are tried together."""
    return asyncio.run(tried(TOGETHER, Isolation.CONTAINER))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", TOGETHER, ids=lambda check: check.id)
def test_it_is_stopped_and_would_not_be_without_its_control(
    check: Check, outcomes: dict[str, CheckResult]
) -> None:
    """The probe sees the exact error that its check names."""
    judge(check, outcomes[check.id])


@pytest.mark.alone
@pytest.mark.parametrize("check", ALONE, ids=lambda check: check.id)
async def test_nobody_else_computing_it_is_stopped_and_would_not_be_without_its_control(
    check: Check, image: None
) -> None:
    """These checks measure processor time, so nothing else may use the processors meanwhile."""
    (outcome,) = (await tried((check,), Isolation.CONTAINER)).values()
    judge(check, outcome)


def judge(check: Check, outcome: CheckResult) -> None:
    """Demand that a check held, and that it was shown to be able to fail."""
    assert outcome.good, (outcome.verdict, outcome.guarded, outcome.unguarded)
    if isinstance(check, Probe) and check.expect:
        assert outcome.guarded.saw == check.expect


def test_there_are_checks_of_every_group_and_most_are_shown(
    outcomes: dict[str, CheckResult],
) -> None:
    """There are at least 150; at most a fifth of them cannot be shown to fail on this host."""
    assert {check.group for check in CHECKS} == set(Group)
    assert len(CHECKS) >= 150
    unshown = [id_ for id_, each in outcomes.items() if each.verdict is CheckVerdict.UNSHOWN]
    assert len(unshown) <= MAY_BE_UNSHOWN * len(outcomes), unshown


def test_every_check_can_be_judged_by_who_reads_it() -> None:
    """A check says what its success would mean, where it comes from and what stops it."""
    for check in CHECKS:
        for words in (check.title, check.meaning, check.source, check.control):
            assert words.strip(), check.id


def probe(**fields: Any) -> Probe:
    """Return a probe for testing the framework itself."""
    given = {
        "id": "x", "group": Group.FILES, "title": "t", "meaning": "m", "source": "s",
        "control": "read-only root", "code": "held()",
    }  # fmt: skip
    return Probe(**{**given, **fields})


async def test_a_check_that_cannot_fail_is_called_broken(image: None) -> None:
    """It is stopped both times, so it proves nothing."""
    (outcome,) = (await tried((probe(code="held()"),), Isolation.CONTAINER)).values()
    assert outcome.verdict is CheckVerdict.BROKEN
    assert not outcome.good


async def test_an_attack_that_gets_through_is_called_a_breach(image: None) -> None:
    """The result without the control does not matter."""
    (outcome,) = (await tried((probe(code="breached()"),), Isolation.CONTAINER)).values()
    assert outcome.verdict is CheckVerdict.BREACHED
    assert not outcome.good


async def test_a_probe_that_says_nothing_is_not_taken_for_held(image: None) -> None:
    """It crashed, so the check is broken, whatever happens without the control."""
    (outcome,) = (await tried((probe(code="1/0"),), Isolation.CONTAINER)).values()
    assert outcome.verdict is CheckVerdict.BROKEN
    assert outcome.guarded.saw == "exit code 1"


async def test_a_probe_that_breaks_off_the_others_costs_none_of_them(image: None) -> None:
    """It is told by itself, and those behind it are tried as if it had not been there."""
    probes = [
        probe(id="before", code="held('before')"),
        probe(id="breaks", code="os.kill(os.getppid(), 9) if os.getppid() > 1 else held('alone')"),
        probe(id="ends", code="os.kill(-1, 9)"),  # alone, there is nobody else
        probe(id="after", code="breached('after')"),
        probe(id="last", code="held('last')"),
    ]
    async with Bench.open(Settings()) as bench:
        found = await series(bench, probes, ())
        assert bench.tries == len(probes)
    assert {id_: each.saw for id_, each in found.items()} == {
        "before": "before",
        "breaks": "alone",
        "ends": "exit code 1",
        "after": "after",
        "last": "last",
    }
    assert found["after"].breached


HIDDEN = probe(
    control="read-only root, seen alone",
    code="attempt(lambda: open('/etc/probe', 'w').close())",
)


@pytest.mark.parametrize(
    ("standing", "verdict", "also"),
    [
        ((), CheckVerdict.BROKEN, ()),
        ((Layer("an unprivileged user", root),), CheckVerdict.HELD, ("an unprivileged user",)),
        ((Layer("this kernel", holds={"x"}),), CheckVerdict.UNSHOWN, ()),
        ((Layer("this kernel", holds={"y"}),), CheckVerdict.BROKEN, ()),
    ],
)
async def test_a_layer_of_the_host_that_hides_a_proof_is_lowered_or_named(
    image: None,
    monkeypatch: pytest.MonkeyPatch,
    standing: tuple[Layer, ...],
    verdict: CheckVerdict,
    also: tuple[str, ...],
) -> None:
    """Such as AppArmor's policy. Here it is the unprivileged user, who may not write the root."""
    control = Control("a read-only root file system", host(ReadonlyRootfs=False))
    monkeypatch.setitem(CONTROLS, HIDDEN.control, control)
    async with Bench.open(Settings()) as bench:
        bench.layers = standing
        (outcome,) = [each async for each in run(bench, (HIDDEN,))]
    assert (outcome.verdict, outcome.also_held_by) == (verdict, also)


def test_two_checks_of_one_name_are_refused() -> None:
    """A probe that depends on an unknown control is refused, too."""
    with pytest.raises(ValueError, match="two checks"):
        checked([probe(), probe()])
    with pytest.raises(ValueError, match="no control"):
        checked([probe(control="hope")])


async def test_a_trial_that_succeeds_in_both_runs_is_a_breach(image: None) -> None:
    """It is judged like a probe that succeeds in both runs."""

    async def through(_: Bench, guarded: bool) -> Observation:
        return Observation(breached=True, saw="through" if guarded else "of course")

    trial = Trial(
        id="x", group=Group.QUEUE, title="t", meaning="m", source="s", control="c", attempt=through
    )
    (outcome,) = (await tried((trial,), Isolation.CONTAINER)).values()
    assert outcome.verdict is CheckVerdict.BREACHED
