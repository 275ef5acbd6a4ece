"""The benchmark of E2B's SDK fails if that is too slow, or if anything failed."""

from typing import Any

import pytest

from benchmarks.e2b import AIM, MODES, ratios, wrong


def measured(**e2b_s: float) -> dict[str, list[dict[str, Any]]]:
    """Return measurements in which our SDK takes 100 ms, and E2B's as long unless given."""
    raw: dict[str, list[dict[str, Any]]] = {}
    for mode in MODES:
        raw[f"native, {mode}"] = [{"took": 0.1}] * 3
        raw[f"e2b, {mode}"] = [{"took": e2b_s.get(mode, 0.1)}] * 3
    return raw


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_that_is_too_slow_is_wrong(mode: str) -> None:
    assert wrong(measured()) == []
    assert wrong(measured(**{mode: 0.1 * AIM})) == []
    raw = measured(**{mode: 0.135})
    assert ratios(raw)[mode] == pytest.approx(1.35)
    assert wrong(raw) == [f"{mode}: through E2B's SDK it takes 1.35 times as long, more than 1.3"]


def test_what_failed_is_wrong() -> None:
    """Even if all of one way failed, so that there is nothing to compare."""
    raw = measured()
    raw["native, burst"] = [{"failed": "NotReady: full"}]
    assert wrong(raw) == ["failed: NotReady: full"]
