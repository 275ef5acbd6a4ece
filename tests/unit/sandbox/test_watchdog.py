"""The watchdog ends sandboxes in time, whatever the rest of the process does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from runner.sandbox.cgroups import Counters
from runner.sandbox.watchdog import HELD_UP_S, Term, Watchdog

USED = Counters(cpu_s=1.5)


@contextmanager
def watching(killed: dict[str, float]) -> Iterator[Watchdog]:
    """Run a watchdog that notes what it kills, and when."""

    def kill(container: str) -> None:
        killed[container] = time.monotonic()

    with Watchdog.running(lambda _: USED, kill) as watchdog:
        yield watchdog


def compute_for(seconds: float) -> None:
    """Keep the interpreter as busy as a loop that does a tenant's work."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))


def test_a_sandbox_is_ended_at_its_time_while_the_rest_of_the_process_is_busy() -> None:
    """With what it had used on record, and for the reason that is due first."""
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
    """A program that has ended, a lease that was renewed, a container that is gone."""
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
    """What ended meanwhile is heard of first; a lease may be another worker's by now."""
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
    """A reading or an end that fails is that container's matter: the next one is ended in time."""
    killed: list[str] = []

    def read(container: str) -> Counters:
        if container == "unreadable":
            raise ValueError(container)
        return USED

    def kill(container: str) -> None:
        killed.append(container)
        if container == "unkillable":
            raise LookupError(container)

    with Watchdog.running(read, kill) as watchdog:
        for name in ("unreadable", "unkillable", "next"):
            watchdog.arm(name, Term.LEASE, time.monotonic())
        time.sleep(0.3)
    assert killed == ["unreadable", "unkillable", "next"]
