"""Tries every check twice and says what each try showed.

Probes of one kind share a sandbox: one sandbox with every control for all of them, and one without
it for all that test the same control. So two hundred checks take a minute instead of an hour.
Within a sandbox, many probes share a program (`runner.verify.programs`).
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from itertools import takewhile

from runner.verify.bench import Bench
from runner.verify.build import BUILD_DIFFERENCES
from runner.verify.check import Check, Observation, Probe
from runner.verify.controls import CONTROLS, Change, host_capabilities
from runner.verify.guests import ON_TERMINAL, Guest, Way
from runner.verify.gvisor import DIFFERENCES
from runner.verify.layers import Layer
from runner.verify.programs import AT_ONCE
from runner.verify.trial import Trial
from runner.words.errors import SandboxFault
from runner.words.sandbox import Isolation


class CheckVerdict(StrEnum):
    """The meaning of the tries of one check together."""

    HELD = "held"
    """It was stopped with its control, and succeeded without it."""
    UNSHOWN = "held, not shown"
    """It was stopped. No run without the control could be shown here, and the result says why."""
    DIFFERS = "gVisor's own kernel"
    """The sandbox's own kernel lets it through, which is accepted (`runner.verify.gvisor`)."""
    BREACHED = "BREACHED"
    """The attack succeeded."""
    BROKEN = "broken check"
    """It was stopped in both runs, or failed by itself: the check proves nothing."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check and what its tries showed."""

    check: Check
    guarded: Observation
    unguarded: Observation | None
    why_unshown: str = ""
    differs: str = ""
    also_held_by: tuple[str, ...] = ()
    """Layers of the host that also had to be lowered before the attack succeeded."""

    @property
    def verdict(self) -> CheckVerdict:
        """The result of the tries in one word."""
        if self.differs and (self.guarded.breached or self.guarded.failed):
            return CheckVerdict.DIFFERS
        if self.guarded.breached:
            return CheckVerdict.BREACHED
        if self.guarded.failed:
            return CheckVerdict.BROKEN
        if self.unguarded is not None and self.unguarded.breached:
            return CheckVerdict.HELD
        return CheckVerdict.UNSHOWN if self.why_unshown else CheckVerdict.BROKEN

    @property
    def good(self) -> bool:
        """Whether nothing needs to be fixed."""
        return self.verdict in {CheckVerdict.HELD, CheckVerdict.UNSHOWN, CheckVerdict.DIFFERS}


def checked(checks: Iterable[Check]) -> tuple[Check, ...]:
    """Return the checks; raises ValueError if two have the same id, or a control is unknown."""
    found: dict[str, Check] = {}
    for check in checks:
        if check.id in found:
            raise ValueError(f"two checks are called {check.id}")
        if isinstance(check, Probe) and not check.undemonstrable and check.control not in CONTROLS:
            raise ValueError(f"{check.id} leans on {check.control!r}, which is no control")
        found[check.id] = check
    return tuple(found.values())


def tried(checks: Sequence[Check], *, living: bool) -> Sequence[Check]:
    """Return the checks that can be tried in such sandboxes.

    All can in those of executions. A living one has no use for trials that attack what only an
    execution has, or that need no sandbox at all.
    """
    return [check for check in checks if not living or not isinstance(check, Trial) or check.lives]


async def run(bench: Bench, checks: Sequence[Check]) -> AsyncIterator[CheckResult]:
    """Yield the outcome of each check.

    Behind gVisor, probes are tried only with every control. What each control stops is shown
    against the host's kernel, in a plain container.

    In living sandboxes, each probe is tried in several ways.
    """
    checks = tried(checks, living=bench.living)
    behind_gvisor = bench.isolation is Isolation.GVISOR
    probes = [check for check in checks if isinstance(check, Probe)]
    guarded = worst(
        probes,
        [
            # A sandbox's own limits, for which such probes are alone, are the same on a terminal
            # and in a copy.
            await series(
                bench, [p for p in probes if way not in ON_TERMINAL or not p.alone], (), way
            )
            for way in bench.ways
        ],
    )
    for name in dict.fromkeys(probe.control for probe in probes):
        leaning = [probe for probe in probes if probe.control == name]
        for outcome in await _without(bench, name, leaning, guarded, shown=not behind_gvisor):
            known = BUILD_DIFFERENCES if bench.builds else DIFFERENCES
            differs = known.get(outcome.check.id, "") if behind_gvisor else ""
            yield replace(outcome, differs=differs)
    for check in checks:
        if isinstance(check, Trial):
            yield await _trial(bench, check)


