"""A worker that is cut off from PostgreSQL: its program is dead before the next attempt may begin.

The network between the two stalls without a reset, so nobody is told. The program visits a server
all the time: what arrives there shows which attempts were alive, and when.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from agent_runner import Execution
from runner.base.settings import Settings
from runner.node.runs.lease import LeaseKeeper
from tests.support import deployment as deployments
from tests.support.deployment import NO_POOL, Deployment, eventually
from tests.support.faults import worker_here
from tests.support.networks import POSTGRES, Network
from tests.support.nodes import further_node
from tests.support.upstreams import Answer, Request, Upstream, serving

pytestmark = pytest.mark.alone

LEASE_S = 4.0
ENOUGH = 10
"""Visits of the second attempt after which both may stop."""
VISITOR = """
import time, urllib.request, uuid
me = uuid.uuid4().hex
while True:
    try:
        with urllib.request.urlopen(f"http://seen.test:{port}/{{me}}", timeout=5) as answer:
            if answer.read() == b"stop": break
    except OSError:
        pass
    time.sleep(0.05)
"""


@dataclass
class Visits:
    """When each attempt's program visited the server."""

    at: dict[str, list[float]]

    def answer(self, request: Request) -> Answer:
        """Note a visit; let programs go on until the second attempt has come often enough."""
        self.at.setdefault(request.path, []).append(time.time())
        return Answer(b"stop" if len(self.at) > 1 and len(self.second) > ENOUGH else b"go on")

    @property
    def first(self) -> list[float]:
        """The visits of the attempt that came first."""
        return next(iter(self.at.values()), [])

    @property
    def second(self) -> list[float]:
        """The visits of the next one."""
        return [*self.at.values()][1] if len(self.at) > 1 else []


@dataclass(frozen=True)
class Seen:
    """The facts about two attempts, by one clock."""

    ended: Execution
    last_of_first: float
    first_of_second: float
    lease_until: float
    """When the first attempt's lease ended: from then on, another worker might have begun."""


@pytest.fixture
def visits() -> Visits:
    return Visits({})


@pytest.fixture
def upstream(visits: Visits) -> Iterator[Upstream]:
    with serving(visits.answer) as server:
        yield server


@pytest.fixture
def made(image: None, upstream: Upstream, tmp_path: Path) -> Iterator[Deployment]:
    """Return a deployment whose programs may visit the server."""
    profiles = tmp_path / "profiles"
    shutil.copytree(Settings().profiles_path, profiles)
    (profiles / "egress" / "ceiling.toml").write_text(
        f'[[allow]]\nhost = "seen.test"\nscheme = "http"\nport = {upstream.port}\n'
    )
    options: dict[str, Any] = {
        "profiles_dir": profiles,
        "egress_hosts": {"seen.test": "127.0.0.1"},
        "egress_trusted_networks": ("127.0.0.0/8",),
        "lease_s": LEASE_S,
        "reconcile_s": 0.5,
        **NO_POOL,
    }
    with capture_logs(), deployments.deployment(**options) as own:
        yield own


def cut_off(made: Deployment, upstream: Upstream, visits: Visits, folder: Path) -> Seen:
    """Cut off the worker of the first attempt; return what is seen until the second has ended."""
    network, services = Network(), made.stack.services
    real = services.postgres.sockets
    far = services.worker_url.replace(str(real), str(folder))
    client = made.client("cut-off")
    with ExitStack() as open_:
        way = network.to(real / POSTGRES, folder / POSTGRES)
        open_.enter_context(made.portal.wrap_async_context_manager(way))
        open_.enter_context(worker_here(made, far))
        submitted = client.submit(
            code=VISITOR.format(port=upstream.port),
            language="python",
            on_worker_loss="retry",
            size="large",
            egress=[f"http://seen.test:{upstream.port}"],
        )
        eventually(lambda: len(visits.first) > ENOUGH)
        open_.enter_context(further_node(made, "second"))
        made.portal.call(network.open.clear)
        open_.callback(made.portal.call, network.open.set)
        lease_until = lease(made, submitted)
        eventually(lambda: len(visits.second) > ENOUGH)
        last, first = visits.first[-1], visits.second[0]
        made.portal.call(network.open.set)
        ended = client.wait(submitted)
    return Seen(ended, last, first, lease_until)


def lease(made: Deployment, submitted: Execution) -> float:
    """Wait until the first attempt's lease has ended; return when that was."""
    found = 0.0
    asked = (
        "SELECT attempt, extract(epoch FROM lease_until)::float8 AS until FROM executions "
        "WHERE execution_id = %s"
    )
    while True:
        (row,) = made.sql(asked, submitted.id)
        if row["attempt"] > 1 or row["until"] is None:
            return found
        found = float(row["until"])
        if time.time() > found:
            return found
        time.sleep(0.05)


def test_two_attempts_never_run_side_by_side(
    made: Deployment, upstream: Upstream, visits: Visits, tmp_path: Path
) -> None:
    """The first one's last visit is before its lease ends; the second one's is the result."""
    seen = cut_off(made, upstream, visits, tmp_path)
    assert seen.last_of_first < seen.lease_until < seen.first_of_second
    assert (seen.ended.state, seen.ended.attempt) == ("succeeded", 2)
    assert len(visits.at) == 2
    ends = made.sql(
        "SELECT 1 FROM audit_events WHERE action = 'execution:end' AND resource_id = %s",
        seen.ended.id,
    )
    assert len(ends) == 1


def test_without_a_bound_of_its_own_the_first_attempt_goes_on(
    made: Deployment,
    upstream: Upstream,
    visits: Visits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: a worker that waits for PostgreSQL's word learns nothing."""
    monkeypatch.setattr(LeaseKeeper, "_fence", float("inf"))
    seen = cut_off(made, upstream, visits, tmp_path)
    assert seen.last_of_first > seen.first_of_second > seen.lease_until
