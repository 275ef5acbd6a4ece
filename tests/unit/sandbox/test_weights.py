"""Processor time is divided between tenants, not between sandboxes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from runner.sandbox.observe.cgroups import Cgroups
from runner.sandbox.observe.weights import Spreads, Weights

MANY = 50
FLAT_OUT = 1.0
FOR_S = 120


def after(used: Mapping[str, list[float]], spreads: Spreads | None = None) -> dict[str, float]:
    """Return the weight of each tenant's sandboxes together, in usual weights."""
    parts = (spreads or Spreads()).after(used)
    return {tenant: len(each) / parts.get(tenant, 1) for tenant, each in used.items()}


@pytest.mark.parametrize("many", [1, 2, 50, 300])
def test_many_busy_sandboxes_weigh_as_much_as_one(many: int) -> None:
    assert after({"busy": [0.04] * many, "other": [0.04]}) == {"busy": 1, "other": 1}


def test_a_newcomer_has_its_part_before_it_has_used_anything() -> None:
    assert after({"busy": [0.04] * MANY, "quiet": [0.0]}) == {"busy": 1, "quiet": 1}


def test_idle_sandboxes_take_nothing_from_their_tenants_busy_one() -> None:
    weights = after({"some": [1.0, *[0.001] * 49], "other": [1.0]})
    assert weights == {"some": MANY, "other": 1}


def test_who_uses_less_than_its_part_is_not_slowed_down() -> None:
    """Many sandboxes that run a short command now and then are together no burden."""
    assert not Spreads().after({"busy": [1.0], "light": [0.005] * MANY})


def test_where_nothing_is_used_all_have_the_usual_weight() -> None:
    assert not Spreads().after({"a": [0.0, 0.0], "b": [0.0]})
    assert not Spreads().after({"a": []})
    assert not Spreads().after({})


def test_a_tenant_that_stops_spreading_is_as_heavy_as_before_within_a_minute() -> None:
    spreads = Spreads()
    after({"some": [0.02] * MANY, "other": [0.0]}, spreads)
    for _ in range(60):
        weights = after({"some": [0.5, *[0.0] * 49], "other": [0.5]}, spreads)
    assert weights["some"] == MANY


# ---- Games ------------------------------------------------------------------------------------

Demands = Callable[[int, list[float]], list[float]]
"""The time that a tenant's sandboxes want in a second, by its number and by their last use."""
Rule = Callable[[Mapping[str, list[float]]], Mapping[str, int]]


def one_flat_out_and_the_rest_a_little_less(second: int, before: list[float]) -> list[float]:
    """Use just less than a quarter of what the busiest sandbox has used."""
    return [FLAT_OUT, *[before[0] * 0.24] * (MANY - 1)]


def all_or_none(second: int, before: list[float]) -> list[float]:
    """Stop for each other second."""
    return [FLAT_OUT * (second % 2)] * MANY


def all_or_one(second: int, before: list[float]) -> list[float]:
    """Look like a tenant with a single busy sandbox for each other second."""
    return [FLAT_OUT, *[FLAT_OUT * (second % 2)] * (MANY - 1)]


def all_or_a_little_less(second: int, before: list[float]) -> list[float]:
    """Play both games."""
    game = all_or_none if second % 2 else one_flat_out_and_the_rest_a_little_less
    return game(second, before)


def by_the_number_of_busy_ones(used: Mapping[str, list[float]]) -> Mapping[str, int]:
    """Count those that use a quarter of what the busiest uses, in the last second alone."""
    whole = sum(map(sum, used.values()))
    return {
        tenant: max(1, sum(one * 4 >= max(each) for one in each) if sum(each) * 4 >= whole else 1)
        for tenant, each in used.items()
    }


def shares(demands: list[float], weights: list[float]) -> list[float]:
    """Divide one processor's second as the kernel does: by weight, and nobody gets what it lacks.

    These are the weighted max-min shares.
    """
    got = [0.0] * len(demands)
    left = 1.0
    wanting = [number for number, demand in enumerate(demands) if demand > 0]
    while wanting and left > 1e-12:
        level = left / sum(weights[each] for each in wanting)
        filled = [each for each in wanting if demands[each] - got[each] <= level * weights[each]]
        for each in filled or wanting:
            more = min(demands[each] - got[each], level * weights[each])
            got[each] += more
            left -= more
        wanting = [each for each in wanting if each not in filled] if filled else []
    return got


