"""Fixtures that every kind of test may use. A missing need fails; nothing is skipped."""

import gc
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from runner.__main__ import GARBAGE_AT
from tests.support import deployment as deployments
from tests.support import order, times
from tests.support.deployment import NO_POOL, Deployment

# Hypothesis's limit of 200 ms for an example measures how busy the host is. pytest-timeout ends
# a test that takes too long.
hypothesis.settings.register_profile("busy host", deadline=None)
hypothesis.settings.load_profile("busy host")


PACE = gc.get_threshold()


def pytest_configure() -> None:
    """Search for garbage rarely while tests are collected: modules and tests stay."""
    gc.set_threshold(GARBAGE_AT, 20, 50)


def pytest_collection_finish() -> None:
    """Leave them out of each later search, which has Python's own pace again."""
    gc.freeze()
    gc.set_threshold(*PACE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Read no other modules if only the tests marked `alone` run: that takes longer than some."""
    if config.option.markexpr != order.ALONE or not collection_path.match("test_*.py"):
        return None
    return None if order.says_alone(collection_path) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let the longest modules begin first if several processes share the tests."""
    order.demand_that_marks_are_written(items)
    if hasattr(config, "workerinput"):
        order.longest_first(items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the time went after a long run."""
    reports = [report for kept in terminalreporter.stats.values() for report in kept]
    if lines := times.told(reports):
        terminalreporter.section("seconds by group and by module, set-up included")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays() -> Iterator[None]:
    """Remove at the end what deployments are made from."""
    yield
    deployments.end_fork_server()
    deployments.forget_databases()
    deployments.finish_removals()


@pytest.fixture(scope="session")
def image() -> None:
    """Build the sandbox image once."""
    deployments.build_image()


@pytest.fixture(scope="session")
def shared(image: None) -> Iterator[Deployment]:
    """Return a deployment shared by tests that leave it whole; each uses tenants of its own."""
    with deployments.deployment(ports_domain=deployments.PORTS_DOMAIN) as made:
        yield made


@pytest.fixture
def own(image: None) -> Iterator[Deployment]:
    """Return a deployment of this test's own, to be broken at will; without a pool.

    What a pool changes: test_pool.
    """
    with deployments.deployment(lease_s=3.0, reconcile_s=0.5, **NO_POOL) as made:
        yield made
