"""A generation of the protocol has one description: its types, its file and its digest agree."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.protocol import greeting
from runner.protocol.events import EVENTS
from runner.protocol.schema import FOLDER, GENERATION, document, written
from tests.support import manifests

NEWEST = f"{GENERATION}.json"


def faults(folder: Path) -> list[str]:
    """Return how a folder of generations differs from its manifest."""
    return manifests.faults(folder, suffixes={".json"}, instead="generation")


def test_the_newest_generation_is_what_the_types_say() -> None:
    """To write the file, run `python -m runner.protocol.schema`."""
    assert (FOLDER / NEWEST).read_text() == written()


def test_a_changed_type_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: a message that the types lack is a difference."""
    before = document()
    without: dict[str, Any] = {
        name: told for name, told in EVENTS.schema().items() if name != "alive"
    }
    monkeypatch.setattr(EVENTS, "schema", lambda: without)
    assert document() != before


def test_a_node_speaks_the_newest_generation_and_only_such_that_have_a_file() -> None:
    assert max(greeting.GENERATIONS) == GENERATION
    for number in greeting.GENERATIONS:
        assert json.loads((FOLDER / f"{number}.json").read_text())["generation"] == number


def test_no_generation_was_edited() -> None:
    """A released generation never changes, because hosts have images that speak it."""
    assert faults(FOLDER) == []


def test_an_edited_generation_is_found(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "generations"))
    with (copy / NEWEST).open("a") as file:
        file.write("\n")
    assert faults(copy) == [f"{NEWEST} was edited: write a new generation"]
