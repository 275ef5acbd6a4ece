"""The thread that holds limits and weights goes on after a failure."""

from threading import Event

import pytest

from runner.sandbox.observe.cgroups import Cgroups, Counters
from runner.sandbox.observe.keeper import Keeper
from runner.sandbox.observe.watchdog import Watchdog


def test_weights_are_set_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a moment without a free file descriptor."""
    failed, again = Event(), Event()

    def weigh(_cgroups: Cgroups) -> bool:
        if not failed.is_set():
            failed.set()
            raise OSError(24, "Too many open files")
        again.set()
        return False

    monkeypatch.setattr(Cgroups, "weigh", weigh)
    watchdog = Watchdog(lambda _: Counters(), lambda _: None, lambda _: False)
    cgroups = Cgroups(version=2, parent="/agentrunner", systemd=False)
    with Keeper.running(cgroups, watchdog):
        assert failed.wait(30)
        assert again.wait(30)
