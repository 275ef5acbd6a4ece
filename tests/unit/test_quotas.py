"""Quotas of a tenant: read from a file, bounded by its own numbers, refused with reasons."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runner.base.settings import Settings
from runner.quotas.sizes import load_sizes
from runner.quotas.standing import Standing, refusal, resume_refusal, sandbox_refusal
from runner.quotas.tiers import Quotas, ceiling, load_tiers, overrides
from runner.words.errors import Invalid, SetupError
from runner.words.principal import Tier

PROFILES = Settings().profiles_path
SIZES = load_sizes(PROFILES)
QUOTAS = Quotas(
    concurrent=2,
    queued=10,
    cpu_s_per_day=100,
    egress_bytes_per_day=1000,
    storage_bytes=5000,
    stored_objects=50,
    max_size="small",
    weight=1,
    sandboxes=3,
    sandbox_memory_mb=1024,
    sandbox_hours_per_day=5,
    snapshot_bytes=500,
    snapshot_days=0,
    templates=5,
    template_bytes=400,
    template_days=0,
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IDLE = Standing(
    tier=Tier.FREE,
    quotas=QUOTAS,
    active=0,
    queued=0,
    cpu_s=0.0,
    egress_bytes=0,
    storage_bytes=0,
    stored_objects=0,
    now=NOON,
    day_ends=datetime(2026, 3, 2, tzinfo=UTC),
)
HALF_A_DAY = 12 * 3600


def test_the_shipped_tiers_are_whole_and_rise() -> None:
    """Each tier has every quota, and a higher tier has no less of anything."""
    tiers = load_tiers(PROFILES, SIZES)
    assert list(tiers) == list(Tier)
    for lower, higher in zip(tiers.values(), list(tiers.values())[1:], strict=False):
        for name in (
            "concurrent",
            "queued",
            "cpu_s_per_day",
            "storage_bytes",
            "weight",
            "sandboxes",
        ):
            assert getattr(lower, name) <= getattr(higher, name), name


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("weight = 1 ", "weight = 0 ", "weight"),
        ("queued = 200", "queued = '200'", "queued"),
        ("queued = 200", "", "queued"),
        ("queued = 200", "queued = 200\nqueue = 1", "queue"),
        ('"medium"', '"gigantic"', "gigantic"),
        ("[free]", "[gratis]", "gratis"),
        ("[pro]", "[free]", "tiers.toml"),
        ("[free]", "free = 1\n[x]", "tiers.toml"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(
    before: str, after: str, said: str, tmp_path: Path
) -> None:
    text = (PROFILES / "tiers.toml").read_text()
    assert before in text
    (tmp_path / "tiers.toml").write_text(text.replace(before, after, 1))
    with pytest.raises(SetupError, match=said):
        load_tiers(tmp_path, SIZES)


def test_without_a_file_nobody_guesses(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="tiers"):
        load_tiers(tmp_path, SIZES)


@pytest.mark.parametrize(
    ("used", "egress", "quota", "retry_after_s"),
    [
        ({}, True, None, None),
        ({"active": 99}, True, None, None),
        ({"queued": 9}, True, None, None),
        ({"queued": 10}, True, "queued", 5),
        ({"cpu_s": 99.9}, True, None, None),
        ({"cpu_s": 100.0}, False, "cpu_s_per_day", HALF_A_DAY),
        ({"egress_bytes": 1000}, True, "egress_bytes_per_day", HALF_A_DAY),
        ({"egress_bytes": 1000}, False, None, None),
        ({"storage_bytes": 5000}, False, "storage_bytes", None),
    ],
)
def test_what_is_used_up_refuses_and_says_when_it_is_free(
    used: dict[str, Any], egress: bool, quota: str | None, retry_after_s: int | None
) -> None:
    """The number of running executions refuses nothing; nobody can guess when a queue has room."""
    refused = refusal(replace(IDLE, **used), egress=egress)
    assert (refused and refused.quota) == quota
    assert (refused and refused.retry_after_s) == retry_after_s
    if refused:
        assert refused.used >= refused.limit
        assert (refused.frees_at is not None) == (retry_after_s == HALF_A_DAY)


@pytest.mark.parametrize(
    ("used", "memory_mb", "egress", "quota"),
    [
        ({}, 1024, True, None),
        ({}, 1025, False, "sandbox_memory_mb"),
        ({"sandboxes": 2, "sandbox_memory_mb": 512}, 512, False, None),
        ({"sandboxes": 2, "sandbox_memory_mb": 513}, 512, False, "sandbox_memory_mb"),
        ({"sandboxes": 3}, 1, False, "sandboxes"),
        ({"queued": 10, "storage_bytes": 5000}, 1, False, None),
        ({"cpu_s": 100.0}, 1, False, "cpu_s_per_day"),
        ({"sandbox_hours": 4.9}, 1, False, None),
        ({"sandbox_hours": 5.0}, 1, False, "sandbox_hours_per_day"),
        ({"egress_bytes": 1000}, 1, True, "egress_bytes_per_day"),
        ({"egress_bytes": 1000}, 1, False, None),
    ],
)
def test_a_sandbox_must_fit_beside_those_that_live(
    used: dict[str, Any], memory_mb: int, egress: bool, quota: str | None
) -> None:
    """Their number and memory count. Stored and queued things do not matter."""
    refused = sandbox_refusal(replace(IDLE, **used), memory_mb=memory_mb, egress=egress)
    assert (refused and refused.quota) == quota


def test_a_place_for_a_sandbox_is_free_when_the_clock_ends_one() -> None:
    """If the clock ends none of them, time alone frees nothing."""
    full = replace(IDLE, sandboxes=3)
    refused = sandbox_refusal(full, memory_mb=1, egress=False)
    assert refused is not None
    assert (refused.frees_at, refused.retry_after_s) == (None, None)
    soon = IDLE.now + timedelta(seconds=90)
    refused = sandbox_refusal(replace(full, sandboxes_end_at=soon), memory_mb=1, egress=False)
    assert refused is not None
    assert (refused.frees_at, refused.retry_after_s) == (soon, 90)


def test_a_sandbox_may_go_on_as_long_as_there_is_cpu_time_left_today() -> None:
    """Other quotas do not matter: it has its place already."""
    full = replace(IDLE, sandboxes=99, storage_bytes=10**9, egress_bytes=10**9, queued=99)
    assert resume_refusal(full) is None
    refused = resume_refusal(replace(IDLE, cpu_s=float(IDLE.quotas.cpu_s_per_day)))
    assert refused is not None
    assert (refused.quota, refused.frees_at) == ("cpu_s_per_day", IDLE.day_ends)


def test_egress_that_is_left_is_never_less_than_none() -> None:
    assert replace(IDLE, egress_bytes=400).egress_left == 600
    assert replace(IDLE, egress_bytes=4000).egress_left == 0


def test_a_size_bounds_every_limit_within_the_tenants_own_terms() -> None:
    """Each limit is the lower of the two; a size that is unknown here adds no bound."""
    terms = replace(SIZES["large"], memory_mb=100)
    most = ceiling(terms, QUOTAS, SIZES)
    assert (most.cpu, most.memory_mb) == (SIZES["small"].cpu, 100)
    assert ceiling(terms, replace(QUOTAS, max_size="gone"), SIZES) == terms


def test_a_tenants_own_numbers_are_checked_as_a_tiers_are() -> None:
    assert overrides({"queued": 5, "max_size": "nano"}, SIZES) == {"queued": 5, "max_size": "nano"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"queued": 0}, "quotas.queued"),
        ({"queued": "5"}, "quotas.queued"),
        ({"concurrent": 5}, "quotas.concurrent"),
        ({"max_size": "gigantic"}, "quotas.max_size"),
        ({"qeued": 5}, "quotas.qeued"),
    ]
    for wrong, field in cases:
        with pytest.raises(Invalid) as refused:
            overrides(wrong, SIZES)
        assert refused.value.field == field
