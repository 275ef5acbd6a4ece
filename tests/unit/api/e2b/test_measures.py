"""The resources that sandboxes use, in E2B's terms."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from runner.api.e2b.measures import last_measure, measures
from runner.words.living import MetricsPoint, SandboxMetrics, StoredSandbox

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
SANDBOX = cast(
    "StoredSandbox",
    SimpleNamespace(
        resources=SimpleNamespace(cpu=2.0, memory_mb=512, disk_mb=1024),
        started_at=BEGAN,
        created_at=BEGAN,
    ),
)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 700])
def test_the_last_sample_is_the_same_without_those_before_it(count: int) -> None:
    points = [
        MetricsPoint(
            BEGAN + timedelta(seconds=5 * each), SandboxMetrics(each * each / 100, 1, 1, 1)
        )
        for each in range(1, count + 1)
    ]
    whole = measures(SANDBOX, points)
    assert last_measure(SANDBOX, points) == (whole[-1] if whole else None)