async def _without(
    bench: Bench,
    name: str,
    probes: Sequence[Probe],
    guarded: dict[str, Observation],
    *,
    shown: bool,
) -> list[CheckResult]:
    """Return the outcomes of all probes that test one control."""
    shows = [probe for probe in probes if shown and not probe.undemonstrable]
    bare: dict[str, Observation] = {}
    also: dict[str, tuple[str, ...]] = {}
    if shows:
        control = CONTROLS[name]
        lowered: tuple[Change, ...] = (control.lowered,) if control.lowered else ()
        if lowered:
            # With the other layers lowered, the control must hold by itself.
            guarded |= await _breaches(bench, shows, lowered)
        bare = await series(bench, shows, (*lowered, control.remove))
        hidden = [probe for probe in shows if not bare[probe.id].breached]
        behind = [layer for layer in bench.layers if layer.lower is not None]
        if hidden and behind:
            lowered = (*lowered, *(layer.lower for layer in behind if layer.lower is not None))
            guarded |= await _breaches(bench, hidden, lowered)
            bare |= await series(bench, hidden, (*lowered, control.remove))
            titles = tuple(layer.title for layer in behind)
            also = {probe.id: titles for probe in hidden if bare[probe.id].breached}
    outcomes = []
    for probe in probes:
        seen = bare.get(probe.id)
        why = probe.undemonstrable or ("" if shown else "shown in a plain container")
        if seen is not None and seen.absent:
            why = f"without the control: {seen.saw}"
        elif seen is not None and not seen.breached:
            why = why or held_by_the_host(probe.id, bench.layers)
        if probe.needs and probe.needs not in host_capabilities():
            why = f"this host's own root lacks CAP_{probe.needs}"
        held_too = also.get(probe.id, ())
        outcomes.append(CheckResult(probe, guarded[probe.id], seen, why, also_held_by=held_too))
    return outcomes


async def _breaches(
    bench: Bench, probes: Sequence[Probe], lowered: tuple[Change, ...]
) -> dict[str, Observation]:
    """Return what succeeded with every control, once the layers behind them are lowered."""
    alone = await series(bench, probes, lowered)
    return {id_: seen for id_, seen in alone.items() if seen.breached}


def held_by_the_host(check: str, layers: Sequence[Layer]) -> str:
    """Return why a check holds without its control: by layers that no container can lower."""
    titles = [layer.title for layer in layers if layer.lower is None and layer.may_hold(check)]
    return f"held by {' and '.join(titles)} of this host, too" if titles else ""


async def _trial(bench: Bench, trial: Trial) -> CheckResult:
    guarded = await trial.attempt(bench, True)  # noqa: FBT003 - the attempt's one argument
    if trial.undemonstrable:
        return CheckResult(trial, guarded, None, trial.undemonstrable)
    unguarded = await trial.attempt(bench, False)  # noqa: FBT003 - as above
    why = f"without the control: {unguarded.saw}" if unguarded.absent else ""
    return CheckResult(trial, guarded, unguarded, why)


def worst(
    probes: Sequence[Probe], found: Sequence[Mapping[str, Observation]]
) -> dict[str, Observation]:
    """Return the worst of what each probe showed in several series: above all, a breach."""

    def badness(probe: Probe, seen: Observation) -> tuple[bool, bool, bool]:
        return seen.breached, seen.failed, bool(probe.expect) and seen.saw != probe.expect

    return {
        probe.id: max(
            (each[probe.id] for each in found if probe.id in each), key=partial(badness, probe)
        )
        for probe in probes
    }


async def series(
    bench: Bench, probes: Sequence[Probe], changes: tuple[Change, ...], way: Way | None = None
) -> dict[str, Observation]:
    """Return what each probe shows with these changes, in as few sandboxes as possible.

    Each comes into its sandbox by `way`, or else by the bench's first one.
    """
    way = way or bench.ways[0]
    found: dict[str, Observation] = {}
    async with AsyncExitStack() as stack:
        shared = _Shared(bench, changes, way, stack)
        for probe in probes:
            if probe.alone:
                found |= await shared.tried_alone(probe)
        waiting = [probe for probe in probes if not probe.alone]
        while waiting:
            many = list(takewhile(lambda probe: not probe.apart, waiting[:AT_ONCE]))
            told = await shared.tried_together(many) if len(many) > 1 else {}
            found |= told
            waiting = waiting[len(told) :]
            if not told or len(told) < len(many):
                # It is apart, or the only one, or broke the others off.
                found |= await shared.tried_by_itself(waiting.pop(0))
    return found


class _Shared:
    """A sandbox for one probe after the other; when it is spent, another one."""

    def __init__(
        self, bench: Bench, changes: tuple[Change, ...], way: Way, stack: AsyncExitStack
    ) -> None:
        self._bench = bench
        self._changes = changes
        self._way = way
        self._stack = stack
        self._guest: Guest | None = None

    async def tried_together(self, probes: Sequence[Probe]) -> dict[str, Observation]:
        """Return what those probes showed that came to an end before one broke them off."""
        try:
            found, usable = await self._bench.probes(await self._get(), probes, self._way)
        except SandboxFault:
            # The first one will be tried by itself, and its fault told.
            found, usable = {}, False
        if not usable:
            self._guest = None
        return found

    async def tried_by_itself(self, probe: Probe) -> dict[str, Observation]:
        """Return what a probe shows as a program of its own."""
        try:
            found, usable = await self._bench.probe(await self._get(), probe, self._way)
        except SandboxFault as error:
            found, usable = _fault(error), False
        if not usable:
            self._guest = None
        return {probe.id: found}

    async def tried_alone(self, probe: Probe) -> dict[str, Observation]:
        """Return what a probe shows in a sandbox of its own."""
        try:
            async with self._bench.sandbox(*self._changes, limits=probe.limits) as own:
                found, _ = await self._bench.probe(own, probe, self._way)
        except SandboxFault as error:
            found = _fault(error)
        return {probe.id: found}

    async def _get(self) -> Guest:
        if self._guest is None:
            made = self._bench.sandbox(*self._changes)
            self._guest = await self._stack.enter_async_context(made)
        return self._guest


def _fault(error: SandboxFault) -> Observation:
    return Observation(breached=False, saw=f"{type(error).__name__}: {error}")
