"""How the supervisor searches the workspace for a run's artifacts."""

import importlib
import itertools
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from runner.base.settings import Settings


@pytest.fixture
def collect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    """Return the supervisor's module, with a folder of the test's as the workspace."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(Settings().recipes_path / "supervisor")
    module = importlib.import_module("collect")
    monkeypatch.setattr(module, "WORKSPACE", str(tmp_path))
    yield module
    for name in sys.modules.keys() - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("seconds", "found", "refused"),
    [
        (9, ["a", "c/d", "e"], [["missing", "not_found"]]),
        (
            2,
            ["a"],
            [["c/d", "out_of_time"], ["e", "out_of_time"], ["missing", "out_of_time"]],
        ),
    ],
)
def test_a_long_search_ends_with_what_it_has_found(
    collect: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    seconds: int,
    found: list[str],
    refused: list[list[str]],
) -> None:
    """The rest is refused by name: the worker waits for a bounded time, and then for nothing."""
    (tmp_path / "c").mkdir()
    for name in ("a", "c/d", "e"):
        (tmp_path / name).touch()
    clock = itertools.count()  # a second passes with each look at it
    monkeypatch.setattr(collect, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(collect, "MAX_LOOKING_S", seconds)
    offered, answer = answered(collect, ["**", "missing"])
    assert sorted(offered) == found
    assert answer["refused"] == refused


def answered(collect: ModuleType, names: list[str]) -> tuple[list[str], dict[str, object]]:
    """Collect what has these names; return the paths handed back, and the last event."""
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("placed")
    try:
        with ours, theirs:
            collect.collect(collect.Wire(theirs), memory, collect.Bounds(10, 1000, names))
            worker = collect.Wire(ours)
            offered = []
            while (event := worker.command())["say"] == "artifact":
                offered.append(event["path"])
            return offered, event
    finally:
        os.close(memory)
