"""How the supervisor searches the workspace for a run's artifacts."""

import asyncio
import base64
import importlib
import itertools
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from runner.base.masking import Masker
from runner.base.settings import Settings
from runner.protocol.commands import Prepare
from runner.sandbox.guest import artifacts
from runner.sandbox.guest.artifacts import CollectedFiles
from runner.sandbox.guest.channel import Channel


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
    """The rest is refused by name, because the worker waits for a bounded time only."""
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
    """Collect files with these names; return the paths handed back, and the last event."""
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("placed")
    try:
        with ours, theirs:
            worker = collect.Wire(ours)
            worker.send(b"D", patterns := json.dumps(names).encode())
            bounds = collect.Bounds(10, 1000, len(patterns))
            collect.collect(collect.Wire(theirs), memory, bounds)
            offered = []
            while (event := worker.command())["say"] == "artifact":
                offered.append(event["path"])
            return offered, event
    finally:
        os.close(memory)


class Paths:
    """Keeps the paths of the files that come."""

    def __init__(self) -> None:
        self.came: list[str] = []

    async def add(self, path: str, size: int, chunks: AsyncIterator[bytes]) -> None:
        """Take one file."""
        self.came.append(path)
        assert size == len(b"".join([chunk async for chunk in chunks]))


@pytest.mark.parametrize(
    ("names", "kept"),
    [((), ["a.csv", "b.txt"]), (("*.csv",), ["a.csv"]), (("*.csv", "é" * 90_000), ["a.csv"])],
    ids=["none", "one", "more than a frame holds"],
)
async def test_patterns_follow_their_command(
    collect: ModuleType,
    tmp_path: Path,
    names: tuple[str, ...],
    kept: list[str],
) -> None:
    """The command itself, which PID 1 reads, holds only their length."""
    for name in ("a.csv", "b.txt"):
        (tmp_path / name).write_text(name)
    paths = Paths()
    command, _ = await collected(collect, names, paths, Masker(()))
    assert sorted(paths.came) == kept
    assert not any(name in str(command) for name in names)


SECRET = "s3cr\tet-\u202evalue+" + "0123456789abcdef" * 2
FORMS = {
    "plain": SECRET,
    "base64": base64.urlsafe_b64encode(SECRET.encode()).decode(),
    "hex": SECRET.encode().hex(),
}


@pytest.mark.parametrize("before", [0, 150, 175, 190, 196, 199])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
async def test_a_secret_in_a_refused_name_is_starred_wherever_the_name_is_cut(
    collect: ModuleType, tmp_path: Path, form: str, before: int
) -> None:
    """This also holds for unprintable characters. The control knows no secrets."""
    path = tmp_path / ("d" * before) / form if before else tmp_path / form
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("/")
    _, starred = await collected(collect, (), Paths(), Masker([SECRET]))
    _, shown = await collected(collect, (), Paths(), Masker(()))
    (name,), (control,) = starred.refused, shown.refused
    parts = [form[at : at + 5] for at in range(len(form) - 4)]
    parts = [part for part in parts if part.isprintable()]
    assert not [part for part in parts if part in name]
    assert name[:before] == "d" * before
    assert name.rpartition(": ")[2] == control.rpartition(": ")[2]
    if before < 180:
        assert [part for part in parts if part in control]


async def test_a_name_that_is_cut_elsewhere_is_told_to_its_end(
    collect: ModuleType, tmp_path: Path
) -> None:
    """Text that happens to be at the name's end is not part of a secret."""
    (tmp_path / ("é" * 100)).mkdir()
    (tmp_path / ("é" * 100) / ("z" * 120)).symlink_to("/")
    _, told = await collected(collect, (), Paths(), Masker([SECRET]))
    assert told.refused == ("é" * 100 + "/" + "z" * 99 + ": not_a_regular_file",)


async def collected(
    collect: ModuleType, names: Sequence[str], paths: Paths, masker: Masker
) -> tuple[dict[str, object], CollectedFiles]:
    """Let the worker collect from the supervisor; return the command and the report."""
    ours, theirs = socket.socketpair()
    channel = Channel(*await asyncio.open_connection(sock=ours))

    def obey() -> dict[str, object]:
        memory = os.memfd_create("placed")
        wire = collect.Wire(theirs)
        assert wire.command() == {"do": "prepare"}
        command: dict[str, object] = wire.command()
        bounds = collect.Bounds(8, 1000, command["names_bytes"])
        collect.collect(wire, memory, bounds)
        os.close(memory)
        return command

    with theirs:
        async with asyncio.timeout(10):
            obeyed = asyncio.create_task(asyncio.to_thread(obey))
            await channel.send(Prepare())
            told = await artifacts.collect(
                channel,
                names=names,
                max_files=8,
                max_bytes=1000,
                again=True,
                sink=paths,
                masker=masker,
            )
            command = await obeyed
    channel.close()
    return command, told