def parts_of_the_quiet(game: Demands, rule: Rule) -> list[float]:
    """Return what a tenant with one busy sandbox gets in each second beside one that plays."""
    got = [0.0] * (MANY + 1)
    parts: Mapping[str, int] = {}
    found = []
    for second in range(FOR_S):
        weights = [1 / parts.get("gamer", 1)] * MANY + [1 / parts.get("quiet", 1)]
        got = shares([*game(second, got[:MANY]), FLAT_OUT], weights)
        parts = rule({"gamer": got[:MANY], "quiet": got[MANY:]})
        found.append(got[MANY])
    return found


GAMES = [
    one_flat_out_and_the_rest_a_little_less,
    all_or_none,
    all_or_one,
    all_or_a_little_less,
]


def starved(parts: list[float]) -> int:
    """Return for how many seconds a tenant had less than two fifths."""
    return sum(each < 0.4 for each in parts)


@pytest.mark.parametrize("game", GAMES)
def test_no_game_takes_more_than_the_first_seconds(game: Demands) -> None:
    assert starved(parts_of_the_quiet(game, Spreads().after)) <= 2


@pytest.mark.parametrize("game", [GAMES[0], GAMES[1], GAMES[3]])
def test_by_the_number_of_busy_sandboxes_each_game_is_won(game: Demands) -> None:
    """The control."""
    assert starved(parts_of_the_quiet(game, by_the_number_of_busy_ones)) >= FOR_S // 3


# ---- Failures ---------------------------------------------------------------------------------


def write(root: Path, container: str, *, used_s: float | None = None) -> Path:
    """Make a container's group, or change what it has used; return the file with its weight."""
    group = root / "agentrunner" / container
    if not group.exists():
        group.mkdir(parents=True)
        (group / "cpu.weight").write_text("100")
    if used_s is not None:
        (group / "cpu.stat").write_text(f"usage_usec {int(used_s * 1e6)}\n")
    return group / "cpu.weight"


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    """Return the weights of two busy sandboxes of one tenant."""
    found = Weights(Cgroups(version=2, parent="/agentrunner", systemd=False, root=tmp_path))
    for name in ("a", "b"):
        write(tmp_path, name, used_s=0)
        found.assign(name, "some")
    found.weigh()
    return found


def test_a_container_whose_use_could_not_be_read_once_is_counted_again(
    weights: Weights, tmp_path: Path
) -> None:
    (tmp_path / "agentrunner/a/cpu.stat").unlink()
    weights.weigh()
    for name in ("a", "b"):
        write(tmp_path, name, used_s=1)
    weights.weigh()
    assert write(tmp_path, "a").read_text() == "50"


def test_a_container_that_is_gone_is_forgotten(weights: Weights, tmp_path: Path) -> None:
    for file in (tmp_path / "agentrunner/a").iterdir():
        file.unlink()
    (tmp_path / "agentrunner/a").rmdir()
    weights.weigh()
    for name in ("a", "b"):
        write(tmp_path, name, used_s=1)
    weights.weigh()
    assert write(tmp_path, "a").read_text() == "100"


def test_a_weight_that_cannot_be_set_keeps_no_other_from_being_set(
    weights: Weights, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write(tmp_path, name, used_s=1)
    stuck = tmp_path / "agentrunner/a/cpu.weight"
    really = Cgroups.set_weight

    def set_weight(cgroups: Cgroups, container: str, parts: int) -> bool:
        if container == "a" and parts > 1:
            raise OSError(5, "Input/output error")
        return really(cgroups, container, parts)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Cgroups, "set_weight", set_weight)
        with pytest.raises(OSError, match="Input/output error"):
            weights.weigh()
    assert write(tmp_path, "b").read_text() == "50"
    assert stuck.read_text() == "100"
