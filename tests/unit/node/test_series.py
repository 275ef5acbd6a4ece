"""A node keeps a bounded part of a sandbox's metrics, for a bounded time."""

from datetime import UTC, datetime, timedelta

from runner.node.residents.meter import MetricsSeries
from runner.words.living import SandboxMetrics

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
UNKNOWN = SandboxMetrics(None, None, None, None)
USED = SandboxMetrics(1.25, 2**40, 2**41, 7, 3, 2**33, 5, 2**50, 6, 2**51)


def test_samples_come_back_as_they_were_and_what_is_unknown_stays_so() -> None:
    series = MetricsSeries()
    series.add(NOW, UNKNOWN)
    series.add(NOW + timedelta(seconds=10), USED)
    first, second = series
    assert (first.at, first.used) == (NOW, UNKNOWN)
    assert (second.at - first.at, second.used) == (timedelta(seconds=10), USED)


def test_the_oldest_sample_goes_first() -> None:
    series = MetricsSeries(most=3)
    for second in range(10):
        series.add(NOW + timedelta(seconds=second), UNKNOWN)
    assert [each.at.second for each in series] == [7, 8, 9]
