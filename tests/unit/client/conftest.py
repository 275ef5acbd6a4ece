"""Tests of the SDK that take `connect` run with both of its halves."""

from collections.abc import Iterator

import pytest

from tests.support.flavours import FLAVOURS, Connect, half


@pytest.fixture(params=FLAVOURS)
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Return what makes a client."""
    with half(request.param) as made:
        yield made.client


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume a broken stream of events without a pause."""
    for package in ("_sync", "_async"):
        for part in ("client", "processes", "sandbox"):
            monkeypatch.setattr(f"agent_runner.{package}.{part}.RESUME_AFTER_S", 0)
