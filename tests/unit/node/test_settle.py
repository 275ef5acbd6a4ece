"""How interrupted attempts are settled: code runs again only if not begun, or on request."""

import pytest

from runner.node.runs.settle import End, Requeue, decide, told
from runner.store.attempts import Stored
from runner.words.errors import ImageMissing
from runner.words.states import ACTIVE, ENDED, Reason, State


def stored(state: State, attempt: int = 1, *, cancel: bool = False, retry: bool = False) -> Stored:
    """Return an attempt as the reaper reads it."""
    return Stored(
        state=state, attempt=attempt, cancel_requested=cancel, retry_asked=retry, lease_expired=True
    )


@pytest.mark.parametrize("state", sorted(ENDED | {State.QUEUED}))
def test_what_is_not_active_is_left_alone(state: State) -> None:
    """An end is final, and a waiting execution needs no help."""
    assert decide(stored(state), Reason.WORKER_LOST, 3) is None


def test_a_program_that_had_not_begun_is_queued_again() -> None:
    """Nothing of it ran, so it is safe to run it."""
    assert isinstance(decide(stored(State.STARTING), Reason.WORKER_LOST, 3), Requeue)


def test_a_program_that_ran_is_not_run_again_unasked() -> None:
    """It ends as a system error with the reason."""
    decision = decide(stored(State.RUNNING), Reason.WORKER_LOST, 3)
    assert isinstance(decision, End)
    assert (decision.result.state, decision.result.reason) == (
        State.SYSTEM_ERROR,
        Reason.WORKER_LOST,
    )


def test_a_program_that_ran_is_run_again_when_asked() -> None:
    """`on_worker_loss: retry`."""
    assert isinstance(decide(stored(State.RUNNING, retry=True), Reason.WORKER_LOST, 3), Requeue)


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_the_last_attempt_is_the_last(state: State) -> None:
    """An execution that kills workers must not go on for ever."""
    decision = decide(stored(state, attempt=3, retry=True), Reason.WORKER_LOST, 3)
    assert isinstance(decision, End)
    assert decision.result.reason is Reason.ATTEMPTS_EXHAUSTED


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_a_cancellation_outweighs_everything(state: State) -> None:
    """An execution that was cancelled does not come back."""
    decision = decide(stored(state, cancel=True, retry=True), Reason.WORKER_LOST, 3)
    assert isinstance(decision, End)
    assert decision.result.state is State.CANCELLED


def test_who_lacks_an_image_is_told_how_it_is_made() -> None:
    """Docker's own words may name places of the host."""
    reason, why = told(ImageMissing("image not on this host: /var/lib/docker/x"))
    assert reason is Reason.IMAGE_MISSING
    assert "`runner images build`" in why
    assert "/var/lib" not in why
