"""Sizes are read from files; a request changes them within the tenant's ceiling."""

import itertools
from dataclasses import asdict
from pathlib import Path

import pytest

from runner.base.settings import Settings
from runner.quotas.sizes import load_sizes, resolve_limits
from runner.words.errors import Invalid, SetupError
from runner.words.resources import Limits

SMALL = Limits(cpu=1.0, memory_mb=256, pids=64, disk_mb=128, timeout_s=30, output_kb=256)
CEILING = Limits(cpu=2.0, memory_mb=1024, pids=128, disk_mb=512, timeout_s=120, output_kb=1024)


def test_the_shipped_sizes_rise() -> None:
    """Each allows at least what the previous one does, and its tmpfs fits into its memory."""
    sizes = load_sizes(Settings().profiles_path)
    assert sizes["small"] == SMALL
    order = [sizes[name] for name in ("nano", "small", "medium", "large")]
    for less, more in itertools.pairwise(order):
        assert less.cpu < more.cpu
        assert less.memory_mb < more.memory_mb
        assert less.pids < more.pids
        assert less.timeout_s < more.timeout_s
    assert all(size.disk_mb < size.memory_mb for size in order)


def test_a_size_is_its_resources_and_its_bounds() -> None:
    """Each limit belongs to one of the two, unchanged; which output is kept is not a limit."""
    parts = asdict(SMALL.resources) | asdict(SMALL.bounds)
    assert parts == {**asdict(SMALL), "output_keep": "head"}


def test_overrides_change_what_they_name() -> None:
    """The other limits stay as in the size."""
    resolved = resolve_limits(SMALL, {"memory_mb": 512, "cpu": 2}, CEILING)
    assert resolved == Limits(
        cpu=2.0, memory_mb=512, pids=64, disk_mb=128, timeout_s=30, output_kb=256
    )


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"memory_mb": 2048}, "limits.memory_mb"),
        ({"pids": 0}, "limits.pids"),
        ({"cpu": -1}, "limits.cpu"),
        ({"cpu": float("nan")}, "limits.cpu"),
        ({"timeout_s": float("inf")}, "limits.timeout_s"),
        ({"memory_mb": 100.5}, "limits.memory_mb"),
        ({"gpu": 1}, "limits.gpu"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(overrides: dict[str, float], field: str) -> None:
    """The refusal names the field, so that the client can correct it."""
    with pytest.raises(Invalid) as caught:
        resolve_limits(SMALL, overrides, CEILING)
    assert caught.value.field == field


def test_a_size_above_the_ceiling_is_refused_as_a_size() -> None:
    """A size is no way around the tenant's ceiling."""
    with pytest.raises(Invalid) as caught:
        resolve_limits(CEILING, {}, SMALL)
    assert caught.value.field == "size"


def test_a_folder_without_sizes_is_a_setup_error(tmp_path: Path) -> None:
    """The error says what to do."""
    with pytest.raises(SetupError, match="RUNNER_PROFILES_DIR"):
        load_sizes(tmp_path)


@pytest.mark.parametrize("name", ["Large", "two words", "9lives", "-", "a" * 32])
def test_a_size_with_a_name_that_no_request_can_give_is_a_setup_error(
    tmp_path: Path, name: str
) -> None:
    """The error says what a name looks like."""
    (tmp_path / "limits").mkdir()
    text = (Settings().profiles_path / "limits" / "small.toml").read_text()
    for each in ("small", name):
        (tmp_path / "limits" / f"{each}.toml").write_text(text)
    with pytest.raises(SetupError, match="lower-case"):
        load_sizes(tmp_path)


@pytest.mark.parametrize("text", ["cpu = 1", "cpu = 'x'", "=", "cpu = -1\nmemory_mb = 256\n"])
def test_a_broken_size_is_a_setup_error(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    (tmp_path / "limits").mkdir()
    path = tmp_path / "limits" / "small.toml"
    path.write_text(text)
    with pytest.raises(SetupError, match=str(path)):
        load_sizes(tmp_path)
