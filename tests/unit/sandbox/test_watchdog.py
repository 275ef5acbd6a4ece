"""The watchdog ends sandboxes in time, even if the rest of the process is busy."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runner.sandbox.observe import watchdog as module
from runner.sandbox.observe.cgroups import Counters
from runner.sandbox.observe.watchdog import HELD_UP_S, Kill, Lives, Read, Term, Watchdog

pytestmark = pytest.mark.alone

CONTAINERS = (
    *("late", "one", "ended", "renewed", "gone", "control", "program", "lost"),
    *("unreadable", "unkillable", "next"),
)
USED = Counters(cpu_s=1.5)


@contextmanager
def watching(killed: dict[str, float]) -> Iterator[Watchdog]:
    """Run a watchdog; its containers die when killed, and the time is noted."""

    def kill(container: str) -> None:
        killed[container] = time.monotonic()

    with guarding(lambda _: USED, kill, lambda container: container not in killed) as watchdog:
        yield watchdog


@contextmanager
def guarding(read: Read, kill: Kill, lives: Lives) -> Iterator[Watchdog]:
    """Run a watchdog that guards all containers that these tests know."""
    with Watchdog.running(read, kill, lives) as watchdog:
        for container in CONTAINERS:
            watchdog.guard(container)
        yield watchdog


def compute_for(seconds: float) -> None:
    """Keep the interpreter as busy as a loop that works for a tenant."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def test_a_sandbox_is_ended_at_its_time_while_the_rest_of_the_process_is_busy() -> None:
    """Its usage is recorded, and the reason is the one that was due first."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        began = time.monotonic()
        watchdog.arm("late", Term.DEADLINE, began + 60)
        watchdog.arm("one", Term.DEADLINE, began + 0.3)
        watchdog.arm("one", Term.LEASE, began + 0.2)
        compute_for(1)
        assert 0.2 <= killed["one"] - began < 0.7
        fired = watchdog.fired("one")
        assert fired is not None
        assert (fired.term, fired.used) == (Term.LEASE, USED)
        assert "late" not in killed
        assert watchdog.fired("late") is None


def test_what_is_disarmed_or_put_off_lives_on() -> None:
    """Examples: a program that has ended, a renewed lease, a container that is gone."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        now = time.monotonic()
        for name in ("ended", "renewed", "gone"):
            watchdog.arm(name, Term.LEASE, now + 0.2)
        watchdog.disarm("ended", Term.LEASE)
        watchdog.arm("renewed", Term.LEASE, now + 60)
        watchdog.forget("gone")
        watchdog.arm("control", Term.LEASE, now + 0.2)
        time.sleep(0.6)
    assert list(killed) == ["control"]


def test_after_a_stop_of_the_whole_process_a_deadline_waits_for_the_loop_but_no_lease_does() -> (
    None
):
    """News of ended programs comes first; a lease may belong to another worker by now."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        long_ago = time.monotonic() - HELD_UP_S - 1
        watchdog.arm("program", Term.DEADLINE, long_ago)
        watchdog.arm("lost", Term.LEASE, long_ago)
        time.sleep(0.5)
        assert list(killed) == ["lost"]
        time.sleep(2.5)
        assert list(killed) == ["lost", "program"]


def test_it_goes_on_whatever_one_container_does_to_it() -> None:
    """A failed reading or end affects only that container: the next one is ended in time."""
    killed: list[str] = []

    def read(container: str) -> Counters:
        if container == "unreadable":
            raise ValueError(container)
        return USED

    def kill(container: str) -> None:
        killed.append(container)
        if container == "unkillable":
            raise LookupError(container)

    with guarding(read, kill, lambda _: False) as watchdog:
        for name in ("unreadable", "unkillable", "next"):
            watchdog.arm(name, Term.LEASE, time.monotonic())
        time.sleep(0.3)
    assert killed == ["unreadable", "unkillable", "next"]


def test_what_survives_is_killed_again_until_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """This holds although its end is recorded, and whatever is armed or disarmed meanwhile."""
    monkeypatch.setattr(module, "AGAIN_S", 0.05)
    tried: list[str] = []

    def kill(container: str) -> None:
        tried.append(container)
        if len(tried) == 2:
            raise OSError(24, "Too many open files")

    with guarding(lambda _: USED, kill, lambda _: len(tried) < 4) as watchdog:
        watchdog.arm("one", Term.LEASE, time.monotonic())
        time.sleep(0.02)
        watchdog.disarm("one", Term.LEASE)
        time.sleep(0.5)
        fired = watchdog.fired("one")
    assert tried == ["one"] * 4
    assert fired is not None
    assert fired.term is Term.LEASE


def test_it_tries_again_while_nobody_can_tell_whether_it_is_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stops once the container is forgotten."""
    monkeypatch.setattr(module, "AGAIN_S", 0.05)
    tried: list[str] = []

    def lives(_: str) -> bool:
        raise OSError(24, "Too many open files")

    with guarding(lambda _: USED, tried.append, lives) as watchdog:
        watchdog.arm("one", Term.LEASE, time.monotonic())
        time.sleep(0.3)
        watchdog.forget("one")
        often = len(tried)
        time.sleep(0.2)
    assert often > 2
    assert len(tried) <= often + 1


def test_what_is_abandoned_is_ended_and_then_forgotten() -> None:
    """Nobody else would do it."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        watchdog.arm("one", Term.DEADLINE, time.monotonic() + 60)
        watchdog.abandon("one")
        time.sleep(0.2)
        assert list(killed) == ["one"]
        time.sleep(module.AGAIN_S + 0.2)
        assert watchdog.fired("one") is None


def test_what_comes_too_late_for_a_container_that_is_gone_means_nothing() -> None:
    """For example, a check of its limits was in progress: nobody would forget it again."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        watchdog.forget("gone")
        watchdog.arm("gone", Term.LIMITS, time.monotonic())
        watchdog.arm("control", Term.LIMITS, time.monotonic())
        time.sleep(0.2)
        assert watchdog.fired("gone") is None
    assert list(killed) == ["control"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_that_its_thread_has_ended_can_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected failure ended it, so nothing is ended in time any more."""
    killed: dict[str, float] = {}
    with watching(killed) as watchdog:
        assert watchdog.alive
    monkeypatch.setattr(Watchdog, "_wait", lambda _: 1 / 0)
    with watching(killed) as watchdog:
        time.sleep(0.1)
        assert not watchdog.alive
