"""Attempts that failed before their program began cost nothing if a node is at fault."""

import asyncio

import pytest

from runner.node.breaker import STARTING, Breaker
from runner.node.runs import settle
from runner.node.runs.settle import MOST_GIVEN_BACK, told
from runner.node.runs.unstarted import decide
from runner.store.attempts import Stored
from runner.words.errors import (
    DockerUnavailable,
    ImageIncompatible,
    ImageMissing,
    IsolationMissing,
    KeyUnavailable,
    LaunchFailed,
    ProtocolViolation,
    RunnerError,
    SecretsUnreadable,
    SetupError,
    StoreUnavailable,
    TemplateMissing,
)
from runner.words.states import Reason, State

pytestmark = pytest.mark.anyio
ERROR = LaunchFailed("Docker refused: no such cgroup")


def stored(attempt: int, given_back: int = 0, *, cancel: bool = False) -> Stored:
    """Return an attempt that has not begun."""
    return Stored(
        state=State.STARTING,
        attempt=attempt,
        cancel_requested=cancel,
        retry_asked=False,
        lease_expired=False,
        given_back=given_back,
    )


def test_a_fault_of_the_node_costs_no_attempt() -> None:
    """It goes back to the queue, however many nodes were broken before."""
    assert decide(stored(30, 29), ERROR, ours=True, max_attempts=3) is None
    assert decide(stored(32, 30), ERROR, ours=False, max_attempts=3) is None
    lost = settle.decide(stored(32, 30), Reason.WORKER_LOST, 3)
    assert isinstance(lost, settle.Requeue)


def test_what_cannot_be_started_ends_after_a_few_attempts() -> None:
    """The tenant does not see Docker's message, which is for the operator."""
    assert decide(stored(2), ERROR, ours=False, max_attempts=3) is None
    end = decide(stored(3), ERROR, ours=False, max_attempts=3)
    assert end is not None
    assert end.reason is Reason.SANDBOX_START_FAILED


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (DockerUnavailable, Reason.SANDBOX_START_FAILED),
        (LaunchFailed, Reason.SANDBOX_START_FAILED),
        (ProtocolViolation, Reason.SANDBOX_START_FAILED),
        (ImageMissing, Reason.IMAGE_MISSING),
        (ImageIncompatible, Reason.IMAGE_MISSING),
        (IsolationMissing, Reason.ISOLATION_MISSING),
        (KeyUnavailable, Reason.SECRET_UNAVAILABLE),
        (SecretsUnreadable, Reason.SECRET_UNAVAILABLE),
        (StoreUnavailable, Reason.INTERNAL),
        (SetupError, Reason.INTERNAL),
    ],
)
def test_a_tenant_is_told_nothing_of_the_host(kind: type[RunnerError], reason: Reason) -> None:
    """There is no path and no address, but the reason is right."""
    error = kind("/etc/runner/secrets.toml: unix:///run/docker.sock does not answer")
    assert told(error)[0] is reason
    result = settle.not_started(error)
    assert result.reason is reason
    assert "/" not in result.detail


def test_a_tenant_is_told_what_became_of_its_template() -> None:
    error = TemplateMissing("the template tools@1 was deleted, or was never built")
    assert told(error) == (Reason.IMAGE_MISSING, error.detail)


def test_a_drain_before_the_program_began_costs_no_attempt() -> None:
    """A drain is our doing, but it is not repeated for ever."""
    free = settle.decide(stored(3), Reason.WORKER_DRAINED, 3)
    assert free == settle.Requeue(settle.EXPLANATIONS[Reason.WORKER_DRAINED], free=True)
    lost = settle.decide(stored(2), Reason.WORKER_LOST, 3)
    assert isinstance(lost, settle.Requeue)
    assert not lost.free
    spent = stored(MOST_GIVEN_BACK + 3, MOST_GIVEN_BACK)
    assert isinstance(settle.decide(spent, Reason.WORKER_DRAINED, 3), settle.End)


def test_what_breaks_nodes_is_taken_out_of_circulation() -> None:
    """It is not returned for ever."""
    end = decide(stored(99, MOST_GIVEN_BACK), ERROR, ours=True, max_attempts=3)
    assert end is not None


def test_a_cancelled_one_ends() -> None:
    """An execution that was cancelled does not come back."""
    end = decide(stored(1, cancel=True), ERROR, ours=True, max_attempts=3)
    assert end is not None
    assert end.state is State.CANCELLED


class Node:
    """A node whose starts fail for as long as there is a fault."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.probes = 0

    async def probe(self) -> None:
        """Start a sandbox for nobody."""
        self.probes += 1
        await asyncio.sleep(0.01)
        if self.fault is not None:
            raise self.fault


async def test_a_node_that_starts_others_is_not_at_fault() -> None:
    """An order that cannot be met delays nobody else."""
    breaker = Breaker(Node().probe)
    assert not await breaker.blames_node()
    async with asyncio.timeout(1):
        await breaker.whole()


@pytest.mark.parametrize("fault", [DockerUnavailable("away"), ERROR, OSError(28, "full")])
async def test_a_broken_node_claims_nothing_until_it_is_whole(fault: Exception) -> None:
    """Waiting claims continue once a start has succeeded."""
    node = Node(fault)
    breaker = Breaker(node.probe)
    assert await breaker.blames_node()
    claiming = asyncio.create_task(breaker.whole())
    with pytest.raises(Exception, match=r"away|refused|full"):
        await breaker.mend()
    assert not claiming.done()
    node.fault = None
    await breaker.mend()
    await asyncio.wait_for(claiming, 1)


async def test_many_failures_at_once_are_one_look() -> None:
    """A loaded node is not asked to start one sandbox per failure."""
    node = Node(DockerUnavailable("away"))
    breaker = Breaker(node.probe)
    assert all(await asyncio.gather(*(breaker.blames_node() for _ in range(50))))
    assert node.probes == 1


async def test_a_cancelled_look_answers_nobody() -> None:
    """Whoever waited for it checks again; the node is at fault all the same."""
    node = Node()
    breaker = Breaker(node.probe)
    earlier = asyncio.create_task(breaker.blames_node())
    await asyncio.sleep(0)
    # All five have failed before the look that the first of them begins.
    first, *others = (asyncio.create_task(breaker.blames_node()) for _ in range(5))
    assert not await earlier
    node.fault = DockerUnavailable("away")
    while node.probes < 2:  # noqa: ASYNC110 - a test looks from outside
        await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.gather(*others) == [True] * 4
    assert node.probes == 3


async def test_a_missing_image_is_no_broken_node() -> None:
    """Executions with another image may start."""
    breaker = Breaker(Node(ImageMissing("no such image")).probe)
    assert not await breaker.blames_node()


async def test_a_stopping_worker_waits_for_no_node() -> None:
    """It has to drain instead."""
    breaker = Breaker(Node(DockerUnavailable("away")).probe)
    await breaker.blames_node()
    breaker.stop()
    async with asyncio.timeout(1):
        await breaker.whole()


async def test_a_broken_node_is_told_while_a_look_at_it_hangs() -> None:
    """A check of a silent Docker takes long; the node does not seem healthy meanwhile."""
    node = Node(DockerUnavailable("away"))
    breaker = Breaker(node.probe)
    assert breaker.failing == {}
    await breaker.blames_node()
    looking = asyncio.create_task(breaker.mend())
    await asyncio.sleep(0.005)
    assert not looking.done()
    assert breaker.failing == {STARTING: "away"}
    node.fault = None
    await looking
    assert breaker.failing == {}
