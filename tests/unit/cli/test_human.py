"""Sizes, times and numbers are written as people read them."""

from datetime import UTC, datetime

import pytest

from runner.cli import human


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (8_585_216, "8.2 MiB"),
        (529_530_880, "505 MiB"),
        (1_099_511_627_776, "1.0 TiB"),
        (1_099_511_627_764, "1.0 TiB"),
        (2**62, "4096 PiB"),
    ],
)
def test_a_size_is_in_the_largest_unit_that_it_fills(count: int, written: str) -> None:
    """Units are powers of two, and slightly less than a unit is not 1024 of the smaller one."""
    assert human.size(count) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0048, "5 ms"),
        (1.5, "1.50 s"),
        (59.7, "1 min"),
        (61, "1 min 1 s"),
        (7200, "2 h"),
        (2_592_000, "30 d"),
        (93_600, "1 d 2 h"),
        (86_401, "1 d"),
    ],
)
def test_a_span_of_time_is_in_its_two_largest_units(seconds: float, written: str) -> None:
    assert human.duration(seconds) == written


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("storage_bytes", 1_099_511_627_776, "1.0 TiB"),
        ("egress_bytes_up", 10, "10 B"),
        ("egress_bytes_per_day", 0, "0 B"),
        ("sandbox_memory_mb", 1_048_576, "1.0 TiB"),
        ("cpu_s", 43.2, "43 s"),
        ("cpu_s_per_day", 7200, "2 h"),
        ("stored_objects", 5_000_000, "5,000,000"),
        ("memory_gib_s", 0.11672, "0.117"),
        ("memory_gib_s", 123_456.78, "123,457"),
    ],
)
def test_a_value_is_written_by_what_its_name_says_that_it_is(
    name: str, value: float, written: str
) -> None:
    assert human.quantity(name, value) == written


def test_a_moment_is_in_utc_to_the_second() -> None:
    assert human.moment("2026-01-02T03:04:05.678901+02:00") == "2026-01-02 01:04:05"


@pytest.mark.parametrize(
    ("at", "written"),
    [
        ("2026-01-02T12:00:00Z", "0 s ago"),
        ("2026-01-02T12:00:01Z", "0 s ago"),
        ("2026-01-02T11:58:59Z", "1 min ago"),
        ("2026-01-02T00:00:00Z", "12 h ago"),
        ("2025-12-30T12:00:00Z", "3 d ago"),
    ],
)
def test_an_age_is_in_one_unit(at: str, written: str) -> None:
    """If this clock is behind the server's, nothing is younger than new."""
    assert human.age(at, datetime(2026, 1, 2, 12, tzinfo=UTC)) == written


@pytest.mark.parametrize(
    ("at", "written"),
    [
        ("2026-01-02T12:04:59Z", "in 4 min"),
        ("2026-01-04T12:00:00Z", "in 2 d"),
        ("2026-01-02T11:00:00Z", "in 0 s"),
    ],
)
def test_a_time_to_come_is_in_one_unit(at: str, written: str) -> None:
    """If it has passed, it is now."""
    assert human.ahead(at, datetime(2026, 1, 2, 12, tzinfo=UTC)) == written
